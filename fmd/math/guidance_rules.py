"""The guidance rules: what each does with v_null, v_cond [B, ...], x [B, ...] and t. The page on them is `guidance`.

Norms, inner products and deviations are taken per example, over all axes but the first.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fmd.math.broadcasting import Number, Scalars, as_float, concrete, expand_left, weighted_sum
from fmd.math.registry import build
from fmd.math.schedules import Schedule, linear

Batch = Float[Array, "b ..."]
Rule = Callable[[Batch, Batch, Batch, Scalars], Batch]


@dataclass(frozen=True, eq=False)
class Guidance:
    """A guidance rule with what a sampler must know of it.

    `jump_times`: the times in (0, 1) where the rule is discontinuous, for adaptive solvers.
    `needs_null`, `needs_cond`: whether the prediction is used at all; `evaluations`: model calls per example and step.
    """

    name: str
    weight: Scalars
    rule: Rule
    jump_times: tuple[float, ...] = ()
    needs_null: bool = True
    needs_cond: bool = True

    @property
    def evaluations(self) -> int:
        return int(self.needs_null) + int(self.needs_cond)

    def __call__(self, v_null: Batch, v_cond: Batch, x: Batch, t: Scalars) -> Batch:
        """The guided velocity [B, ...], in the dtype of v_cond. ValueError where t is neither a scalar nor [B]."""
        expand_left(t, v_cond)  # most rules do not read t, and would not notice
        return self.rule(v_null, v_cond, x, t)


def cfg(
    weight: Scalars = 1.0,
    interval: tuple[Number, Number] | None = None,
    interval_in: str = "t",
    schedule: Schedule | None = None,
) -> Guidance:
    """v_null + w (v_cond - v_null), inside `interval` (closed) of t or of log-SNR only; outside it w = 1 (2404.07724).

    Guidance hurts where noise is high, which is at small t. An interval in log-SNR needs the schedule.
    """
    _check_weight(weight)
    edges = _interval_in_t(interval, interval_in, schedule)

    def rule(v_null: Batch, v_cond: Batch, x: Batch, t: Scalars) -> Batch:
        return v_cond + _weight_minus_one(weight, edges, v_cond, t) * (v_cond - v_null)

    always = edges is None
    return Guidance(
        "cfg", weight, rule, _jumps(edges),
        needs_null=not _is_exactly(weight, 1.0), needs_cond=not (always and _is_exactly(weight, 0.0)),
    )  # fmt: skip


def cfg_zero_star(weight: Scalars = 1.0, zero_until: Number = 0.04) -> Guidance:
    """k v_null + w (v_cond - k v_null), k = <v_cond, v_null>/|v_null|^2; zero for t < zero_until (2503.18886).

    The scale k takes out the part of v_cond that v_null already explains. The paper zeroes the first steps of a fixed
    grid (about 4 %); as a time the rule is the same for every solver.
    """
    _check_weight(weight)
    if not 0.0 <= zero_until < 1.0:
        raise ValueError(f"guidance 'cfg_zero_star': zero_until is {zero_until}; it must be a time in [0, 1)")

    def rule(v_null: Batch, v_cond: Batch, x: Batch, t: Scalars) -> Batch:
        k = _inner(v_cond, v_null) / (_inner(v_null, v_null) + 1e-8)
        v = v_cond + _weight_minus_one(weight, None, v_cond, t) * (v_cond - k * v_null)
        return jnp.where(expand_left(t, v) < zero_until, jnp.zeros_like(v), v)

    needs_null = not _is_exactly(weight, 1.0)
    return Guidance("cfg_zero_star", weight, rule, _jumps((zero_until,)), needs_null=needs_null)


def apg(
    weight: Scalars = 1.0, eta: Number = 0.0, norm_threshold: Number = math.inf, *, schedule: Schedule | None = None
) -> Guidance:
    """Adaptive projected guidance in data space (2410.02416): of d = X1_cond - X1_null, the part along X1_cond, which
    oversaturates, is multiplied by eta, and |d| is limited to norm_threshold. eta = 1 without a limit is cfg.

    Data differs from velocity by the positive factor sigma/D, so the rule is applied to velocities: nothing is divided
    by sigma. `schedule` is the one trained along, "linear" where none is given. The paper's momentum is
    `apg_momentum_step`.
    """
    schedule = linear() if schedule is None else schedule
    _check_weight(weight)
    _check_apg(eta, norm_threshold)

    def rule(v_null: Batch, v_cond: Batch, x: Batch, t: Scalars) -> Batch:
        data, gain = _data_and_gain(schedule, v_cond, x, t)
        difference = v_cond - v_null
        update = _limit(_project(difference, data, eta), gain * _norm(difference), norm_threshold)
        return v_cond + _weight_minus_one(weight, None, v_cond, t) * update

    return Guidance("apg", weight, rule, needs_null=not _is_exactly(weight, 1.0))


def apg_momentum_step(
    average: Batch,
    v_null: Batch,
    v_cond: Batch,
    x: Batch,
    t: Scalars,
    *,
    schedule: Schedule,
    weight: Scalars,
    momentum: Number = -0.5,
    eta: Number = 0.0,
    norm_threshold: Number = math.inf,
) -> tuple[Batch, Batch]:
    """One step of apg with momentum: d = X1_cond - X1_null + momentum * average; returns (velocity, d).

    Start from average = zeros and pass d on as the next average. Being state, it belongs in a fixed-step loop; it
    divides by sigma/D, so use a solver that does not evaluate the field at t = 1 (Euler, midpoint).
    """
    _check_weight(weight)
    _check_apg(eta, norm_threshold)
    data, gain = _data_and_gain(schedule, v_cond, x, t)
    d = gain * (v_cond - v_null) + momentum * average
    update = _limit(_project(d, data, eta), _norm(d), norm_threshold)
    return v_cond + _weight_minus_one(weight, None, v_cond, t) * update / gain, d


def rescale(phi: Number = 0.7, base: str = "cfg", **params: Any) -> Guidance:
    """phi v std(v_cond)/std(v) + (1 - phi) v of the rule named `base` with `params` (2305.08891); phi = 0 is `base`."""
    if not 0.0 <= phi <= 1.0:
        raise ValueError(f"guidance 'rescale': phi is {phi}; it must be in [0, 1]")
    inner = build("guidance", RULES, base, params)

    def rule(v_null: Batch, v_cond: Batch, x: Batch, t: Scalars) -> Batch:
        v = inner(v_null, v_cond, x, t)
        axes = tuple(range(1, v.ndim))
        deviations = [jnp.std(value, axis=axes, keepdims=True) for value in (v_cond, v)]
        ratio = deviations[0] / jnp.maximum(deviations[1], jnp.finfo(v.dtype).tiny)
        return v * (phi * ratio + (1.0 - phi))

    needs_cond = inner.needs_cond or phi > 0.0
    return Guidance("rescale", inner.weight, rule, inner.jump_times, inner.needs_null, needs_cond)


RULES: dict[str, Callable[..., Guidance]] = {f.__name__: f for f in (cfg, cfg_zero_star, apg, rescale)}


def _check_weight(weight: Scalars) -> None:
    """ValueError where a weight is NaN or infinite; a traced one cannot be looked at."""
    if concrete(weight) and not np.all(np.isfinite(weight)):
        raise ValueError(f"guidance weight is {weight}; it must be finite")


def _is_exactly(weight: Scalars, value: float) -> bool:
    """Whether the weight is a concrete Python or NumPy number equal to `value`."""
    return isinstance(weight, (int, float, np.generic)) and bool(weight == value)


def _weight_minus_one(
    weight: Scalars, edges: tuple[float, float] | None, like: Batch, t: Scalars
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
    if interval_in not in ("t", "log_snr"):
        raise ValueError(f"interval_in is {interval_in!r}; it must be 't' or 'log_snr'")
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


def _check_apg(eta: Number, norm_threshold: Number) -> None:
    if not math.isfinite(eta):
        raise ValueError(f"guidance 'apg': eta is {eta}; it must be finite")
    if not norm_threshold > 0.0:
        raise ValueError(f"guidance 'apg': norm_threshold is {norm_threshold}; it must be positive (inf for none)")


def _data_and_gain(schedule: Schedule, v: Batch, x: Batch, t: Scalars) -> tuple[Batch, Float[Array, "..."]]:
    """E[x1 | x] from the velocity, and the factor sigma/D from a velocity difference to a data difference."""
    c = schedule.at(t)
    return weighted_sum(v.dtype, (c.data_x, x), (c.data_v, v)), expand_left(c.data_v, v).astype(v.dtype)


def _inner(first: Batch, second: Batch) -> Batch:
    return jnp.sum(first * second, axis=tuple(range(1, first.ndim)), keepdims=True)


def _norm(value: Batch) -> Batch:
    return jnp.sqrt(_inner(value, value))


def _project(value: Batch, direction: Batch, eta: Number) -> Batch:
    """`value` with its part along `direction` multiplied by eta."""
    tiny = jnp.finfo(value.dtype).tiny
    along = _inner(value, direction) / jnp.maximum(_inner(direction, direction), tiny) * direction
    return value - (1.0 - eta) * along


def _limit(value: Batch, norm: Batch, threshold: float) -> Batch:
    """`value` times min(1, threshold / norm)."""
    return value if math.isinf(threshold) else value * (threshold / jnp.maximum(norm, threshold))
