"""Guidance: small rules that combine two predictions of the velocity into one.

`get(name, **params)` gives a rule, called as combine(v_null, v_cond, x, t): the unconditional and the conditional
velocity and x, all [B, ...], t a scalar or [B]. The weight w is 1 for conditional, 0 for unconditional sampling:

    v = v_null + w (v_cond - v_null)                                               cfg (2207.12598)

Velocity, data, noise and score are affine in one another and the rule's weights sum to 1, so guiding any of them is the
same. A guided flow is not a sample of the tilted density p_null^(1-w) p_cond^w, and the density that its field implies
is its own.

A weight may be a Python number, a traced scalar or one per example [B] (an exported program takes it as an input). Only
concrete numbers are checked, and only a concrete 1 or 0 saves the other half of the network call.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fmd.math.broadcasting import Scalars, as_float, expand_left
from fmd.math.paths import Field
from fmd.math.registry import build
from fmd.math.schedules import Schedule

Batch = Float[Array, "b ..."]
Rule = Callable[[Batch, Batch, Batch, Scalars], Batch]


@dataclass(frozen=True)
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
        """The guided velocity [B, ...], in the dtype of v_cond."""
        return self.rule(v_null, v_cond, x, t)


def get(name: str, **params: Any) -> Guidance:
    """The rule called `name`. ValueError for an unknown name or parameter or a value out of range."""
    return build("guidance", RULES, name, params)


def cfg(
    weight: Scalars = 1.0,
    interval: tuple[float, float] | None = None,
    interval_in: str = "t",
    schedule: Schedule | None = None,
) -> Guidance:
    """v_null + w (v_cond - v_null), inside `interval` (closed) of t or of log-SNR only; outside it w = 1 (2404.07724).

    Guidance hurts where noise is high, which is at small t. An interval in log-SNR needs the schedule.
    """
    check_weight(weight)
    edges = interval_in_t(interval, interval_in, schedule)

    def rule(v_null: Batch, v_cond: Batch, x: Batch, t: Scalars) -> Batch:
        return v_cond + weight_minus_one(weight, edges, v_cond, t) * (v_cond - v_null)

    always = edges is None
    return Guidance(
        "cfg", weight, rule, jumps(edges),
        needs_null=not is_exactly(weight, 1.0), needs_cond=not (always and is_exactly(weight, 0.0)),
    )  # fmt: skip


def guided_field(predict: Callable[..., Batch], null_label: int, combine: Guidance) -> Field:
    """field(t, x, args) with labels int32 [B] as args, from predict(x [B, ...], t [B], y [B]) -> velocity [B, ...].

    Both halves are one call of `predict` on 2B rows, each null row beside its conditional row: a batch that is
    sharded over devices stays where it is. Where the rule does not need a half, the call has B rows.
    """

    def field(t: Scalars, x: Batch, args: Any = None) -> Batch:
        if args is None:
            raise ValueError("a guided field needs the labels, int32 [B], as args")
        labels = jnp.asarray(args)
        t_rows = times_of_rows(t, x)
        null = jnp.full_like(labels, null_label)
        if not combine.needs_null:
            v = predict(x, t_rows, labels)
            return combine(v, v, x, t)
        if not combine.needs_cond:
            v = predict(x, t_rows, null)
            return combine(v, v, x, t)
        v = predict(_interleave(x, x), _interleave(t_rows, t_rows), _interleave(null, labels))
        v = v.reshape(x.shape[0], 2, *v.shape[1:])
        return combine(v[:, 0], v[:, 1], x, t)

    return field


def times_of_rows(t: Scalars, x: Batch) -> Float[Array, " b"]:
    """`t` as one float32 (or, beside float64 x, float64) per row of x."""
    rows = expand_left(t, x).astype(jnp.promote_types(x.dtype, jnp.float32)).reshape(-1)
    return jnp.broadcast_to(rows, x.shape[:1])


def _interleave(first: Array, second: Array) -> Array:
    return jnp.stack([first, second], axis=1).reshape(-1, *first.shape[1:])


def check_weight(weight: Scalars) -> None:
    """ValueError where a concrete (Python or NumPy) weight is NaN or infinite; a traced one cannot be looked at."""
    if isinstance(weight, (int, float, np.ndarray, np.generic)) and not np.all(np.isfinite(weight)):
        raise ValueError(f"guidance weight is {weight}; it must be finite")


def is_exactly(weight: Scalars, value: float) -> bool:
    """Whether the weight is a concrete Python or NumPy number equal to `value`."""
    return isinstance(weight, (int, float, np.generic)) and bool(weight == value)


def weight_minus_one(
    weight: Scalars, edges: tuple[float, float] | None, like: Batch, t: Scalars
) -> Float[Array, "..."]:
    """w - 1 inside the edges and 0 outside, shaped and typed for `like`."""
    extra = expand_left(as_float(weight, "weight"), like).astype(like.dtype) - 1.0
    if edges is None:
        return extra
    t = expand_left(t, like)
    return jnp.where((t >= edges[0]) & (t <= edges[1]), extra, jnp.zeros_like(extra))


def interval_in_t(
    interval: tuple[float, float] | None, interval_in: str, schedule: Schedule | None
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


def jumps(edges: tuple[float, float] | None) -> tuple[float, ...]:
    """The edges that lie strictly between 0 and 1."""
    return tuple(edge for edge in edges or () if 0.0 < edge < 1.0)


RULES: dict[str, Callable[..., Guidance]] = {"cfg": cfg}
