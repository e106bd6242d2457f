"""Guidance: rules that combine two predictions of the velocity into one.

`get(name, **params)` gives a rule, called as combine(v_null, v_cond, x, t): the unconditional and the conditional
velocity and x, all [B, ...], t a scalar or [B]. The weight w is 1 for conditional, 0 for unconditional sampling:

    v = v_null + w (v_cond - v_null)                                                   2207.12598

Velocity, data, noise and score are affine in one another and the rule's weights sum to 1, so guiding any of them is the
same. A guided flow is not a sample of the tilted density p_null^(1-w) p_cond^w, and the density that its field implies
is its own.

    cfg             also inside an interval of t or log-SNR only                       2404.07724
    cfg_zero_star   v_null scaled to explain v_cond; zero velocity at first            2503.18886
    apg             the part of the difference along the data prediction damped        2410.02416
    rescale         any of these, brought to the standard deviation of v_cond          2305.08891

`fmd.math.fields` makes guided fields of them. Autoguidance (2406.02507) is any of these rules with a weaker model in
the place of v_null. Norms, inner products and deviations are taken per example, over all axes but the first, and rules
compute in float32 at least.

A weight may be a Python number, a traced scalar or one per example [B] (an exported program takes it as an input):
build the rule where the weight is at hand, inside the traced function. Only concrete numbers are checked, and only a
concrete 1 or 0 saves the other half of the network call.

A rule of your own is a function that returns a `Guidance`. With `init` it has a memory, which a solver with fixed steps
carries from step to step: `solve_ode(..., memory=rule.init(x0))`.

    @guidance.register("smooth")
    def smooth(weight: Scalars = 1.0, share: float = 0.5) -> Guidance:
        def rule(average, v_null, v_cond, x, t):
            average = share * average + (1 - share) * (v_cond - v_null)
            return v_null + weight * average, average

        return Guidance("smooth", weight, rule, init=jnp.zeros_like)
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from fmd.math.broadcasting import as_float, compute_dtype, concrete, expand_left, finfo, weighted_sum
from fmd.math.schedules import Schedule, linear
from fmd.registry import Between, Registry
from fmd.types import Images, Number, Scalars

LEAST_GAIN = 0.05
"""The least sigma/D by which apg divides its average of earlier steps; at t = 1 sigma/D is 0."""


@dataclass(frozen=True, eq=False)
class Guidance:
    """A guidance rule with what a sampler must know of it.

    rule          rule(v_null, v_cond, x, t) -> v, all [B, ...], t a scalar or [B];
                  with a memory rule(memory, v_null, v_cond, x, t) -> (v, memory)
    jump_times    times in (0, 1) where the rule is discontinuous, for adaptive solvers
    needs_null, needs_cond   whether the rule reads that prediction
    init          init(x) -> memory before the first step, any pytree; None for a rule without memory

    Raises ValueError for a weight that is not finite.
    """

    name: str
    weight: Scalars
    rule: Callable[..., PyTree]
    jump_times: tuple[float, ...] = ()
    needs_null: bool = True
    needs_cond: bool = True
    init: Callable[[Images], PyTree] | None = None

    def __post_init__(self) -> None:
        if concrete(self.weight) and not np.all(np.isfinite(self.weight)):
            raise ValueError(f"guidance weight is {self.weight}; it must be finite")

    @property
    def evaluations(self) -> int:
        """Model calls per example and evaluation of the field."""
        return int(self.needs_null) + int(self.needs_cond)

    def __call__(self, v_null: Images, v_cond: Images, x: Images, t: Scalars) -> Images:
        """The guided velocity [B, ...], in the dtype of v_cond.

        A rule with memory combines as in its first step. Raises ValueError where t is neither a scalar nor [B].
        """
        v, _ = self.step(self.init(x) if self.init else (), v_null, v_cond, x, t)
        return v

    def step(self, memory: PyTree, v_null: Images, v_cond: Images, x: Images, t: Scalars) -> tuple[Images, PyTree]:
        """(guided velocity [B, ...], memory for the next step). A rule without memory hands back what it got."""
        expand_left(t, v_cond)  # most rules do not read t, and would not notice
        wide = compute_dtype(v_cond.dtype)
        arguments = (v_null.astype(wide), v_cond.astype(wide), x, t)
        v, memory = self.rule(memory, *arguments) if self.init else (self.rule(*arguments), memory)
        return v.astype(v_cond.dtype), memory

    def then(self, change: Callable[[Images, Images, Scalars], Images]) -> "Guidance":
        """This rule, its guided velocity changed by change(v, x, t)."""

        def rule(*arguments: PyTree) -> PyTree:
            *_, x, t = arguments
            if self.init is None:
                return change(self.rule(*arguments), x, t)
            v, memory = self.rule(*arguments)
            return change(v, x, t), memory

        return replace(self, rule=rule)


RULES: Registry[Guidance] = Registry("guidance", makes=Guidance)
register = RULES.register


def get(name: str, *, schedule: Schedule | str | Mapping[str, object] | None = None, **params: object) -> Guidance:
    """The rule called `name`.

    schedule: that of the training, handed to the rules that depend on it. Raises ValueError for an unknown name or
    parameter or a value out of range.
    """
    return RULES.build(name, params, offered={} if schedule is None else {"schedule": schedule})


@register("cfg")
def cfg(
    weight: Scalars = 1.0,
    interval: tuple[Number, Number] | None = None,
    interval_in: Literal["t", "log_snr"] = "t",
    schedule: Schedule | None = None,
) -> Guidance:
    """v_null + w (v_cond - v_null), inside `interval` (closed) of t or of log-SNR only; outside it w = 1 (2404.07724).

    Guidance hurts where noise is high, which is at small t. An interval in log-SNR needs the schedule.
    """
    edges = _interval_in_t(interval, interval_in, schedule)

    def rule(v_null: Images, v_cond: Images, x: Images, t: Scalars) -> Images:
        return v_cond + _weight_minus_one(weight, edges, v_cond, t) * (v_cond - v_null)

    needs_cond = edges is not None or not _is_exactly(weight, 0.0)
    return Guidance("cfg", weight, rule, _jumps(edges), not _is_exactly(weight, 1.0), needs_cond)


@register("cfg_zero_star")
def cfg_zero_star(
    weight: Scalars = 1.0, zero_until: Annotated[Number, Between(0.0, 1.0, open_high=True)] = 0.04
) -> Guidance:
    """k v_null + w (v_cond - k v_null), k = <v_cond, v_null>/|v_null|^2; zero for t < zero_until (2503.18886).

    The scale k takes out the part of v_cond that v_null already explains. The paper zeroes the first steps of a fixed
    grid (about 4 %); as a time the rule is the same for every solver.
    """

    def rule(v_null: Images, v_cond: Images, x: Images, t: Scalars) -> Images:
        k = _inner(v_cond, v_null) / (_inner(v_null, v_null) + 1e-8)
        v = v_cond + _weight_minus_one(weight, None, v_cond, t) * (v_cond - k * v_null)
        return jnp.where(expand_left(t, v) < zero_until, jnp.zeros_like(v), v)

    return Guidance("cfg_zero_star", weight, rule, _jumps((zero_until,)), not _is_exactly(weight, 1.0))


@register("apg")
def apg(
    weight: Scalars = 1.0,
    eta: Number = 0.0,
    norm_threshold: Annotated[Number, Between(0.0, math.inf, open_low=True)] = math.inf,
    momentum: Annotated[Number, Between(-1.0, 1.0, True, True)] | None = None,
    *,
    schedule: Schedule | None = None,
) -> Guidance:
    """Adaptive projected guidance, on the data predictions (2410.02416).

    Of d = X1_cond - X1_null the part along X1_cond, which oversaturates, is multiplied by eta, and |d| is limited to
    norm_threshold. eta = 1 without a limit is cfg.

    With `momentum`, which the paper takes negative, d is added to momentum times the d of the step before, and the rule
    has a memory: d. `schedule` is the one trained along, "linear" where none is given.

    Data differs from velocity by the positive factor sigma/D, so the rule is applied to velocities and nothing is
    divided by sigma; but for the earlier d, which is divided by sigma/D, or LEAST_GAIN where that is more.
    """
    if not math.isfinite(eta):
        raise ValueError(f"guidance 'apg': eta = {eta}; it must be finite")
    schedule, beta = linear() if schedule is None else schedule, momentum or 0.0

    def guided(v_cond: Images, difference: Images, data: Images, gain: Float[Array, "..."], t: Scalars) -> Images:
        update = _limit(_project(difference, data, eta), gain * _norm(difference), norm_threshold)
        return v_cond + _weight_minus_one(weight, None, v_cond, t) * update

    def rule(v_null: Images, v_cond: Images, x: Images, t: Scalars) -> Images:
        data, gain = _data_and_gain(schedule, v_cond, x, t)
        return guided(v_cond, v_cond - v_null, data, gain, t)

    def with_memory(d: Images, v_null: Images, v_cond: Images, x: Images, t: Scalars) -> tuple[Images, Images]:
        data, gain = _data_and_gain(schedule, v_cond, x, t)
        difference, d = v_cond - v_null, beta * d
        v = guided(v_cond, difference + d / jnp.maximum(gain, LEAST_GAIN), data, gain, t)
        return v, gain * difference + d

    needs_null = not _is_exactly(weight, 1.0)
    if momentum is None:
        return Guidance("apg", weight, rule, needs_null=needs_null)
    return Guidance("apg", weight, with_memory, needs_null=needs_null, init=_zeros)


@register("rescale")
def rescale(
    phi: Annotated[Number, Between(0.0, 1.0)] = 0.7,
    base: str = "cfg",
    *,
    schedule: Schedule | None = None,
    **params: object,
) -> Guidance:
    """phi v std(v_cond)/std(v) + (1 - phi) v of the rule named `base` with `params` (2305.08891); phi = 0 is `base`."""
    inner = get(base, schedule=schedule, **params)

    def with_memory(memory: PyTree, v_null: Images, v_cond: Images, x: Images, t: Scalars) -> tuple[Images, PyTree]:
        v, memory = inner.step(memory, v_null, v_cond, x, t)
        axes = tuple(range(1, v.ndim))
        deviations = [jnp.std(value, axis=axes, keepdims=True) for value in (v_cond, v)]
        ratio = deviations[0] / jnp.maximum(deviations[1], finfo(v.dtype).tiny)
        return v * (phi * ratio + (1.0 - phi)), memory

    def rule(v_null: Images, v_cond: Images, x: Images, t: Scalars) -> Images:
        return with_memory((), v_null, v_cond, x, t)[0]

    used, needs_cond = with_memory if inner.init else rule, inner.needs_cond or phi > 0.0
    return Guidance("rescale", inner.weight, used, inner.jump_times, inner.needs_null, needs_cond, inner.init)


def _zeros(x: Images) -> Images:
    return jnp.zeros(x.shape, compute_dtype(x.dtype))


def _is_exactly(weight: Scalars, value: float) -> bool:
    """True for a Python or NumPy number equal to `value`."""
    return isinstance(weight, (int, float, np.generic)) and bool(weight == value)


def _weight_minus_one(
    weight: Scalars, edges: tuple[float, float] | None, like: Images, t: Scalars
) -> Float[Array, "..."]:
    """w - 1 inside the edges and 0 outside, shaped and typed for `like`."""
    extra = expand_left(as_float(weight, "weight"), like).astype(like.dtype) - 1.0
    if edges is None:
        return extra
    t = expand_left(t, like)
    return jnp.where((t >= edges[0]) & (t <= edges[1]), extra, jnp.zeros_like(extra))


def _interval_in_t(
    interval: tuple[Number, Number] | None, interval_in: str, schedule: Schedule | None
) -> tuple[float, float] | None:
    """The interval's edges as times. ValueError where it is reversed, outside [0, 1], or lacks its schedule."""
    if interval is None:
        return None
    low, high = (float(edge) for edge in interval)
    if not low < high:
        raise ValueError(f"guidance interval is ({low}, {high}); the first edge must be below the second")
    if interval_in == "log_snr":
        if schedule is None:
            raise ValueError("a guidance interval in log_snr needs the schedule: pass schedule=schedules.get(...)")
        with jax.ensure_compile_time_eval():
            return float(schedule.inverse_log_snr(low)), float(schedule.inverse_log_snr(high))
    if low < 0.0 or high > 1.0:
        raise ValueError(f"guidance interval is ({low}, {high}); in t it must lie in [0, 1]")
    return low, high


