"""What a network is told besides the image: the time t and the label y, as vectors.

Time: sin and cos of t times frequencies spaced geometrically from 1 to 1000,

    e_i(t) = sin(f_i t), e_(i + d/2)(t) = cos(f_i t),    f_i = 1000^(i / (d/2 - 1)),

computed in float32 whatever the network computes in. In bfloat16 only 129 different times exist in [.5, 1], and at
frequencies above 1000 neighbouring float32 times would already differ visibly in phase. A two-layer perceptron follows.
Label: one row per class and one more, the last, for the null label of classifier-free guidance (arXiv 2207.12598).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

MAX_FREQUENCY = 1000.0


def sinusoidal_embedding(t: Float[Array, " B"], dim: int) -> Float[Array, "B dim"]:
    """Sines, then cosines, of t [B] at dim // 2 frequencies from 1 to 1000; float32. An odd dim ends in a zero."""
    half = dim // 2
    frequencies = np.geomspace(1.0, MAX_FREQUENCY, half, dtype=np.float32)
    phase = t.astype(jnp.float32)[:, None] * jnp.asarray(frequencies)[None, :]
    embedding = jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=-1)
    return jnp.pad(embedding, ((0, 0), (0, dim % 2)))


class TimeEmbedding(nn.Module):
    """t [B] -> [B, dim] in `dtype`: sinusoid and first layer in float32, so close times stay apart."""

    dim: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, t: Float[Array, " B"]) -> Float[Array, "B {self.dim}"]:
        hidden = nn.Dense(self.dim, name="dense_1")(sinusoidal_embedding(t, self.dim))
        return nn.Dense(self.dim, dtype=self.dtype, name="dense_2")(nn.silu(hidden).astype(self.dtype))


class LabelEmbedding(nn.Module):
    """y [B] in [0, num_classes] -> [B, dim] in `dtype`; row num_classes is the null label. Other labels give NaN."""

    num_classes: int
    dim: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, y: Int[Array, " B"]) -> Float[Array, "B {self.dim}"]:
        table = nn.Embed(self.num_classes + 1, self.dim, embedding_init=nn.initializers.normal(0.02), name="table")
        return table(y).astype(self.dtype)
