"""Group normalisation with an optional scale and shift from an embedding, written for one pass over the image.

    h = (x - mean) / sqrt(variance + eps) * gamma * (1 + scale) + beta * (1 + scale) + shift

(group normalisation: arXiv 1803.08494; scale and shift from an embedding: arXiv 1709.07871, 2105.05233). On a CPU the
plain form spends its time re-reading x, so here

- the sums of z and z^2 are taken together, per channel over H and W; groups are combined from [B, C] numbers after;
- z = x - x[first pixel]: E[z^2] - E[z]^2 loses no digits when a channel's mean is large against its spread, and the
  result does not depend on the pixel, so no gradient flows through it;
- everything per image and channel is folded into z * factor + offset, one multiply-add per pixel;
- a group's number reaches its channels by a product with ones and zeros: a broadcast would be computed again at every
  pixel by XLA's CPU backend, as channel // size, and such a loop does not vectorise (ten times the time for size 3).

The number of groups is gcd(32, width): 32 for the usual widths, and no width fails. Statistics are always float32.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

EPSILON = 1e-5


class GroupNorm(nn.Module):
    """x [B, H, W, C] -> the same shape and dtype; `condition` [B, 2C] holds scale, then shift."""

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
            return jnp.matmul(means, members, precision=jax.lax.Precision.HIGHEST)  # exact: one 1 per channel

        pivot = jax.lax.stop_gradient(x[:, 0, 0, :].astype(jnp.float32))
        z = x.astype(jnp.float32) - pivot[:, None, None, :]
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
            scale, shift = jnp.split(condition.astype(jnp.float32), 2, axis=-1)
            factor, offset = factor * (1 + scale), offset * (1 + scale) + shift
        return (z * factor[:, None, None, :] + offset[:, None, None, :]).astype(x.dtype)
