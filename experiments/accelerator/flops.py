"""Floating-point operations of a network by formula, and the share of a device's peak that a speed amounts to.

A multiplication and an addition count two, as the makers' peaks do. For one image and one forward pass:

    convolution k x k on h x w pixels    2 k^2 c_in c_out h w
    dense layer on n rows                2 c_in c_out n
    attention over n pixels              4 n^2 c        (queries with keys, then weights with values)

A training step counts three forward passes: the backward pass computes a gradient for the inputs and one for the
weights of each layer. What is computed again, drawn, normalised or averaged does not count: model FLOP utilisation
(arXiv 2204.02311) is about the work that the model needs, so it can be compared between programs.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bench import PEAK_BFLOAT16

PASSES = {"sample": 1, "train": 3}


def forward(model: Mapping[str, Any], image_shape: Sequence[int]) -> Counter[str]:
    """Operations of one forward pass on one image, by kind: "conv", "dense" and "attention".

    Args:
        model: the block `model` of a config, with its name.
        image_shape: height, width, channels.

    Raises:
        KeyError: for a network without a formula here.
    """
    return FORMULAS[model["name"]](image_shape, **{key: value for key, value in model.items() if key != "name"})


def utilisation(images_per_second: float, flops_per_image: float, peak: float | None) -> float | None:
    """The share of `peak` operations per second that the model's own operations take; None without a peak."""
    return images_per_second * flops_per_image / peak if peak else None


def peak(device_kind: str) -> float | None:
    """The maker's dense bfloat16 operations per second of a device, None for an unknown one."""
    return PEAK_BFLOAT16.get(device_kind)


def unet(
    image_shape: Sequence[int],
    *,
    num_classes: int = 10,
    base_channels: int = 64,
    channel_multipliers: Sequence[int] = (1, 2),
    num_res_blocks: int = 2,
    patch_size: int = 1,
    attention_resolutions: Sequence[int] = (),
    head_dim: int = 64,
    embedding_dim: int = 256,
    dropout: float = 0.0,
    dtype: str = "float32",
    remat: bool = False,
) -> Counter[str]:
    """The UNet of fmd.models.unet; the arguments are its own."""
    count: Counter[str] = Counter()
    height, width, channels = image_shape
    widths = [base_channels * multiplier for multiplier in channel_multipliers]
    factor = patch_size * 2 ** (len(widths) - 1)
    grids = [
        [-(-side // factor) * factor // (patch_size * 2**level) for side in (height, width)]
        for level in range(len(widths))
    ]
    folded = channels * patch_size**2

    def convolution(level: int, inputs: int, outputs: int) -> None:
        count["conv"] += 2 * 9 * inputs * outputs * grids[level][0] * grids[level][1]

    def dense(rows: int, inputs: int, outputs: int) -> None:
        count["dense"] += 2 * rows * inputs * outputs

    def block(level: int, inputs: int) -> None:
        outputs = widths[level]
        convolution(level, inputs, outputs)
        dense(1, embedding_dim, 2 * outputs)
        convolution(level, outputs, outputs)
        if inputs != outputs:
            dense(grids[level][0] * grids[level][1], inputs, outputs)

    def attention(level: int) -> None:
        if grids[level][0] in attention_resolutions:
            pixels, size = grids[level][0] * grids[level][1], widths[level]
            dense(pixels, size, 3 * size)
            count["attention"] += 4 * pixels**2 * size
            dense(pixels, size, size)

    dense(2, embedding_dim, embedding_dim)
    convolution(0, folded, widths[0])
    now, skips = widths[0], []
    for level, size in enumerate(widths):
        if level:
            dense(grids[level][0] * grids[level][1], 4 * now, size)
            now = size
        for _ in range(num_res_blocks):
            block(level, now)
            attention(level)
            now = size
            skips.append(size)
    last = len(widths) - 1
    block(last, now)
    attention(last)
    block(last, now)
    for level in reversed(range(len(widths))):
        for _ in range(num_res_blocks):
            block(level, now + skips.pop())
            attention(level)
            now = widths[level]
        if level:
            dense(grids[level][0] * grids[level][1], now, 4 * widths[level - 1])
            now = widths[level - 1]
    convolution(0, now, folded)
    return count


FORMULAS = {"unet": unet}
