"""Layers that networks share.

Time: sin and cos of t times frequencies f_i spaced geometrically,

    e_i(t) = sin(f_i t), e_(i + d/2)(t) = cos(f_i t),    f_i from 1 to 1000 (STEEP) or .1 to 5 (FLAT),

computed in float32 whatever the network computes in. In bfloat16 only 129 different times exist in [.5, 1], and at
frequencies above 1000 neighbouring float32 times would already differ visibly in phase. A two-layer perceptron follows.
Methods with a second time train on derivatives with respect to t, and diverge where these are large (arXiv 2410.11081).
The root mean square of de/dt is 195 for the steep frequencies and 1.3 for the flat ones (d = 256).

Group normalisation, with an optional scale and shift from an embedding, in one pass over the image:

    h = (x - mean) / sqrt(variance + eps) * gamma * (1 + scale) + beta * (1 + scale) + shift

(group normalisation: arXiv 1803.08494; scale and shift from an embedding: arXiv 1709.07871, 2105.05233). On a CPU the
plain form spends its time re-reading x, so here

- the sums of z and z^2 are taken together, per channel over H and W; groups are combined from [B, C] numbers after;
- z = x - x[first pixel]: E[z^2] - E[z]^2 loses no digits when a channel's mean is large against its spread, and the
  result does not depend on the pixel, so no gradient flows through it;
- everything per image and channel is folded into z * factor + offset, one multiply-add per pixel;
- a group's number is repeated for its channels as [B, C] numbers, before it meets the image.

The number of groups is gcd(32, width): 32 for the usual widths, and no width fails. Statistics are float32 or wider.

Folding moves each p x p block of pixels into the channels. A patch embedding or a resampling layer is folding and a
matrix product, which is a strided convolution whose windows do not overlap: cheap on every device.
"""

import math
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

STEEP = (1.0, 1000.0)
FLAT = (0.1, 5.0)
EPSILON = 1e-5  # of the group normalisation
EXACT = jax.lax.Precision.HIGHEST  # float32 products of float32, everywhere


