"""A UNet for images of any size (DDPM, arXiv 2006.11239; ADM, arXiv 2105.05233).

    image -> fold patches -> conv -> [blocks, keep] per level, halving between -> middle -> [concat, blocks] per level,
    doubling between -> norm, conv (starts at zero) -> unfold patches

The output convolution starts at zero: an untrained network predicts 0 and the velocity loss starts at E[x1^2] + 1.
With patch_size p, p x p pixels enter as channels, so all work happens at 1/p of the resolution: the cheapest way to
make a network for small images fast.

Any H x W: where the coarsest grid does not divide the image, zeros are added around it (half before, half after, as a
convolution with padding sees it anyway) and the output is cropped. Sizes that do divide are not touched.

With a second time the embedding is that of t, of h = r - t and of the condition, summed. That of h is zero at h = 0:
there the network is, bit for bit, the one without a second time (and with the same `time_frequencies`). A guidance
weight w enters likewise as 1 - 1/w, and changes nothing at w = 1.
"""

import math
from collections.abc import Callable
from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fmd.models.conditions import Spec, add_embeddings, freeze, planes
from fmd.models.layers import (
    FLAT,
    STEEP,
    GroupNorm,
    TimeEmbedding,
    attention,
    embed_times,
    fold,
    per_pixel,
    unfold,
)
from fmd.models.registry import register_model
from fmd.registry import Between
from fmd.types import Condition

AtLeast1 = Annotated[int, Between(1)]


