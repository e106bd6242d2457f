"""Classes of images from a conditional flow, the generative way: which label explains the image best.

    errors        the mean over uniform t and x0 of w(t) |v(x_t, t, y) - u|^2, x_t and its velocity u those of the pair
                  (x0, x): the smaller, the better
    likelihood    log p(x | y) by the change of variables

The weights of the errors:

    likelihood    alpha/(sigma D): the mean is -log p(x | y) but for a constant, a bound (2107.00630) that is exact for
                  the true field (2302.03792). The few draws near t = 1 outweigh all others
    velocity      1, the loss of the training. Errors near t = 0, where u is least certain, outweigh the later ones
    precision     1/Var(u | x_t) = (alpha^2 + sigma^2/s^2)/D^2 for data of standard deviation s: draws count by how
                  certain u is. It is |E[x0 | x_t] - x0|^2 + |E[x1 | x_t] - x1|^2/s^2, and for large s the error of the
                  noise alone (2303.16203). s is that of the directions in which classes differ, not of a pixel: MNIST
                  in [-1, 1] has 8 directions of 2.5 to 4.6

The same draws of (t, x0) serve all classes: noise that is common to them cancels in the differences, which alone count.
t is stratified over the draws. Classes that are far behind after some draws get no more of them: they keep their
distance from the one that was best by then.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from fmd.math import schedules
from fmd.math.broadcasting import compute_dtype
from fmd.math.likelihood import log_likelihood
from fmd.math.paths import interpolate, velocity
from fmd.math.schedules import Coefficients, Schedule
from fmd.types import Field, Images, Index, Number, TypedKey

LogProbabilities = Float[Array, "B classes"]
WEIGHTINGS = ("likelihood", "velocity", "precision")

MARGIN = 1e-3
"""How close to 0 and 1 a time is drawn: w is infinite at t = 1."""


def by_errors(
    field: Field,
    x1: Images,
    key: TypedKey,
    *,
    labels: PyTree,
    draws: int = 64,
    first: int | None = None,
    keep: int | None = None,
    weighting: str = "likelihood",
    data_std: Number = 4.0,
    log_prior: Float[Array, " classes"] | None = None,
    schedule: Schedule | None = None,
    indices: Index | None = None,
) -> LogProbabilities:
    """log p(y | x1) [B, classes], estimated by the errors of the velocity, float32 at least.

    field       field(t, x, args) told args, a label for each row
    labels      all classes, leaves [classes, ...]
    draws       pairs (t, x0) for each image, K
    first       after so many of them only the `keep` best classes of each image go on; default: none is dropped
    weighting   "likelihood": p(y | x1) itself, as K grows; the softmax of "velocity" and "precision" is no
                probability, but has the right class in fewer draws
    data_std    s of "precision"
    log_prior   log p(y); default: equal
    indices     [B]: the draws of example i are functions of (key, indices[i])

    Raises ValueError for draws < 1, a first or keep out of range, an unknown weighting, and a data_std not above 0.
    """
    classes = jax.tree.leaves(labels)[0].shape[0]
    keep, first = classes if keep is None else keep, draws if first is None else first
    if draws < 1 or not 1 <= first <= draws or not 1 <= keep <= classes:
        raise ValueError(
            f"draws={draws}, first={first}, keep={keep}: draws at least 1, first in 1 to draws, keep in 1 to {classes}"
        )
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting={weighting!r} must be one of {', '.join(WEIGHTINGS)}")
    if not data_std > 0:
        raise ValueError(f"data_std={data_std} must be above 0")
    x1 = x1.astype(compute_dtype(x1.dtype))
    rows = x1.shape[0]
    path = schedules.get("linear") if schedule is None else schedule
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(rows) if indices is None else indices)
    shift = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, draws), (), x1.dtype))(keys)

    def error(draw: Array, chosen: Int[Array, "B chosen"]) -> Float[Array, "B chosen"]:
        """K times the share of one draw in -log p(x1 | y) of the chosen classes."""
        t = jnp.clip((draw.astype(x1.dtype) + shift) / draws, MARGIN, 1 - MARGIN)
        x0 = jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, draw), x1.shape[1:], x1.dtype))(keys)
        x, target = interpolate(path, x0, x1, t), velocity(path, x0, x1, t)
        each = chosen.shape[1]
        told = jax.tree.map(lambda label: label[chosen.reshape(-1)], labels)
        v = field(jnp.repeat(t, each), jnp.repeat(x, each, axis=0), told).astype(x1.dtype)
        square = jnp.sum((v.reshape(rows, each, -1) - target.reshape(rows, 1, -1)) ** 2, axis=2)
        return square * weight(path.at(t), weighting, data_std)[:, None].astype(x1.dtype)

    def total(numbers: Int[Array, " n"], chosen: Int[Array, "B chosen"]) -> Float[Array, "B chosen"]:
        def step(sum_: Float[Array, "B chosen"], draw: Array) -> tuple[Float[Array, "B chosen"], None]:
            return sum_ + error(draw, chosen), None

        return jax.lax.scan(step, jnp.zeros(chosen.shape, x1.dtype), numbers)[0]

    order = _spread_out(draws)
    everyone = jnp.broadcast_to(jnp.arange(classes)[None], (rows, classes))
    log_p = -total(order[:first], everyone) / first
    if first < draws:
        _, best = jax.lax.top_k(log_p, keep)
        before = jnp.take_along_axis(log_p, best, axis=1)
        longer = (first * before - total(order[first:], best)) / draws
        log_p = log_p + (longer[:, :1] - before[:, :1])  # those that are dropped keep their distance from the best
        log_p = jax.vmap(lambda row, place, value: row.at[place].set(value))(log_p, best, longer)
    return _normalised(log_p, log_prior)


def by_likelihood(
    field: Field, x1: Images, *, labels: PyTree, log_prior: Float[Array, " classes"] | None = None, **options: Any
) -> LogProbabilities:
    """log p(y | x1) [B, classes] from log p(x1 | y) by the change of variables; options as in `log_likelihood`.

    Exact up to the solver with the exact trace; Hutchinson's probes are the same for all classes.
    """

    def one(label: PyTree) -> Float[Array, " B"]:
        told = jax.tree.map(lambda part: jnp.broadcast_to(part[None], (x1.shape[0], *part.shape)), label)
        return log_likelihood(field, x1, args=told, **options)[0]

    log_p: Float[Array, "classes B"] = jax.lax.map(one, labels)
    return _normalised(log_p.T, log_prior)


def weight(c: Coefficients, weighting: str, data_std: Number) -> Float[Array, " B"]:
    """w at the times of the coefficients, one of WEIGHTINGS; `data_std` is s of "precision"."""
    if weighting == "likelihood":
        return 2 / c.memoryless
    return jnp.ones_like(c.alpha) if weighting == "velocity" else c.noise_v**2 + (c.data_v / data_std) ** 2


def _normalised(log_p: LogProbabilities, log_prior: Float[Array, " classes"] | None) -> LogProbabilities:
    prior = jnp.zeros(log_p.shape[1], log_p.dtype) if log_prior is None else log_prior
    return jax.nn.log_softmax(log_p + prior[None].astype(log_p.dtype), axis=1)


def _spread_out(count: int) -> Int[Array, " n"]:
    """0 .. count - 1 in an order whose every beginning is spread evenly: multiples of the golden section."""
    places = [(i * (math.sqrt(5) - 1) / 2) % 1 for i in range(count)]
    ranks = sorted(range(count), key=places.__getitem__)
    order = [0] * count
    for rank, i in enumerate(ranks):
        order[i] = rank
    return jnp.asarray(order, jnp.int32)