def at_least_float32(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """bfloat16 as float32, wider dtypes as they are."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def phases(t: Float[Array, " B"], count: int, frequencies: tuple[float, float]) -> Float[Array, "B {count}"]:
    """t times `count` frequencies, spaced geometrically between two."""
    t = at_least_float32(t)
    spaced = np.geomspace(*frequencies, count, dtype=np.float32)
    return t[:, None] * jnp.asarray(spaced, t.dtype)[None, :]


def sinusoidal_embedding(
    t: Float[Array, " B"], dim: int, frequencies: tuple[float, float] = STEEP
) -> Float[Array, "B dim"]:
    """Sines, then cosines, of t [B] at dim // 2 frequencies.

    The result [B, dim] is float32 or wider. An odd dim ends in a zero.
    """
    phase = phases(t, dim // 2, frequencies)
    embedding = jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=-1)
    return jnp.pad(embedding, ((0, 0), (0, dim % 2)))


class TimeEmbedding(nn.Module):
    """The embedding of times [B] -> [B, dim] in `dtype`.

    Sinusoid, of `features` numbers (dim by default), and first layer are float32, so that close times stay apart; GPUs
    and TPUs are asked for it, since by default they round what a product reads.
    """

    dim: int
    dtype: DTypeLike = jnp.float32
    frequencies: tuple[float, float] = STEEP
    features: int | None = None

    @nn.compact
    def __call__(self, t: Float[Array, " B"]) -> Float[Array, "B {self.dim}"]:
        waves = sinusoidal_embedding(t, self.features or self.dim, self.frequencies)
        hidden = nn.Dense(self.dim, precision=EXACT, name="dense_1")(waves)
        return nn.Dense(self.dim, dtype=self.dtype, name="dense_2")(nn.silu(hidden).astype(self.dtype))


class StepEmbedding(nn.Module):
    """The embedding of h = r - t [B] -> [B, dim] in `dtype`.

    It is exactly zero at h = 0, whatever the parameters are. The features are sin(f h) and 1 - cos(f h), written as 2
    sin(f h / 2)^2, and no layer has a bias. The last layer starts at zero: a network continues from one that was
    trained without a second time.
    """

    dim: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h: Float[Array, " B"]) -> Float[Array, "B {self.dim}"]:
        phase = phases(h, self.dim // 2, FLAT)
        features = jnp.concatenate([jnp.sin(phase), 2 * jnp.square(jnp.sin(phase / 2))], axis=-1)
        first = nn.Dense(self.dim, use_bias=False, precision=EXACT, name="dense_1")
        hidden = nn.silu(first(features)).astype(self.dtype)
        zeros = nn.initializers.zeros
        return nn.Dense(self.dim, use_bias=False, dtype=self.dtype, kernel_init=zeros, name="dense_2")(hidden)


def embed_times(
    times: TimeEmbedding,
    t: Float[Array, " B"],
    r: Float[Array, "..."] | None,
    w: Float[Array, "..."] | None,
    second_time: bool,
    guidance_input: bool,
    *,
    network: str,
) -> Float[Array, "B E"]:
    """The summed embeddings of t, by `times`, of h = r - t and of the guidance weight.

    For use in the `__call__` of a network, which has the inputs r and w where `second_time` and `guidance_input` say
    so. The weight enters as 1 - 1/w. ValueError, naming the `network`, for one that it does not have.
    """
    embedding = times(t)
    if second_time:
        h = jnp.zeros_like(t) if r is None else r - t
        embedding = embedding + StepEmbedding(times.dim, times.dtype, name="step")(h)
    elif r is not None:
        raise ValueError(
            f"{network}: a second time r was given to a network without one; build it with second_time=True"
        )
    if guidance_input:
        strength = jnp.zeros_like(t) if w is None else jnp.broadcast_to(1 - 1 / w, t.shape)
        embedding = embedding + StepEmbedding(times.dim, times.dtype, name="weight")(strength)
    elif w is not None:
        raise ValueError(f"{network}: a weight w was given to a network without one; build it with guidance_input=True")
    return embedding


class GroupNorm(nn.Module):
    """Group normalisation of x [B, H, W, C], in its shape and dtype.

    `condition` [B, 2C] holds scale, then shift.
    """

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], condition: Float[Array, "B 2*C"] | None = None
    ) -> Float[Array, "B H W C"]:
        batch, _, _, width = x.shape
        groups = math.gcd(32, width)
        gamma = self.param("scale", nn.initializers.ones, (width,))
        beta = self.param("bias", nn.initializers.zeros, (width,))

        members = jnp.repeat(jnp.eye(groups), width // groups, axis=1)

        def over_group(channels: Float[Array, "B C"]) -> Float[Array, "B C"]:
            """The mean over each group, repeated for its channels."""
            means = channels.reshape(batch, groups, width // groups).mean(axis=2)
            if jax.default_backend() == "cpu":  # a broadcast would be computed again at every pixel there
                return jnp.matmul(means, members, precision=EXACT)  # one 1 per channel
            return jnp.repeat(means, width // groups, axis=1)

        pivot = jax.lax.stop_gradient(at_least_float32(x[:, 0, 0, :]))
        z = at_least_float32(x) - pivot[:, None, None, :]
        z_mean = z.mean(axis=(1, 2))
        z_variance = jnp.square(z).mean(axis=(1, 2)) - jnp.square(z_mean)

        # From here on all means are relative to the mean of a group's pivots, so that none of them is large.
        pivot = pivot - over_group(pivot)
        channel_mean = z_mean + pivot
        mean = over_group(channel_mean)
        variance = over_group(z_variance + jnp.square(channel_mean - mean))

        factor = jax.lax.rsqrt(jnp.maximum(variance, 0.0) + EPSILON) * gamma[None, :]
        offset = beta[None, :] - (mean - pivot) * factor
        if condition is not None:
            scale, shift = jnp.split(at_least_float32(condition), 2, axis=-1)
            factor, offset = factor * (1 + scale), offset * (1 + scale) + shift
        return (z * factor[:, None, None, :] + offset[:, None, None, :]).astype(x.dtype)


def fold(x: Float[Array, "B H W C"], p: int) -> Float[Array, "B H//{p} W//{p} {p}*{p}*C"]:
    """Each p x p block of pixels in the channels.

    H and W must be multiples of p.
    """
    b, h, w, c = x.shape
    x = x.reshape(b, h // p, p, w // p, p, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // p, w // p, p * p * c)


def unfold(x: Float[Array, "B H W D"], p: int) -> Float[Array, "B {p}*H {p}*W D//({p}*{p})"]:
    """The inverse of `fold`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, p, p, c // (p * p))
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * p, w * p, c // (p * p))


def per_pixel(layer: nn.Dense, x: Float[Array, "*grid C"]) -> Float[Array, "*grid D"]:
    """The layer on the channels of each pixel or token, as a product of two matrices.

    Given x as it is, XLA on a CPU copies x for the gradient of the weights.
    """
    pixels: Array = layer(x.reshape(-1, x.shape[-1]))
    return pixels.reshape(*x.shape[:-1], layer.features)


@jax.named_scope("attention_softmax")
def attention(
    q: Float[Array, "B N heads D"],
    k: Float[Array, "B M heads D"],
    v: Float[Array, "B M heads D"],
    implementation: Literal["xla", "cudnn"] = "xla",
) -> Float[Array, "B N heads D"]:
    """softmax(q k^T / sqrt(D)) v.

    "cudnn" has no forward-mode derivative, which methods with a second time need, and is for GPUs and bfloat16 only:
    elsewhere "xla" computes it. JAX takes the softmax in float32 in every dtype, so float64 has a formula of its own.
    """
    if q.dtype == jnp.float64:
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
        return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), v)
    if implementation == "cudnn" and q.dtype == jnp.bfloat16 and jax.default_backend() == "gpu":
        by = partial(jax.nn.dot_product_attention, implementation="cudnn")
        # A program that is exported may be lowered for other platforms, too.
        chosen: Array = jax.lax.platform_dependent(
            q, k, v, cuda=by, default=partial(jax.nn.dot_product_attention, implementation="xla")
        )
        return chosen
    return jax.nn.dot_product_attention(q, k, v, implementation="xla")
