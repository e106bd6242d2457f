"""Layers of transformers: positions, normalisation, attention, a gated perceptron and the block made of them.

Tokens are [B, N, d]: the patches of an image row by row, and other tokens before them. Positions are whole numbers on
the grid of patches, so any rectangle has them and nothing is learned. Two forms, both half for rows, half for columns:

    sin-cos, added           [sin(f_i p), cos(f_i p)],  f_i = 10000^(-4 i / d), i = 0 .. d/4 - 1       (2212.09748)
    rotary, of q and k       (a, b) -> (a cos - b sin, a sin + b cos) of f_i p, one frequency a pair   (2104.09864)

After the rotary form the product of q and k knows the difference of two positions only, and norms are unchanged. A
pair is element i of the first half of a head and element i of the second, a permutation of pairs side by side.

Many blocks are one scan: their parameters are stacked, [depth, ...], under a name that begins with "blocks". A layer
that computes several products of its input has one wide kernel. `kernel_parts` says what matrices a kernel is made of.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fmd.models.layers import at_least_float32, attention, per_pixel
from fmd.models.stacks import scanned

EPSILON = 1e-6  # of the normalisations
BASE = 10000.0  # the longest wave of the positions, in patches over 2 pi

Angles = Float[Array, "N pairs"]


def grid_phases(height: int, width: int, count: int) -> Float[np.ndarray, "N 2*{count}"]:
    """Positions times frequencies for each patch of a grid, rows before columns, float64."""
    frequencies = BASE ** (-np.arange(count) / count)
    rows, columns = np.indices((height, width)).reshape(2, -1, 1) * frequencies
    return np.concatenate([rows, columns], axis=1)


def sincos_positions(height: int, width: int, dim: int) -> Float[np.ndarray, "N {dim}"]:
    """The table [height * width, dim] to add to the patches, float32; dim is a multiple of 4."""
    rows, columns = np.split(grid_phases(height, width, dim // 4), 2, axis=1)
    table = np.concatenate([f(phase) for phase in (rows, columns) for f in (np.sin, np.cos)], axis=1)
    return table.astype(np.float32)


def rotary_angles(height: int, width: int, head_dim: int, before: int = 0) -> Float[np.ndarray, "N {head_dim}//2"]:
    """The angles of each token's pairs, float32, 0 for tokens `before` the patches; head_dim is a multiple of 4."""
    angles = np.pad(grid_phases(height, width, head_dim // 4), ((before, 0), (0, 0)))
    return angles.astype(np.float32)


@jax.named_scope("rotary")
def rotate(x: Float[Array, "B N heads D"], angles: Angles) -> Float[Array, "B N heads D"]:
    """Each pair of a head turned by its token's angle, in float32 or wider."""
    a, b = jnp.split(at_least_float32(x), 2, axis=-1)
    cos, sin = (f(angles)[None, :, None, :].astype(a.dtype) for f in (jnp.cos, jnp.sin))
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps), times a learned scale, over the last axis, in the dtype of x (arXiv 1910.07467).

    The statistics are float32 or wider.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "*shape d"]) -> Float[Array, "*shape d"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        wide = at_least_float32(x)
        factor = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + EPSILON)
        return (wide * factor * scale.reshape(*[1] * (x.ndim - 1), -1)).astype(x.dtype)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) over the last axis, without parameters, in the dtype of x."""

    @nn.compact
    def __call__(self, x: Float[Array, "*shape d"]) -> Float[Array, "*shape d"]:
        wide = at_least_float32(x)
        centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        return (centred * jax.lax.rsqrt(variance + EPSILON)).astype(x.dtype)


NORMS = {"rms": RMSNorm, "layer": LayerNorm}


class Modulation(nn.Module):
    """Shifts, scales and gates from a condition: `parts` vectors [B, 1, d], zero at the start (arXiv 2212.09748)."""

    parts: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, condition: Float[Array, "B d"]) -> list[Float[Array, "B 1 d"]]:
        width = self.parts * condition.shape[-1]
        layer = nn.Dense(width, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="linear")
        return jnp.split(layer(nn.silu(condition))[:, None, :], self.parts, axis=-1)


class Block(nn.Module):
    """Attention, then a perceptron, each x + gate * f(shift + (1 + scale) * norm(x)).

    Shifts, scales and gates come from the condition; at the start the gates are zero and the block is a skip. The
    second value returned is for `nn.scan`, and None.
    """

    heads: int
    hidden: int
    norm: Literal["rms", "layer"] = "rms"
    mlp: Literal["swiglu", "gelu"] = "swiglu"
    qk_norm: bool = True
    dropout: float = 0.0
    implementation: Literal["xla", "cudnn"] = "xla"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N d"], condition: Float[Array, "B d"], angles: Angles | None, train: bool
    ) -> tuple[Float[Array, "B N d"], None]:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = Modulation(6, self.dtype, name="modulation")(condition)
        h = NORMS[self.norm](name="norm_1")(x) * (1 + scale_1) + shift_1
        x = x + gate_1 * self._dropped(self._attend(h, angles), train)
        h = NORMS[self.norm](name="norm_2")(x) * (1 + scale_2) + shift_2
        return x + gate_2 * self._dropped(self._perceptron(h), train), None

    def _attend(self, h: Float[Array, "B N d"], angles: Angles | None) -> Float[Array, "B N d"]:
        *shape, width = h.shape
        qkv = self._dense(3 * width, "query_key_value", h).reshape(*shape, 3 * self.heads, width // self.heads)
        q, k, v = jnp.split(qkv, 3, axis=2)
        if self.qk_norm:
            q, k = RMSNorm(name="norm_query")(q), RMSNorm(name="norm_key")(k)
        if angles is not None:
            q, k = (rotate(part, angles).astype(self.dtype) for part in (q, k))
        return self._dense(width, "out", attention(q, k, v, self.implementation).reshape(h.shape))

    def _perceptron(self, h: Float[Array, "B N d"]) -> Float[Array, "B N d"]:
        if self.mlp == "gelu":
            hidden = nn.gelu(self._dense(self.hidden, "mlp_in", h))
        else:  # arXiv 2002.05202
            gate, value = jnp.split(self._dense(2 * self.hidden, "gate_value", h), 2, axis=-1)
            hidden = nn.silu(gate) * value
        return self._dense(h.shape[-1], "mlp_out", hidden)

    def _dense(self, width: int, name: str, x: Float[Array, "B N d"]) -> Float[Array, "B N D"]:
        layer = nn.Dense(width, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name=name)
        return per_pixel(layer, x)

    def _dropped(self, x: Float[Array, "B N d"], train: bool) -> Float[Array, "B N d"]:
        dropped: Array = nn.Dropout(self.dropout, deterministic=not train)(x)
        return dropped


def stack_of(depth: int, *, remat: bool = False) -> Callable[..., nn.Module]:
    """The class of `depth` blocks one after another, called as `Block`; its parameters are stacked, [depth, ...].

    One scan. On a CPU it is unrolled: its gradients then take a tenth less time, and compile in twice the time.
    """
    stack: Callable[..., nn.Module] = nn.scan(
        scanned(Block, remat, static_argnums=(4,)),
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=(nn.broadcast, nn.broadcast, nn.broadcast),
        length=depth,
        unroll=depth if jax.default_backend() == "cpu" else 1,
    )
    return stack


def mlp_width(width: int, kind: str) -> int:
    """Hidden units of a perceptron of 8 d^2 weights: 4 d, or with a gate 8 d / 3, a multiple of 8."""
    return 4 * width if kind == "gelu" else math.ceil(width / 3) * 8


STACKED = "blocks"  # how the names of scans begin: their parameters have an axis of blocks before their own
FUSED = {"query_key_value": 3, "gate_value": 2, "modulation": 6}  # layers that are several matrices side by side


def kernel_parts(path: Sequence[str]) -> tuple[bool, int]:
    """(whether a kernel [depth, in, out] is a stack, how many matrices stand side by side in it).

    `path` are the names that lead to it. Only kernels in a stack are taken apart.
    """
    stacked = any(name.startswith(STACKED) for name in path)
    return stacked, next((FUSED[name] for name in path if stacked and name in FUSED), 1)