@register_model("unet")
class UNet(nn.Module):
    """The network v(x, t, y, r), called as fmd.models.contract says.

    Parameters are float32 in every dtype.
    Level i works at 1 / (patch_size * 2^i) of the image's resolution with base_channels * channel_multipliers[i]
    channels. `attention_resolutions` lists heights of these grids: (7,) puts attention at the 7 x 7 level of MNIST.
    `remat` recomputes the blocks in the backward pass: less memory for about a third more time.
    `conditions` is the spec of a condition in parts (fmd.models.conditions); num_classes is then not used.
    `time_frequencies` are the lowest and the highest of the time embedding: (1, 1000), or (.1, 5) with a second time.
    float64 is for checks of derivatives.
    """

    num_classes: Annotated[int, Between(0)] = 10
    base_channels: AtLeast1 = 64
    channel_multipliers: tuple[AtLeast1, ...] = (1, 2)
    num_res_blocks: AtLeast1 = 2
    patch_size: AtLeast1 = 1
    attention_resolutions: tuple[int, ...] = ()
    head_dim: AtLeast1 = 64
    embedding_dim: Annotated[int, Between(4)] = 256
    dropout: Annotated[float, Between(0, 1, open_high=True)] = 0.0
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    remat: bool = False
    conditions: Spec | None = None
    second_time: bool = False
    guidance_input: bool = False
    time_frequencies: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.channel_multipliers:
            raise ValueError("unet: channel_multipliers must name one level or more, got ()")
        self.conditions = freeze(self.conditions)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        t: Float[Array, " B"] | Float[Array, ""],
        y: Condition = None,
        train: bool = False,
        r: Float[Array, " B"] | Float[Array, ""] | None = None,
        w: Float[Array, " B"] | Float[Array, ""] | None = None,
    ) -> Float[Array, "B H W C"]:
        """The prediction [B, H, W, C], float32 (float64 in float64).

        Args:
            x: images [B, H, W, C].
            t: times in [0, 1], [B] or one for all.
            y: labels int [B] in [0, num_classes], or the parts that `conditions` lists.
            train: dropout draws from the stream "dropout".
            r: the second times, like t and not before it; t itself by default.
            w: guidance weights above 0, like t; 1 by default.

        Raises:
            ValueError: for an image smaller than the coarsest grid, a condition of another shape or structure, or a
                second time or a weight where the network has none.
        """
        batch, height, width, channels = x.shape
        dtype = jnp.dtype(self.dtype)
        widths = [self.base_channels * m for m in self.channel_multipliers]
        levels = range(len(widths))
        attends = self._attends(height, width)

        embedding = self._embed(jnp.broadcast_to(t, (batch,)), r, w, y, dtype)
        block_class = nn.remat(ResidualBlock, static_argnums=(3,)) if self.remat else ResidualBlock

        def block(h: Array, width: int, name: str) -> Array:
            result: Array = block_class(width, self.dropout, dtype, name=name)(h, embedding, train)
            return result

        def attend(h: Array, level: int, name: str) -> Array:
            return SelfAttention(self.head_dim, dtype, name=name)(h) if attends[level] else h

        padding = [_padding(size, self._factor) for size in (height, width)]
        h = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        h = fold(h.astype(dtype), self.patch_size)
        h = nn.Conv(widths[0], (3, 3), dtype=dtype, name="conv_in")(h)
        beside = planes(y, self.conditions, height, width)
        if beside is not None:  # as if it were channels of x whose weights start at zero
            beside = fold(jnp.pad(beside, ((0, 0), *padding, (0, 0))).astype(dtype), self.patch_size)
            layer = nn.Conv(
                widths[0], (3, 3), use_bias=False, dtype=dtype, kernel_init=nn.initializers.zeros, name="conv_condition"
            )
            h = h + layer(beside)

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
        # In float32 also where the blocks are bfloat16: this is the prediction, and it costs next to nothing.
        wide = jnp.promote_types(dtype, jnp.float32)
        zeros = nn.initializers.zeros
        h = nn.Conv(self.patch_size**2 * channels, (3, 3), dtype=wide, kernel_init=zeros, name="conv_out")(h)
        h = unfold(h, self.patch_size)
        (top, _), (left, _) = padding
        return h[:, top : top + height, left : left + width, :]

    @property
    def _factor(self) -> int:
        """Pixels along one side of a cell of the coarsest grid."""
        return self.patch_size << (len(self.channel_multipliers) - 1)

    def _embed(
        self,
        t: Float[Array, " B"],
        r: Float[Array, "..."] | None,
        w: Float[Array, "..."] | None,
        y: Condition,
        dtype: DTypeLike,
    ) -> Float[Array, "B E"]:
        """The summed embeddings of t, h = r - t, the guidance weight and the condition."""
        frequencies = self.time_frequencies or (FLAT if self.second_time else STEEP)
        times = TimeEmbedding(self.embedding_dim, dtype, frequencies, name="time")
        embedding = embed_times(times, t, r, w, self.second_time, self.guidance_input, network="unet")
        return add_embeddings(embedding, y, self.conditions, self.num_classes, takes_planes=True)

    def _attends(self, height: int, width: int) -> list[bool]:
        """For each level, True where it attends.

        Raises ValueError for images below the coarsest grid and for heights of no level.
        """
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


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))), e))).

    The second convolution starts at zero, so that a new block is a skip. The barriers change no number. Without them
    XLA computes what several operations read (a block's input, and the sum of its gradients) anew inside each of these:
    a CPU's training step takes a tenth longer. Sampling gains nothing.
    """

    width: int
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], embedding: Float[Array, "B E"], train: bool
    ) -> Float[Array, "B H W {self.width}"]:
        once: Callable[[Array], Array] = jax.lax.optimization_barrier if train else lambda value: value
        x = once(x)
        h = nn.silu(GroupNorm(name="norm_1")(x))
        h = once(nn.Conv(self.width, (3, 3), dtype=self.dtype, name="conv_1")(h))
        condition = nn.Dense(2 * self.width, dtype=self.dtype, name="condition")(nn.silu(embedding))
        h = nn.silu(GroupNorm(name="norm_2")(h, condition))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        zeros = nn.initializers.zeros
        h = nn.Conv(self.width, (3, 3), dtype=self.dtype, kernel_init=zeros, name="conv_2")(h)
        if x.shape[-1] != self.width:
            x = per_pixel(nn.Dense(self.width, dtype=self.dtype, name="skip"), x)
        return x + h


class SelfAttention(nn.Module):
    """x + multi-head attention over all pixels.

    Heads have about `head_dim` channels. The last layer starts at zero.
    """

    head_dim: int = 64
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        b, h, w, c = x.shape
        heads = math.gcd(c, max(1, c // self.head_dim))
        layer = nn.Dense(3 * c, dtype=self.dtype, name="query_key_value")
        qkv = per_pixel(layer, GroupNorm(name="norm")(x))
        q, k, v = jnp.split(qkv.reshape(b, h * w, 3 * heads, c // heads), 3, axis=2)
        out = attention(q, k, v).reshape(b, h, w, c)
        return x + per_pixel(nn.Dense(c, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="out"), out)


class Downsample(nn.Module):
    """Half the height and width, both even.

    2 x 2 pixels go into the channels, then a linear map to `width` follows.
    """

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H//2 W//2 {self.width}"]:
        return per_pixel(nn.Dense(self.width, dtype=self.dtype, name="linear"), fold(x, 2))


class Upsample(nn.Module):
    """Twice the height and width.

    A linear map to 4 `width` channels, then these become 2 x 2 pixels.
    """

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W {self.width}"]:
        return unfold(per_pixel(nn.Dense(4 * self.width, dtype=self.dtype, name="linear"), x), 2)


def _padding(size: int, factor: int) -> tuple[int, int]:
    """Zeros before and after, to reach the next multiple of factor."""
    missing = -size % factor
    return missing // 2, missing - missing // 2
