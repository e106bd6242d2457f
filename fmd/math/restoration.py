"""Inverse problems: draws from p(x1 | y) for y = A x1 + noise_std n, n ~ N(0, I), with a flow as the prior of x1.

Nothing is trained. With D = alpha' sigma - alpha sigma' the field that carries noise to such draws is

    v_y = v + (sigma D / alpha) grad_x log p(y | x_t)

and the methods differ in the last term, or avoid it:

    tweedie     p(y | x_t) normal with the exact covariance of x1 given x_t, (sigma^2/alpha) dX1/dx, X1 = E[x1 | x_t]
    pigdm       with the covariance r^2 I that it has for data of unit variance (2310.04432)
    projection  no noise: X1 is replaced by the nearest image that has been measured as y
    flower      draws x1 given y and X1, then x at the next time anew (2509.26287); no gradient of the network
    d_flow      the most likely noise x0 whose image is measured as y, found by L-BFGS (2402.14017)

tweedie is exact where x1 given x_t is normal, pigdm where moreover its variance is that of unit data, flower for unit
normal data. Where several answers are possible they are approximations, judged in experiments/reference/restoration.md.
d_flow gives one answer for each start, not draws of the posterior.

A method of your own is a class with `draw`, under a name:

    @restoration.register("as_seen")
    @dataclass(frozen=True)
    class AsSeen:
        linear, noisy = True, False

        def draw(self, problem, x0, steps):
            return problem.operator.pseudo_inverse(problem.measurement)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from fmd.math import operators, schedules
from fmd.math.broadcasting import compute_dtype, concrete
from fmd.math.operators import Map, Operator
from fmd.math.paths import convert
from fmd.math.schedules import Schedule
from fmd.registry import Registry
from fmd.types import Field, Images, Index, Scalars, TypedKey


@dataclass(frozen=True, eq=False)
class Problem:
    """An inverse problem, with a field as the prior and the source of random numbers.

    measurement [B, ...]; key and indices [B]: the numbers of example i are functions of (key, indices[i]).
    """

    field: Field
    measurement: Images
    operator: Operator
    noise_std: Scalars
    schedule: Schedule
    args: PyTree
    key: TypedKey
    indices: Index

    def velocity(self, t: Scalars, x: Images) -> Images:
        """The velocity of the prior."""
        v: Images = self.field(t, x, self.args)
        return v.astype(x.dtype)

    def data(self, t: Scalars, x: Images) -> Images:
        """X1 = E[x1 | x_t = x]."""
        return convert(self.schedule, x, t, self.velocity(t, x), source="velocity", target="data")

    def normal(self, number: Array | int, shape: Sequence[int]) -> Images:
        """Standard normal numbers [B, *shape]; each use has a `number` of its own, x0 has 0."""
        key, dtype = jax.random.fold_in(self.key, number), self.measurement.dtype
        drawn: Float[Array, "B ..."] = jax.vmap(
            lambda index: jax.random.normal(jax.random.fold_in(key, index), tuple(shape), dtype)
        )(self.indices)
        return drawn


@runtime_checkable
class Restorer(Protocol):
    """A method of restoring: frozen dataclasses whose fields are its parameters."""

    @property
    def linear(self) -> bool:
        """True where the operator must be linear."""
        ...

    @property
    def noisy(self) -> bool:
        """True where noise_std must be above 0."""
        ...

    def draw(self, problem: Problem, x0: Images, steps: int) -> Images:
        """x1 [B, ...] from standard normal x0 [B, ...]."""
        ...


METHODS: Registry[Restorer] = Registry(
    "method of restoring",
    built_in={
        "tweedie": "fmd.math.posterior_fields",
        "pigdm": "fmd.math.posterior_fields",
        "projection": "fmd.math.posterior_fields",
        "flower": "fmd.math.flower",
        "d_flow": "fmd.math.d_flow",
    },
    makes=Restorer,
)
register = METHODS.register


def restore(
    field: Field,
    measurement: Float[Array, "..."],
    operator: Operator | Map,
    key: TypedKey,
    *,
    shape: Sequence[int],
    noise_std: Scalars,
    method: str = "tweedie",
    schedule: Schedule | None = None,
    steps: int = 100,
    args: PyTree = None,
    noise: Images | None = None,
    indices: Index | None = None,
    **params: object,
) -> Images:
    """Draws of x1 given its measurement, [B, ...], float32 at least.

    field        field(t, x, args) of a flow along `schedule` (linear by default) from N(0, prior_std^2 I), whose pairs
                 were independent. A guided field is the prior of its own samples: weight 1, or 0, is that of the data
    measurement  [B, ...], or one for all: what broadcasts to the shape of A x
    operator     an `fmd.math.operators.Operator`; or, for tweedie, pigdm and d_flow, any differentiable function of a
                 batch, of which the derivative at X1 stands for A
    key          typed key; draws of equal measurements differ by their place in the batch
    shape        [B, ...] of the result
    noise_std    standard deviation of the noise of the measurement, >= 0; flower needs it above 0
    steps        of the solver; of L-BFGS in d_flow
    noise        [B, ...] standard normal numbers to start from, instead of the key's
    indices      [B] number of each example, by which it draws; 0 .. B - 1 by default
    params       of the method: see the class of that name

    Raises ValueError for an unknown method or parameter, an operator or measurement that does not go with `shape`, an
    operator that is not linear where it must be, and a noise_std that the method cannot have.
    """
    restorer, shape = METHODS.build(method, params), tuple(shape)
    check(restorer, method, noise_std, steps)
    operator = fitting(operator, shape[1:], restorer, method)
    dtype, made = compute_dtype(measurement.dtype), (*shape[:1], *operator.measured(shape[1:]))
    try:
        measurement = jnp.broadcast_to(measurement.astype(dtype), made)
    except ValueError:
        raise ValueError(
            f"the measurement is {measurement.shape}, but operator {operator.name!r} makes {made} of images {shape}"
        ) from None
    indices = jnp.arange(shape[0], dtype=jnp.int32) if indices is None else indices
    schedule = schedules.get("linear") if schedule is None else schedule
    problem = Problem(field, measurement, operator, noise_std, schedule, args, key, indices)
    x0 = problem.normal(0, shape[1:]) if noise is None else jnp.broadcast_to(noise.astype(dtype), shape)
    return restorer.draw(problem, x0, steps)


def check(restorer: Restorer, method: str, noise_std: Scalars, steps: int) -> None:
    """Raises ValueError for a noise_std that the method cannot have, as far as it is known, and for steps < 1."""
    if steps < 1:
        raise ValueError(f"steps={steps} must be at least 1")
    if concrete(noise_std) and not (np.all(np.isfinite(noise_std)) and np.all(np.asarray(noise_std) >= 0)):
        raise ValueError(f"noise_std={noise_std} must be finite and not negative")
    if restorer.noisy and concrete(noise_std) and not np.all(np.asarray(noise_std) > 0):
        raise ValueError(f"method {method!r} divides by noise_std, which is 0: give a small one, or use 'projection'")


def fitting(operator: Operator | Map, shape: tuple[int, ...], restorer: Restorer, method: str) -> Operator:
    """The operator for images of `shape`. ValueError where it does not take them, or is not linear and must be."""
    if not isinstance(operator, Operator):
        operator = operators.from_function(operator, linear=restorer.linear)
    if restorer.linear and not operator.linear:
        raise ValueError(
            f"method {method!r} needs a linear operator, which {operator.name!r} is not; use tweedie, pigdm or d_flow"
        )
    return operator.on(shape)


def squared(noise_std: Scalars, dtype: np.dtype) -> Float[Array, ""]:
    """noise_std^2 in the dtype of the images."""
    return jnp.asarray(noise_std, dtype) ** 2


def size_of(x: Images) -> int:
    """Numbers per example."""
    return math.prod(x.shape[1:])
