"""A transformer for images in pixel space (JiT, arXiv 2511.13720; DiT, arXiv 2212.09748).

    image -> patches -> [narrow linear] -> linear, + positions -> blocks -> norm, modulated -> linear (zero) -> image

Patches are cut by a reshape and embedded by matrix products, through a narrow layer first where a patch is wide. Blocks
hear the condition, the sum of the embeddings of t and of all else, through adaLN-Zero. The output layer starts at zero:
an untrained network predicts 0.

All blocks are one `nn.scan`: a program does not grow with depth. Where class tokens join later there are two, before
and after. Any H x W: an image that is no multiple of the patch is continued with its last row and column, and the
output cropped.

A second time and a guidance weight enter as in fmd.models.unet, images and masks of a condition as further planes of
the patches, whose weights start at zero.

With norm="layer", mlp="gelu", qk_norm=False, rotary=False and bottleneck=0 the network is DiT's, of 674.8 million
parameters at size XL and patch 2 on [32, 32, 4], but for the half of its output that is a variance.
"""

from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fmd.models.conditions import Spec, add_embeddings, freeze, planes
from fmd.models.layers import FLAT, TimeEmbedding, embed_times, fold, per_pixel, unfold
from fmd.models.registry import register_model
from fmd.models.transformer_layers import (
    NORMS,
    STACKED,
    Modulation,
    mlp_width,
    rotary_angles,
    sincos_positions,
    stack_of,
)
from fmd.registry import Between
from fmd.types import Condition

AtLeast0 = Annotated[int, Between(0)]
AtLeast1 = Annotated[int, Between(1)]


class Size(NamedTuple):
    """The size of a transformer."""

    depth: int
    width: int
    heads: int


SIZES = {
    "tiny": Size(6, 128, 4),
    "Ti": Size(8, 192, 4),
    "XS": Size(8, 256, 4),
    "S": Size(12, 384, 6),
    "B": Size(12, 768, 12),
    "L": Size(24, 1024, 16),
    "XL": Size(28, 1152, 16),
    "H": Size(32, 1280, 16),
}
WIDE_PATCH = 128  # numbers of a patch from which on it passes through a bottleneck
TIME_FEATURES = 256  # sines and cosines of a time