def _jumps(edges: tuple[float, ...] | None) -> tuple[float, ...]:
    """The edges that lie strictly between 0 and 1."""
    return tuple(edge for edge in edges or () if 0.0 < edge < 1.0)


def _data_and_gain(schedule: Schedule, v: Images, x: Images, t: Scalars) -> tuple[Images, Float[Array, "..."]]:
    """E[x1 | x] from the velocity, and the factor sigma/D from a velocity difference to a data difference."""
    c = schedule.at(t)
    return weighted_sum(v.dtype, (c.data_x, x), (c.data_v, v)), expand_left(c.data_v, v).astype(v.dtype)


def _inner(first: Images, second: Images) -> Images:
    return jnp.sum(first * second, axis=tuple(range(1, first.ndim)), keepdims=True)


def _norm(value: Images) -> Images:
    return jnp.sqrt(_inner(value, value))


def _project(value: Images, direction: Images, eta: Number) -> Images:
    """`value` with its part along `direction` multiplied by eta."""
    along = _inner(value, direction) / jnp.maximum(_inner(direction, direction), finfo(value.dtype).tiny) * direction
    return value - (1.0 - eta) * along


def _limit(value: Images, norm: Images, threshold: Number) -> Images:
    """`value` times min(1, threshold / norm)."""
    return value if math.isinf(threshold) else value * (threshold / jnp.maximum(norm, threshold))
