"""The dynamics that are solved: a model's prediction as a velocity field, and the stochastic equation around it.

A field is `field(t, x, args) -> dx/dt`, t a scalar or [B], x [B, ...]; a model predicts `predict(x, t, y)` with t [B].

For every g(t) >= 0 the equation (2303.08797, 2401.08740)

    dX = [v + g^2/2 S] dt + g dW,    S = grad log p_t = -E0 / sigma

has the marginals p_t of the flow dx/dt = v. The noise table chooses g^2 per unit of its scale k, and writes the added
drift as k (c_x x + c_v v) through the posterior noise mean E0 = noise_x x + noise_v v, so that nothing divides by sigma
where it need not:

    name            g^2             g^2/2 S                    singular
    sigma           2 k sigma       -k E0                      nowhere
    quadratic       2 k sigma^2     -k sigma E0                nowhere
    memoryless      2 k sigma D/a   k (v - (alpha'/alpha) x)   t = 0 where alpha(0) = 0
    constant        2 k             -k E0 / sigma              t = 1 where sigma(1) = 0

memoryless at k = 1 makes x1 independent of x0 (2409.08861). The score is that of noise independent of the data: after
an optimal-transport coupling or reflow this equation does not hold.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmd.math.broadcasting import Scalars, as_float, expand_left, weighted_sum
from fmd.math.guidance import times_of_rows
from fmd.math.integration import Field, check_end_epsilon
from fmd.math.paths import CONVERSIONS, PREDICTIONS, convert
from fmd.math.schedules import Coefficients, Schedule

Noise = Callable[[Coefficients], tuple[Any, Any, Any]]

NOISES: Mapping[str, Noise] = MappingProxyType({  # name: (g^2, c_x, c_v), each per unit of k
    "sigma": lambda c: (2 * c.sigma, -c.noise_x, -c.noise_v),
    "quadratic": lambda c: (2 * c.sigma**2, -c.sigma * c.noise_x, -c.sigma * c.noise_v),
    "memoryless": lambda c: (c.memoryless, -c.d_alpha / c.alpha, jnp.ones_like(c.alpha)),
    "constant": lambda c: (2 * jnp.ones_like(c.sigma), -c.noise_x / c.sigma, -c.noise_v / c.sigma),
})  # fmt: skip


def from_model(
    predict: Callable[..., Float[Array, "b ..."]],
    schedule: Schedule,
    prediction: str = "velocity",
    *,
    edge: float = 0.01,
) -> Field:
    """The velocity field(t, x, args) of a model predict(x [B, ...], t [B], args) that predicts `prediction`.

    "velocity" is handed through. "data" tells no velocity where sigma = 0 (t = 1), "noise" and "score" none where
    alpha = 0 (t = 0): at such an end the model and the conversion are asked no closer than `edge`. There a model's
    error enters the velocity divided by `edge`, and the solver multiplies it by its step; so an edge of about half a
    step keeps the last step honest, and a much smaller one does not. Raises ValueError for another prediction.
    """
    if prediction not in PREDICTIONS:
        raise ValueError(f"unknown prediction {prediction!r}; known: {', '.join(PREDICTIONS)}")
    check_end_epsilon(edge)
    first, last = (edge if singular else 0.0 for singular in _singular_ends(schedule, prediction))

    def field(t: Scalars, x: Float[Array, "b ..."], args: Any = None) -> Float[Array, "b ..."]:
        rows = jnp.clip(times_of_rows(t, x), first, 1.0 - last)
        return convert(schedule, x, rows, predict(x, rows, args), source=prediction, target="velocity")

    return field


def with_noise(
    field: Field, schedule: Schedule, noise: str, scale: Scalars, knots: Float[Array, " knots"], t: Scalars, x, args
) -> tuple[Float[Array, "b ..."], Float[Array, "..."]]:
    """(drift [B, ...], g) at the scalar time t of the stochastic equation around `field`.

    A noise that may be singular at an end is read no closer to the ends than the neighbouring knots of the grid.
    """
    k, at = as_float(scale, "scale").astype(x.dtype), as_float(t)
    if noise in ("memoryless", "constant"):
        middle = (knots[0] + knots[-1]) / 2
        at = jnp.clip(at, jnp.minimum(knots[1], middle), jnp.maximum(knots[-2], middle))
    g_squared, of_x, of_v = (c.astype(x.dtype) for c in NOISES[noise](schedule.at(at)))
    drift = weighted_sum(x.dtype, (1 + k * of_v, field(t, x, args)), (k * of_x, x))
    # Two roots: the gradient in k stays finite where g^2 is 0.
    return drift, expand_left(jnp.sqrt(k) * jnp.sqrt(g_squared), x)


def check_noise(noise: str) -> None:
    """ValueError with the list of noises where the name is not one of them."""
    if noise not in NOISES:
        raise ValueError(f"unknown noise {noise!r}; known: {', '.join(NOISES)}")


def _singular_ends(schedule: Schedule, prediction: str) -> tuple[bool, bool]:
    """Whether the conversion to a velocity is infinite at t = 0 and at t = 1."""
    if prediction == "velocity":
        return False, False
    with jax.ensure_compile_time_eval():
        ends = [CONVERSIONS[prediction, "velocity"](schedule.at(t)) for t in (0.0, 1.0)]
        first, last = (not all(bool(jnp.isfinite(c)) for c in coefficients) for coefficients in ends)
    return first, last