@register_model("transformer")
class Transformer(nn.Module):
    """The network v(x, t, y, r), called as fmd.models.contract says.

    Parameters are float32 in every dtype.
    `size` names depth, width and heads, each of which can be set by itself. A head has a multiple of 4 channels.
    `bottleneck` is the width before that of the blocks, 0 for none; by default 128 for patches of 128 numbers or more.
    `class_tokens` copies of the condition's embedding, each with a learned vector of its own, join the patches before
    block `class_tokens_from`, by default at a third of the depth.
    `dropout` is that of the results of attention and perceptron.
    `attention` "cudnn" is for GPUs and bfloat16; elsewhere, and with a second time, whose methods need a forward-mode
    derivative that it lacks, it is "xla" all the same.
    `remat` recomputes the blocks in the backward pass: far less memory for about a third more time.
    `conditions`, `second_time`, `guidance_input` and `time_frequencies`, here (.1, 5) by default, are as in the UNet.
    float64 is for checks of derivatives.
    """

    num_classes: AtLeast0 = 10
    size: Literal["tiny", "Ti", "XS", "S", "B", "L", "XL", "H"] = "S"
    depth: AtLeast1 | None = None
    width: AtLeast1 | None = None
    heads: AtLeast1 | None = None
    patch_size: AtLeast1 = 2
    bottleneck: AtLeast0 | None = None
    class_tokens: AtLeast0 = 0
    class_tokens_from: AtLeast0 | None = None
    norm: Literal["rms", "layer"] = "rms"
    mlp: Literal["swiglu", "gelu"] = "swiglu"
    qk_norm: bool = True
    rotary: bool = True
    dropout: Annotated[float, Between(0, 1, open_high=True)] = 0.0
    attention: Literal["xla", "cudnn"] = "xla"
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    remat: bool = False
    conditions: Spec | None = None
    second_time: bool = False
    guidance_input: bool = False
    time_frequencies: tuple[float, float] = FLAT

    stacked = (STACKED, f"{STACKED}_with_tokens")  # no field: see fmd.models.stacks

    def __post_init__(self) -> None:
        depth, width, heads = self.sizes
        if width % (4 * heads):
            raise ValueError(
                f"transformer: width {width} in {heads} heads; a head must have a multiple of 4 channels, "
                f"e.g. width {-(-width // (4 * heads)) * 4 * heads}"
            )
        if self.class_tokens and self._tokens_from >= depth:
            raise ValueError(f"transformer: class_tokens_from = {self._tokens_from}; it must be below depth {depth}")
        self.conditions = freeze(self.conditions)
        super().__post_init__()

    @property
    def sizes(self) -> Size:
        """Depth, width and heads."""
        own = {"depth": self.depth, "width": self.width, "heads": self.heads}
        return SIZES[self.size]._replace(**{key: value for key, value in own.items() if value is not None})

    @property
    def _tokens_from(self) -> int:
        return self.sizes.depth // 3 if self.class_tokens_from is None else self.class_tokens_from

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
            ValueError: for a condition of another shape or structure, or a second time or a weight where the network
                has none.
        """
        batch, height, width, channels = x.shape
        dtype = jnp.dtype(self.dtype)
        depth, dim, _ = self.sizes
        grid = (-(-height // self.patch_size), -(-width // self.patch_size))

        told = add_embeddings(jnp.zeros((batch, dim), dtype), y, self.conditions, self.num_classes, takes_planes=True)
        times = TimeEmbedding(dim, dtype, self.time_frequencies, TIME_FEATURES, name="time")
        condition = told + embed_times(
            times, jnp.broadcast_to(t, (batch,)), r, w, self.second_time, self.guidance_input, network="transformer"
        )
        h = self._patches(x, planes(y, self.conditions, height, width), dtype)
        h = h.reshape(batch, -1, dim) + jnp.asarray(sincos_positions(*grid, dim), dtype)[None]

        tokens = self.class_tokens
        first = self._tokens_from if tokens else depth
        if first:
            h = self._blocks(first, h, condition, self._angles(grid, 0), train, self.stacked[0])
        if tokens:
            own = self.param("class_tokens", nn.initializers.normal(0.02), (tokens, dim))
            h = jnp.concatenate([told[:, None, :] + own.astype(dtype)[None], h], axis=1)
            angles = self._angles(grid, tokens)
            h = self._blocks(depth - first, h, condition, angles, train, self.stacked[1])[:, tokens:]

        shift, scale = Modulation(2, dtype, name="modulation_out")(condition)
        h = NORMS[self.norm](name="norm_out")(h) * (1 + scale) + shift
        # In float32 also where the blocks are bfloat16: this is the prediction, and it costs next to nothing.
        wide = jnp.promote_types(dtype, jnp.float32)
        zeros = nn.initializers.zeros
        out = nn.Dense(self.patch_size**2 * channels, dtype=wide, kernel_init=zeros, name="patch_out")
        h = unfold(per_pixel(out, h).reshape(batch, *grid, -1), self.patch_size)
        return h[:, :height, :width, :]

    def _patches(
        self, x: Float[Array, "B H W C"], beside: Float[Array, "B H W planes"] | None, dtype: DTypeLike
    ) -> Float[Array, "B rows columns d"]:
        """The embedded patches of the image and of the planes beside it."""
        p, dim = self.patch_size, self.sizes.width
        padding = [(0, 0), (0, -x.shape[1] % p), (0, -x.shape[2] % p), (0, 0)]

        def cut(pixels: Float[Array, "B H W C"]) -> Float[Array, "B rows columns D"]:
            divides = not any(after for _, after in padding)
            return fold((pixels if divides else jnp.pad(pixels, padding, "edge")).astype(dtype), p)

        def dense(width: int, name: str, **more: Any) -> nn.Dense:
            return nn.Dense(width, dtype=dtype, name=name, **{"kernel_init": nn.initializers.xavier_uniform(), **more})

        h = cut(x)
        narrow = self.bottleneck
        if narrow is None:
            narrow = WIDE_PATCH if h.shape[-1] >= WIDE_PATCH else 0
        first = narrow or dim
        layer = dense(first, "patch_narrow" if narrow else "patch_in", use_bias=not narrow)
        embedded = per_pixel(layer, h)
        if beside is not None:  # as if it were channels of x whose weights start at zero
            layer = dense(first, "patch_condition", use_bias=False, kernel_init=nn.initializers.zeros)
            embedded = embedded + per_pixel(layer, cut(beside))
        return per_pixel(dense(dim, "patch_in"), embedded) if narrow else embedded

    def _angles(self, grid: tuple[int, int], before: int) -> Float[Array, "N pairs"] | None:
        if not self.rotary:
            return None
        _, dim, heads = self.sizes
        return jnp.asarray(rotary_angles(*grid, dim // heads, before))

    def _blocks(
        self,
        depth: int,
        h: Float[Array, "B N d"],
        condition: Float[Array, "B d"],
        angles: Float[Array, "N pairs"] | None,
        train: bool,
        name: str,
    ) -> Float[Array, "B N d"]:
        _, dim, heads = self.sizes
        blocks = stack_of(depth, remat=self.remat)(
            heads=heads,
            hidden=mlp_width(dim, self.mlp),
            norm=self.norm,
            mlp=self.mlp,
            qk_norm=self.qk_norm,
            dropout=self.dropout,
            implementation="xla" if self.second_time else self.attention,
            dtype=h.dtype,
            name=name,
        )
        result: Array = blocks(h, condition, angles, train)[0]
        return result
