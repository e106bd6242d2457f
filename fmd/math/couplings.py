"""Couplings: the noise x0 that each image x1 of a batch is paired with.

    independent         as drawn
    optimal_transport   the permutation of the noise with the least sum of |x0 - x1|^2, exactly (2302.00482, 2304.14772)
    sinkhorn            each image draws its noise from the entropic plan exp((f_i + g_j - |x1_i - x0_j|^2)/epsilon)

Images and conditions never move: only the noise is reordered. Labels, if given, keep the pairing within each class:
pairing across classes would make the noise depend on the class and bias p(x0 | y) (2503.10636). Noise carries no label
of its own, so place i lends it label y_i; every class then holds as many noises as images, and a pairing within classes
always exists. Pass the labels as they were before label dropout. In a dictionary of conditions all integer parts [B]
count as labels together; other parts are not looked at, and the noise may depend on them.

After any coupling but the independent one, x0 is no longer N(0, I) given x1. The velocity target, the posterior means
and a change of schedule stay right. The score = -E[x0 | x]/sigma does not: no conversion to or from it holds, and no
SDE sampler. `Coupling.independent` tells.

The pairing sees the batch that it is given: on several devices, pair before the batch is cut, or each device pairs its
own part, which is valid but another coupling. Optimal transport takes B^3 sequential work: 2 ms for B = 128, 6 ms for
B = 256 on one CPU core.

A coupling of your own is a function of the cost, under a name for configs:

    @couplings.register("nearest")
    def nearest() -> Coupling:
        return Coupling("nearest", lambda key, cost: jnp.argmin(cost, axis=1))
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from fmd.math.broadcasting import Positive, compute_dtype, finfo
from fmd.registry import Between, Registry
from fmd.types import Condition, Images, Number, TypedKey

Cost = Float[Array, "B B"]
Match = Callable[[TypedKey, Cost], Int[Array, " B"]]


@dataclass(frozen=True)
class Coupling:
    """pair(key, x0, x1, y) -> (x0, x1, y): noise and images [B, ...], y a condition [B, ...] or None.

    `match` picks, from the key and the cost [image, noise], one noise per image; None leaves the noise in place.
    """

    name: str
    match: Match | None

    @property
    def independent(self) -> bool:
        """True where x0 is still N(0, I) given x1 afterwards."""
        return self.match is None

    def __call__(self, key: TypedKey, x0: Images, x1: Images, y: Condition = None) -> tuple[Images, Images, Condition]:
        """The batch with its noise reordered. ValueError if the shapes do not belong together."""
        parts = [part.shape for part in jax.tree.leaves(y)]
        if x0.shape != x1.shape or any(shape[:1] != x1.shape[:1] for shape in parts):
            raise ValueError(
                f"noise {x0.shape}, images {x1.shape}, labels {parts}: "
                "noise and images need one shape [B, ...], labels [B]"
            )
        if self.match is None:
            return x0, x1, y
        return x0[self.match(key, transport_cost(x0, x1, y))], x1, y


COUPLINGS: Registry[Coupling] = Registry("coupling", makes=Coupling)
register = COUPLINGS.register


def get(name: str, **params: object) -> Coupling:
    """The coupling called `name`: independent, optimal_transport, sinkhorn (epsilon, iterations).

    Raises ValueError for an unknown name or parameter or a value out of range.
    """
    return COUPLINGS.build(name, params)


@register("independent")
def independent() -> Coupling:
    """Noise stays where it was drawn."""
    return Coupling("independent", None)


@register("optimal_transport")
def optimal_transport() -> Coupling:
    """The exact least-cost permutation (Hungarian algorithm); uses no randomness."""

    def match(_: TypedKey, cost: Cost) -> Int[Array, " B"]:
        image, noise = optax.assignment.hungarian_algorithm(cost)
        return jnp.zeros_like(noise).at[image].set(noise)

    return Coupling("optimal_transport", match)


@register("sinkhorn")
def sinkhorn(
    epsilon: Positive = 0.01,
    iterations: Annotated[int, Between(1)] = 100,
) -> Coupling:
    """A draw from the entropic transport plan.

    `epsilon` is in units of the mean squared distance between noise and images of the batch. Each image draws from its
    row of the plan, so a noise may serve two images of a batch and another none; over draws every noise is used equally
    often. epsilon -> 0 gives optimal_transport, epsilon -> inf a uniform draw.
    """

    def match(key: TypedKey, cost: Cost) -> Int[Array, " B"]:
        return jax.random.categorical(key, log_plan(cost, epsilon, iterations), axis=1)

    return Coupling("sinkhorn", match)


def transport_cost(x0: Images, x1: Images, y: Condition) -> Cost:
    """|x1_i - x0_j|^2 over the batch's mean of it, [image i, noise j]; infinite where labels of y_i and y_j differ.

    Float32 or wider, at full matmul precision: TF32 would change the ranking.
    """
    dtype = compute_dtype(x1.dtype)
    noise, image = (x.reshape(x.shape[0], -1).astype(dtype) for x in (x0, x1))
    products = jnp.matmul(image, noise.T, precision=jax.lax.Precision.HIGHEST)
    squares = jnp.sum(image**2, axis=1)[:, None] + jnp.sum(noise**2, axis=1)[None, :]
    cost = jnp.maximum(squares - 2.0 * products, 0.0)
    cost = cost / jnp.maximum(jnp.mean(cost), finfo(dtype).tiny)
    for labels in jax.tree.leaves(y):
        if labels.ndim == 1 and jnp.issubdtype(labels.dtype, jnp.integer):
            cost = jnp.where(labels[:, None] == labels[None, :], cost, jnp.inf)
    return cost


def log_plan(cost: Cost, epsilon: Number, iterations: int) -> Cost:
    """Log of the entropic plan. Each row (image) sums to 1, each column nearly so."""
    kernel = -cost / epsilon
    Potentials = tuple[Float[Array, " B"], Float[Array, " B"]]

    def scale(_: object, potentials: Potentials) -> Potentials:
        image = -jax.nn.logsumexp(kernel + potentials[1][None, :], axis=1)
        return image, -jax.nn.logsumexp(kernel + image[:, None], axis=0)

    zeros = jnp.zeros(cost.shape[0], cost.dtype)
    _, noise = jax.lax.fori_loop(0, iterations, scale, (zeros, zeros))
    return jax.nn.log_softmax(kernel + noise[None, :], axis=1)
