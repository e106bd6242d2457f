"""Fields: right-hand sides dx/dt for solvers, made of the predictions of networks.

A field is `field(t, x, args=None) -> dx/dt`, t a scalar or [B], x [B, ...], args what the network is told. A prediction
is `predict(x, t, y)`, a network's order, t [B] and y a condition: labels [B] or a dictionary of parts [B, ...].

    as_velocity        predict(x, t, y) of the velocity, from a network that predicts data, noise or the score
    from_model         the same as a field
    guided_field       two predictions combined by a rule of `fmd.math.guidance`, in one network call
    composed_field     the same of one prediction for each part of a condition, each with a weight
    autoguided_field   the same of two networks
    clip_data          a velocity whose data prediction lies in the range of pixels
    change_schedule    a field that follows another schedule than the one trained along
    stochastic         drift and noise of the equation that has the marginals of the flow

Stochastic equation. For every g(t) >= 0 (2303.08797, 2401.08740)

    dX = [v + g^2/2 S] dt + g dW,    S = grad log p_t = -E0 / sigma

has the marginals p_t of the flow dx/dt = v. The table NOISES chooses g^2 per unit of its scale k, and writes the added
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

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from fmd.math.broadcasting import as_float, expand_left, times_of_rows, weighted_sum
from fmd.math.guidance import Guidance
from fmd.math.paths import CONVERSIONS, PREDICTIONS, convert
from fmd.math.schedules import Coefficients, Schedule
from fmd.types import Condition, Field, Images, Scalars, Times

Predict = Callable[[Images, Times, Condition], Images]
Drop = Callable[..., Condition]
Real = Float[Array, "..."]

SINGULAR_MARGIN = 1e-6
"""How far inside an end where the old velocity is infinite `change_schedule` asks it."""

SILENT_MARGIN = 1e-3
"""The same where it says nothing of the data (t^n with n > 1 at t = 0); there x is noise to within 1e-3^n."""

NOISES: Mapping[str, Callable[[Coefficients], tuple[Real, Real, Real]]] = MappingProxyType({
    # name: (g^2, c_x, c_v), each per unit of k
    "sigma": lambda c: (2 * c.sigma, -c.noise_x, -c.noise_v),
    "quadratic": lambda c: (2 * c.sigma**2, -c.sigma * c.noise_x, -c.sigma * c.noise_v),
    "memoryless": lambda c: (c.memoryless, -c.d_alpha / c.alpha, jnp.ones_like(c.alpha)),
    "constant": lambda c: (2 * jnp.ones_like(c.sigma), -c.noise_x / c.sigma, -c.noise_v / c.sigma),
})  # fmt: skip


def as_velocity(predict: Predict, schedule: Schedule, prediction: str = "velocity", *, edge: float = 0.01) -> Predict:
    """predict(x, t, y) of the velocity, from one of another prediction.

    prediction: "velocity", "data", "noise" or "score". "velocity" is handed through. "data" tells no velocity where
    sigma = 0 (t = 1), "noise" and "score" none where alpha = 0 (t = 0): at such an end the network and the conversion
    are asked no closer than `edge`. Choose half a solver step: a smaller edge amplifies the network's error in the last
    step. ValueError for another prediction.
    """
    if prediction not in PREDICTIONS:
        raise ValueError(f"unknown prediction {prediction!r}; known: {', '.join(PREDICTIONS)}")
    if not 0 <= edge < 0.5:
        raise ValueError(f"edge={edge} must be in [0, 0.5)")
    first, last = (edge if singular else 0.0 for singular in _singular_ends(schedule, prediction))

    def velocity(x: Images, t: Scalars, y: Condition = None) -> Images:
        rows = jnp.clip(times_of_rows(t, x), first, 1.0 - last)
        return convert(schedule, x, rows, predict(x, rows, y), source=prediction, target="velocity")

    return velocity


def from_model(predict: Predict, schedule: Schedule, prediction: str = "velocity", *, edge: float = 0.01) -> Field:
    """The velocity field of a network predict(x [B, ...], t [B], args); see `as_velocity`."""
    velocity = as_velocity(predict, schedule, prediction, edge=edge)
    return lambda t, x, args=None: velocity(x, t, args)


def clip_data(
    schedule: Schedule, v: Images, x: Images, t: Scalars, *, low: float = -1.0, high: float = 1.0, edge: float = 0.01
) -> Images:
    """The velocity v [B, ...] with its data prediction clipped to [low, high] (2205.11487, section 2.3).

    Posterior means of pixels lie in their range. Where the data hold the end of the range exactly, as a black
    background does, a network need only predict that or less. The conversion is done no closer than `edge` to an end
    where the velocity does not tell the data.
    """
    rows = times_of_rows(t, x)
    data = convert(schedule, x, rows, v, source="velocity", target="data")
    of_v = schedule.at(rows).data_v
    per_velocity = 1.0 / jnp.where(jnp.abs(of_v) < edge, edge, of_v)
    return weighted_sum(x.dtype, (jnp.ones_like(of_v), v), (per_velocity, jnp.clip(data, low, high) - data))


def guided_field(predict: Predict, null: int | Callable[[Condition], Condition], combine: Guidance) -> Field:
    """A field guided from two predictions, made in one network call.

    The field is field(t, x, args) with the condition as args; predict(x [B, ...], t [B], y) -> velocity [B, ...].
    null: the label that tells nothing, or a function from a condition to its untold form, a tree of the same structure.

    Both halves are one call of `predict` under `vmap`, each null row beside its conditional row: a batch that is
    sharded over devices stays where it is, and what does not depend on the condition is computed once. Where the rule
    does not need a half, the call is a plain one of B rows. A rule with memory makes it
    field(t, x, args, memory) -> (dx/dt, memory).
    """

    def untold(y: Condition) -> Condition:
        if y is None:
            raise ValueError("a guided field needs the condition as args, e.g. labels, int32 [B]")
        return null(y) if callable(null) else jnp.full_like(y, null)

    def both(x: Images, t: Times, y: Condition) -> tuple[Images, Images]:
        v = _in_one_call(predict, x, t, untold(y), y)
        return v[:, 0], v[:, 1]

    return _combined(combine, predict, lambda x, t, y: predict(x, t, untold(y)), both)


def composed_field(predict: Predict, drop: Drop, weights: Mapping[str, Scalars], combine: Guidance) -> Field:
    """A field guided by each part of a condition with a weight of its own, in one network call.

    With v_0 told none of the parts that `weights` names, and v_i told that one of them,

        v = v_0 + sum_i w_i (v_i - v_0),

    which for parts that are independent given x is the velocity of p(x) prod_i p(part_i | x)^w_i (2206.01714). Parts
    without a weight are told in every v. The rule `combine` has this sum in the place of v_cond, v_0 in that of v_null.

    drop: drop(y, parts=names) -> y without these parts, of one structure for any names, as `Network.drop`.
    """
    names = tuple(weights)

    def both(x: Images, t: Times, y: Condition) -> tuple[Images, Images]:
        alone = [drop(y, parts=[other for other in names if other != name]) for name in names]
        v = _in_one_call(predict, x, t, drop(y, parts=names), *alone)
        parts = ((as_float(weights[name]), v[:, i + 1] - v[:, 0]) for i, name in enumerate(names))
        return v[:, 0], v[:, 0] + weighted_sum(v.dtype, *parts)

    return _combined(
        combine, lambda x, t, y: both(x, t, y)[1], lambda x, t, y: predict(x, t, drop(y, parts=names)), both
    )


def autoguided_field(strong: Predict, weak: Predict, combine: Guidance) -> Field:
    """A field guided by a weaker network (2406.02507): under cfg v_weak + w (v_strong - v_weak).

    The weak network is an earlier checkpoint or a smaller network of the same task, in the place of v_null. Both are
    told the condition, args. A rule with memory makes it field(t, x, args, memory) -> (dx/dt, memory).
    """
    return _combined(combine, strong, weak, lambda x, t, y: (weak(x, t, y), strong(x, t, y)))


def _combined(
    combine: Guidance, cond: Predict, null: Predict, both: Callable[[Images, Times, Condition], tuple[Images, Images]]
) -> Field:
    def field(t: Scalars, x: Images, args: Condition = None, memory: PyTree = None) -> PyTree:
        y, rows = jax.tree.map(jnp.asarray, args), times_of_rows(t, x)
        if combine.needs_null and combine.needs_cond:
            v_null, v_cond = both(x, rows, y)
        else:
            v_null = v_cond = (cond if combine.needs_cond else null)(x, rows, y)
        if combine.init is None:
            return combine(v_null, v_cond, x, t)
        if memory is None:
            raise ValueError(f"guidance {combine.name!r} has a memory: use solve_ode with memory=rule.init(x0)")
        return combine.step(memory, v_null, v_cond, x, t)

    return field


def _in_one_call(predict: Predict, x: Images, t: Times, *told: Condition) -> Float[Array, "B K ..."]:
    """The predictions [B, K, ...] of B examples for K conditions, in one call.

    As a map over conditions inside one over examples: all that comes before a network looks at its condition, such as
    its first convolutions, is computed B times instead of K B times. The K rows of an example lie side by side.
    """
    structures: list[object] = [jax.tree.structure(y) for y in told]
    if any(structure != structures[0] for structure in structures):
        raise ValueError("the condition and its untold form differ in structure: give the field a y as `drop` does")

    def one(x: Array, t: Array, y: Condition) -> Array:
        return predict(*jax.tree.map(lambda a: a[None], (x, t, y)))[0]

    conditions = jax.tree.map(lambda *rows: jnp.stack(rows, axis=1), *told)
    v: Array = jax.vmap(jax.vmap(one, in_axes=(None, None, 0)))(x, t, conditions)
    return v


def change_schedule(field: Field, old: Schedule, new: Schedule) -> Field:
    """The velocity field along schedule `new`, from a velocity `field` trained along `old`.

    At equal signal-to-noise ratio the two marginals are copies at different scale: x of `new` at t is asked of `old` at
    (x / c, t_old), c = sigma_new / sigma_old = alpha_new / alpha_old. The posterior means found there are the same, and
    give the new velocity alpha_new' X1 + sigma_new' E0. No derivative of c or t_old, and no 0/0, is needed.
    Where `old` is singular or silent at an end, it is asked a little inside. Start `new` from N(0, new.prior_std^2).
    """
    if old == new:
        return field
    margins = [
        SINGULAR_MARGIN if end in old.singular_times else SILENT_MARGIN if end in old.silent_times else 0.0
        for end in (0.0, 1.0)
    ]

    def changed(t: Scalars, x: Images, args: PyTree = None) -> Images:
        c_new = new.at(t)
        t_old = jnp.clip(old.inverse_log_snr(c_new.log_snr), margins[0], 1.0 - margins[1])
        c_old = old.at(t_old)
        # The ratio of the larger coefficients: neither vanishes where it is used.
        clean = c_new.log_snr > 0.0
        shrink = jnp.where(clean, c_old.alpha, c_old.sigma) / jnp.where(clean, c_new.alpha, c_new.sigma)
        x_old = weighted_sum(x.dtype, (shrink, x))
        v = field(t_old, x_old, args)
        of_x = c_new.d_alpha * c_old.data_x + c_new.d_sigma * c_old.noise_x
        of_v = c_new.d_alpha * c_old.data_v + c_new.d_sigma * c_old.noise_v
        return weighted_sum(x.dtype, (of_x, x_old), (of_v, v))

    return changed


def stochastic(
    field: Field,
    schedule: Schedule,
    noise: str,
    scale: Scalars,
    knots: Float[Array, " knots"],
    t: Scalars,
    x: Images,
    args: PyTree = None,
) -> tuple[Images, Real]:
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


def _singular_ends(schedule: Schedule, prediction: str) -> tuple[bool, bool]:
    """Two flags: the conversion to a velocity is infinite at t = 0, at t = 1."""
    if prediction == "velocity":
        return False, False
    with jax.ensure_compile_time_eval():
        ends = [CONVERSIONS[prediction, "velocity"](schedule.at(t)) for t in (0.0, 1.0)]
        first, last = (not all(bool(jnp.isfinite(c)) for c in coefficients) for coefficients in ends)
    return first, last
