"""A plan on paper for large transformers: memory, operations, bytes over the wire and days, each by a formula.

    python experiments/scale_plan.py            # the table of experiments/site/pages/scaling.md

The networks are JiT's (arXiv 2511.13720) as fmd.models.transformer builds them, in bfloat16 with float32 parameters,
Adam and three averages, split over `fsdp` devices of a host (fmd.sharding); hosts hold the same. d is the width, h the
number of heads, m the hidden width of the perceptron, n the tokens, P numbers of parameters. tests/test_scale_plan.py
compares each formula with networks and compiled programs of small size.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

FLOAT, HALF = 4, 2  # bytes
GIB = 2**30
IMAGENET = 1_281_167
PEAK, MFU = 989e12, 0.4  # dense bfloat16 operations per second of an H100, and the share of it that is hoped for
MEMORY = 80e9  # bytes of an H100
HOST = 8  # devices of a host
WITHIN, BETWEEN = 450e9, 50e9  # bytes per second and device each way: NVLink of a host, 400 Gbit/s between hosts


class Count(NamedTuple):
    """Numbers of parameters: of leaves that are split over devices, and of those too small for it."""

    large: int
    small: int


@dataclass(frozen=True)
class Transformer:
    """A transformer of fmd with SwiGLU, RMSNorm of queries and keys, a bottleneck and class tokens."""

    depth: int
    width: int
    heads: int
    bottleneck: int = 128
    class_tokens: int = 32
    class_tokens_from: int = 4
    patch: int = 16
    side: int = 256
    channels: int = 3
    classes: int = 1000

    @property
    def hidden(self) -> int:
        return 8 * math.ceil(self.width / 3)

    @property
    def patches(self) -> int:
        return (self.side // self.patch) ** 2

    @property
    def tokens(self) -> Iterator[int]:
        """n of each block."""
        for block in range(self.depth):
            yield self.patches + self.class_tokens * (block >= self.class_tokens_from)


def block_parameters(net: Transformer) -> Count:
    """Kernels: adaLN 6 d^2, attention 4 d^2, perceptron 3 d m; then biases and scales."""
    d, m = net.width, net.hidden
    return Count(10 * d * d + 3 * d * m, 13 * d + 2 * m + 2 * d // net.heads)


def outside_parameters(net: Transformer) -> Count:
    """Kernels and tables of patches, times, labels, class tokens and the modulated output; then biases and scales."""
    d, patch = net.width, net.patch**2 * net.channels
    kernels = patch * net.bottleneck + net.bottleneck * d + d * patch + 256 * d + d * d + 2 * d * d
    tables = (net.classes + 1) * d + net.class_tokens * d
    return Count(kernels + tables, d + patch + 2 * d + 2 * d + d)


def parameters(net: Transformer) -> int:
    """All of them."""
    return net.depth * sum(block_parameters(net)) + sum(outside_parameters(net))


def forward_operations(net: Transformer) -> int:
    """Operations of one image and one forward pass; a multiplication and an addition are two.

    2 n (4 d^2 + 3 d m) + 4 n^2 d for each block, and 12 d^2 for its modulation, which is computed once per image.
    """
    d, patch = net.width, net.patch**2 * net.channels
    blocks = sum(2 * n * (4 * d * d + 3 * d * net.hidden) + 4 * n * n * d + 12 * d * d for n in net.tokens)
    ends = net.patches * (patch * net.bottleneck + net.bottleneck * d + d * patch)
    return blocks + 2 * (ends + 256 * d + d * d + 2 * d * d)


def step_operations(net: Transformer, remat: bool) -> int:
    """Operations of one image in training: forward, gradients of inputs and of weights, and forward again by remat."""
    return (4 if remat else 3) * forward_operations(net)


def state_bytes(block: Count, depth: int, outside: Count, *, fsdp: int, averages: int, moments: int = 2) -> int:
    """Bytes per device of parameters, moments and averages."""
    large, small = depth * block.large + outside.large, depth * block.small + outside.small
    return FLOAT * (1 + moments + averages) * (large // fsdp + small)


def gradient_bytes(block: Count, depth: int, outside: Count, *, fsdp: int) -> int:
    """Bytes per device that a step needs for parameters that are gathered and for gradients.

    The gradients of all blocks in parts, one block and its gradient whole, what is outside the blocks and its gradient
    whole.
    """
    return FLOAT * (depth * (block.large // fsdp + block.small) + 2 * sum(block) + 2 * sum(outside))


def wire_bytes(block: Count, depth: int, outside: Count) -> dict[str, int]:
    """Bytes in the results of a step's collectives.

    Each block is gathered twice, forward and backward, the rest once; the gradients are summed once.
    """
    gathered = FLOAT * (2 * depth * block.large + outside.large)
    return {"all-gather": gathered, "all-reduce": FLOAT * (depth * sum(block) + sum(outside))}
