"""Couplings: which noise x0 is paired with which image x1 of a batch, before the path is drawn between them.

    independent         as drawn
    optimal_transport   the permutation of the noise with the least sum of |x0 - x1|^2, exactly (2302.00482, 2304.14772)
    sinkhorn            each image draws its noise from the entropic plan exp((f_i + g_j - |x1_i - x0_j|^2)/epsilon)

Images and labels never move: only the noise is reordered, so a label always stays with its image. Labels, if given,
keep the pairing within each class: pairing across classes would make the noise depend on the class and bias p(x0 | y)
(2503.10636). Noise carries no label of its own, so place i lends it label y_i; every class then holds as many noises as
images, and a pairing within classes always exists. Pass the labels as they were before label dropout.

After any coupling but the independent one, x0 is no longer N(0, I) given x1. The velocity target, the posterior means
and a change of schedule stay right; what stops holding is the score, score = -E[x0 | x]/sigma: every conversion to or
from it, and with it the SDE samplers. `Coupling.independent` tells.

The pairing sees the batch that it is given: on several devices, pair before the batch is cut, or each device pairs its
own part, which is valid but another coupling. Optimal transport takes B^3 sequential work: 2 ms for B = 128, 6 ms for
B = 256 on one CPU core.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from fmd.math.broadcasting import Number, compute_dtype
from fmd.math.registry import build

Images = Float[Array, "b ..."]
Labels = Int[Array, " labels"]
Match = Callable[[Key[Array, ""], Float[Array, "b b"]], Int[Array, " b"]]


@dataclass(frozen=True)
class Coupling:
    """pair(key, x0, x1, y) -> (x0, x1, y): noise and images [B, ...], labels int32 [B] or None for one class.

    `match` picks, from the key and the cost [image, noise], one noise per image; None leaves the noise in place.
    `independent`: whether x0 is still N(0, I) given x1 afterwards.
    """

    name: str
    match: Match | None

    @property
    def independent(self) -> bool:
        return self.match is None

    def __call__(
        self, key: Key[Array, ""], x0: Images, x1: Images, y: Labels | None = None
    ) -> tuple[Images, Images, Labels | None]:
        """The batch with its noise reordered. ValueError if the shapes do not belong together."""
        if x0.shape != x1.shape or (y is not None and y.shape != x1.shape[:1]):
            raise ValueError(
                f"noise {x0.shape}, images {x1.shape}, labels {None if y is None else y.shape}: "
                "noise and images need one shape [B, ...], labels [B]"
            )
        if self.match is None:
            return x0, x1, y
        return x0[self.match(key, transport_cost(x0, x1, y))], x1, y


def get(name: str, **params: Any) -> Coupling:
    """The coupling called `name`: independent, optimal_transport, sinkhorn (epsilon, iterations).

    Raises ValueError for an unknown name or parameter or a value out of range.
    """
    return build("coupling", COUPLINGS, name, params)


def independent() -> Coupling:
    """Noise stays where it was drawn."""
    return Coupling("independent", None)


def optimal_transport() -> Coupling:
    """The exact least-cost permutation (Hungarian algorithm); uses no randomness."""

    def match(_: Key[Array, ""], cost: Float[Array, "b b"]) -> Int[Array, " b"]:
        image, noise = optax.assignment.hungarian_algorithm(cost)
        return jnp.zeros_like(noise).at[image].set(noise)

    return Coupling("optimal_transport", match)


def sinkhorn(epsilon: Number = 0.01, iterations: int = 100) -> Coupling:
    """Entropic transport, `epsilon` in units of the mean squared distance between noise and images of the batch.

    Each image draws from its row of the plan, so a noise may serve two images of a batch and another none; over draws
    every noise is used equally often. epsilon -> 0 gives optimal_transport, epsilon -> inf a uniform draw.
    """
    if not 0.0 < epsilon < math.inf:
        raise ValueError(f"coupling 'sinkhorn': epsilon is {epsilon}; it must be positive and finite")
    if iterations < 1:
        raise ValueError(f"coupling 'sinkhorn': iterations is {iterations}; it must be at least 1")

    def match(key: Key[Array, ""], cost: Float[Array, "b b"]) -> Int[Array, " b"]:
        return jax.random.categorical(key, log_plan(cost, epsilon, iterations), axis=1)

    return Coupling("sinkhorn", match)


def transport_cost(x0: Images, x1: Images, y: Labels | None) -> Float[Array, "b b"]:
    """|x1_i - x0_j|^2 over the batch's mean of it, [image i, noise j]; infinite where y_i and y_j differ.

    Float32 or wider, at full matmul precision: TF32 would change the ranking.
    """
    dtype = compute_dtype(x1.dtype)
    noise, image = (x.reshape(x.shape[0], -1).astype(dtype) for x in (x0, x1))
    products = jnp.matmul(image, noise.T, precision=jax.lax.Precision.HIGHEST)
    squares = jnp.sum(image**2, axis=1)[:, None] + jnp.sum(noise**2, axis=1)[None, :]
    cost = jnp.maximum(squares - 2.0 * products, 0.0)
    cost = cost / jnp.maximum(jnp.mean(cost), jnp.finfo(dtype).tiny)
    return cost if y is None else jnp.where(y[:, None] == y[None, :], cost, jnp.inf)


def log_plan(cost: Float[Array, "b b"], epsilon: Number, iterations: int) -> Float[Array, "b b"]:
    """Log of the entropic plan: after scaling, each row (image) sums to 1 and each column nearly so."""
    kernel = -cost / epsilon

    def scale(_: Any, potentials: tuple[Array, Array]) -> tuple[Array, Array]:
        image = -jax.nn.logsumexp(kernel + potentials[1][None, :], axis=1)
        return image, -jax.nn.logsumexp(kernel + image[:, None], axis=0)

    zeros = jnp.zeros(cost.shape[0], cost.dtype)
    _, noise = jax.lax.fori_loop(0, iterations, scale, (zeros, zeros))
    return jax.nn.log_softmax(kernel + noise[None, :], axis=1)


COUPLINGS: dict[str, Callable[..., Coupling]] = {f.__name__: f for f in (independent, optimal_transport, sinkhorn)}
