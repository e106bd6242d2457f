"""A UNet for images of any size, conditioned on time and label (DDPM, arXiv 2006.11239; ADM, arXiv 2105.05233).

    image -> fold patches -> conv -> [blocks, keep] per level, halving between -> middle -> [concat, blocks] per level,
    doubling between -> norm, conv (starts at zero) -> unfold patches

The output convolution starts at zero: an untrained network predicts 0 and the velocity loss starts at E[x1^2] + 1.
With patch_size p, p x p pixels enter as channels, so all work happens at 1/p of the resolution: the cheapest way to
make a network for small images fast.

Any H x W: where the coarsest grid does not divide the image, zeros are added around it (half before, half after, as a
convolution with padding sees it anyway) and the output is cropped. Sizes that do divide are not touched.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmd.models.embeddings import LabelEmbedding, TimeEmbedding
from fmd.models.group_norm import GroupNorm
from fmd.models.registry import register_model
from fmd.models.unet_blocks import Downsample, ResidualBlock, SelfAttention, Upsample, fold, unfold

DTYPES = ("float32", "bfloat16")


@register_model("unet")
class UNet(nn.Module):
    """v(x, t, y); see fmd.models.conditional_vector_field for the call. Parameters are float32 in every dtype.

    Level i works at 1 / (patch_size * 2^i) of the image's resolution with base_channels * channel_multipliers[i]
    channels. `attention_resolutions` lists heights of these grids: (7,) puts attention at the 7 x 7 level of MNIST.
    `remat` recomputes the blocks in the backward pass: less memory for about a third more time.
    """

    num_classes: int = 10
    base_channels: int = 64
    channel_multipliers: tuple[int, ...] = (1, 2)
    num_res_blocks: int = 2
    patch_size: int = 1
    attention_resolutions: tuple[int, ...] = ()
    head_dim: int = 64
    embedding_dim: int = 256
    dropout: float = 0.0
    dtype: str = "float32"
    remat: bool = False

    def __post_init__(self) -> None:
        positive = ("base_channels", "num_res_blocks", "patch_size", "head_dim")
        for name, least in [*((name, 1) for name in positive), ("num_classes", 0), ("embedding_dim", 4)]:
            if getattr(self, name) < least:
                raise ValueError(f"unet: {name} must be at least {least}, got {getattr(self, name)}")
        if not self.channel_multipliers or min(self.channel_multipliers) < 1:
            raise ValueError(f"unet: channel_multipliers must be integers >= 1, got {tuple(self.channel_multipliers)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"unet: dropout must lie in [0, 1), got {self.dropout}")
        if self.dtype not in DTYPES:
            raise ValueError(f"unet: dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        t: Float[Array, " B"] | Float[Array, ""],
        y: Array | None = None,
        train: bool = False,
    ) -> Float[Array, "B H W C"]:
        """x [B, H, W, C], t [B] or scalar in [0, 1], y [B] in [0, num_classes] -> [B, H, W, C] float32.

        Raises ValueError for an image smaller than the coarsest grid, labels missing or not of shape [B].
        """
        batch, height, width, channels = x.shape
        dtype = jnp.dtype(self.dtype)
        widths = [self.base_channels * m for m in self.channel_multipliers]
        levels = range(len(widths))
        grid = self._attention_grid(height, width)

        embedding = self._embed(jnp.broadcast_to(t, (batch,)), y, dtype)
        block_class = nn.remat(ResidualBlock, static_argnums=(3,)) if self.remat else ResidualBlock

        def block(h: Any, width: int, name: str) -> Any:
            return block_class(width, self.dropout, dtype, name=name)(h, embedding, train)

        def attend(h: Any, level: int, name: str) -> Any:
            return SelfAttention(self.head_dim, dtype, name=name)(h) if grid[level] else h

        padding = [_padding(size, self._factor) for size in (height, width)]
        h = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        h = fold(h.astype(dtype), self.patch_size)
        h = nn.Conv(widths[0], (3, 3), dtype=dtype, name="conv_in")(h)

        skips = []
        for i in levels:
            if i > 0:
                h = Downsample(widths[i], dtype, name=f"down_{i}_sample")(h)
            for j in range(self.num_res_blocks):
                h = block(h, widths[i], f"down_{i}_block_{j}")
                h = attend(h, i, f"down_{i}_attention_{j}")
                skips.append(h)

        h = block(h, widths[-1], "middle_block_0")
        h = attend(h, -1, "middle_attention")
        h = block(h, widths[-1], "middle_block_1")

        for i in reversed(levels):
            for j in range(self.num_res_blocks):
                h = block(jnp.concatenate([h, skips.pop()], axis=-1), widths[i], f"up_{i}_block_{j}")
                h = attend(h, i, f"up_{i}_attention_{j}")
            if i > 0:
                h = Upsample(widths[i - 1], dtype, name=f"up_{i}_sample")(h)

        h = nn.silu(GroupNorm(name="norm_out")(h))
        zeros = nn.initializers.zeros
        # In float32 also where the blocks are bfloat16: this is the prediction, and it costs next to nothing.
        h = nn.Conv(self.patch_size**2 * channels, (3, 3), dtype=jnp.float32, kernel_init=zeros, name="conv_out")(h)
        h = unfold(h, self.patch_size)
        (top, _), (left, _) = padding
        return h[:, top : top + height, left : left + width, :]

    @property
    def _factor(self) -> int:
        """Pixels along one side of a cell of the coarsest grid."""
        return self.patch_size * 2 ** (len(self.channel_multipliers) - 1)

    def _embed(self, t: Float[Array, " B"], y: Array | None, dtype: Any) -> Float[Array, "B E"]:
        embedding = TimeEmbedding(self.embedding_dim, dtype, name="time")(t)
        if self.num_classes == 0:
            return embedding
        if y is None:
            raise ValueError(f"unet needs labels y [B]; the null label is {self.num_classes} (num_classes)")
        if y.shape != t.shape or not jnp.issubdtype(y.dtype, jnp.integer):
            raise ValueError(f"unet needs integer labels of shape {list(t.shape)}, got {y.dtype}{list(y.shape)}")
        return embedding + LabelEmbedding(self.num_classes, self.embedding_dim, dtype, name="label")(y)

    def _attention_grid(self, height: int, width: int) -> list[bool]:
        """Whether each level attends; refuses images below the coarsest grid and heights that no level has."""
        if min(height, width) < self._factor:
            raise ValueError(
                f"unet: images of {height}x{width} are below the smallest size {self._factor}x{self._factor} of "
                f"patch_size {self.patch_size} with {len(self.channel_multipliers)} levels; use fewer levels"
            )
        padded = -(-height // self._factor) * self._factor
        heights = [padded // (self.patch_size * 2**i) for i in range(len(self.channel_multipliers))]
        if missing := sorted(set(self.attention_resolutions) - set(heights)):
            raise ValueError(f"unet: no level of height {missing} for attention_resolutions; the levels have {heights}")
        return [h in self.attention_resolutions for h in heights]


def _padding(size: int, factor: int) -> tuple[int, int]:
    """Zeros before and after, to reach the next multiple of factor."""
    missing = -size % factor
    return missing // 2, missing - missing // 2
