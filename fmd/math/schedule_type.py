"""What a schedule is: a table of coefficients in t and the inverse of its log-SNR; also one made of a user's functions.

The meaning of each coefficient, and the seven named schedules, are in `schedules`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmd.math.broadcasting import Scalars, as_float

Real = Float[Array, "..."]


class Coefficients(NamedTuple):
    """Everything a schedule says at t; each entry has the shape and dtype of t."""

    alpha: Real
    sigma: Real
    d_alpha: Real
    d_sigma: Real
    log_snr: Real
    data_x: Real
    data_v: Real
    noise_x: Real
    noise_v: Real
    memoryless: Real


@dataclass(frozen=True, init=False)
class Schedule:
    """A schedule: `Schedule(alpha, sigma)` is one of a user's two functions, `schedules.get(name)` a named one.

    Two schedules are equal, and share one jit trace, if name and parameters are equal.
    """

    name: str
    params: tuple[tuple[str, Any], ...]
    table: Callable[[Real], Coefficients] = field(compare=False, repr=False)
    inverse: Callable[[Real], Real] = field(compare=False, repr=False)

    def __init__(self, alpha: Callable[[Real], Any], sigma: Callable[[Real], Any], name: str = "custom") -> None:
        """From two elementwise functions of t: derivatives by forward differentiation, the inverse by bisection.

        Raises ValueError where sigma is negative or the signal-to-noise ratio does not grow, as when time runs from
        data to noise. Quotients that are 0/0 at an end stay so; `from_table` is for schedules where an end matters.
        """
        table = _derive_table(alpha, sigma)
        self._set(name, (("alpha", alpha), ("sigma", sigma)), table, partial(_invert, lambda t: table(t).log_snr))
        with jax.ensure_compile_time_eval():
            c = self.at(jnp.linspace(0.05, 0.95, 19))
            if not bool(jnp.all((c.sigma > 0) & (c.alpha >= 0) & (c.d_alpha * c.sigma > c.alpha * c.d_sigma))):
                raise ValueError(
                    f"schedule {name!r}: need alpha >= 0, sigma > 0 and alpha/sigma growing (t = 1 is data)"
                )

    @classmethod
    def from_table(
        cls,
        name: str,
        params: tuple[tuple[str, Any], ...],
        table: Callable[[Real], Coefficients],
        inverse: Callable[[Real], Real],
    ) -> "Schedule":
        """A schedule whose formulas, and the inverse of whose log-SNR, are written out."""
        schedule = cls.__new__(cls)
        schedule._set(name, params, table, inverse)
        return schedule

    def _set(self, name: str, params: Any, table: Any, inverse: Any) -> None:
        for key, value in {"name": name, "params": params, "table": table, "inverse": inverse}.items():
            object.__setattr__(self, key, value)  # the dataclass is frozen

    def at(self, t: Scalars) -> Coefficients:
        """All coefficients at t (any shape, float32 or float64, or a Python float). ValueError for a narrower dtype."""
        return self.table(as_float(t))

    def alpha(self, t: Scalars) -> Real:
        """Weight of the data in x_t."""
        return self.at(t).alpha

    def sigma(self, t: Scalars) -> Real:
        """Weight of the noise in x_t."""
        return self.at(t).sigma

    def d_alpha(self, t: Scalars) -> Real:
        """Time derivative of alpha."""
        return self.at(t).d_alpha

    def d_sigma(self, t: Scalars) -> Real:
        """Time derivative of sigma."""
        return self.at(t).d_sigma

    def log_snr(self, t: Scalars) -> Real:
        """log(alpha^2 / sigma^2); -inf where alpha is 0, +inf where sigma is 0."""
        return self.at(t).log_snr

    def inverse_log_snr(self, log_snr: Scalars) -> Real:
        """The t in [0, 1] of a log-SNR (any shape); the nearest end where the schedule never reaches it."""
        return jnp.clip(self.inverse(as_float(log_snr, "log_snr")), 0.0, 1.0)

    @property
    def prior_std(self) -> float:
        """sigma(0): sampling starts from N(0, prior_std^2). 1 but for `ve`, whose start is sigma_max wide."""
        with jax.ensure_compile_time_eval():
            return float(self.sigma(0.0))

    @property
    def singular_times(self) -> tuple[float, ...]:
        """The ends (of 0.0 and 1.0) where alpha' or sigma', hence the velocity, is infinite."""
        return self._ends_where_infinite("d_alpha", "d_sigma")

    @property
    def silent_times(self) -> tuple[float, ...]:
        """The ends where the velocity does not determine both posterior means (polynomial with n > 1 at 0)."""
        return self._ends_where_infinite("data_v", "noise_v")

    def _ends_where_infinite(self, *names: str) -> tuple[float, ...]:
        with jax.ensure_compile_time_eval():
            ends = [(t, self.at(t)) for t in (0.0, 1.0)]
            return tuple(t for t, c in ends if not all(bool(jnp.isfinite(getattr(c, name))) for name in names))


def _derive_table(alpha: Callable[[Real], Any], sigma: Callable[[Real], Any]) -> Callable[[Real], Coefficients]:
    """The whole table from its first two entries."""

    def shaped(function: Callable[[Real], Any]) -> Callable[[Real], Real]:
        return lambda t: jnp.broadcast_to(jnp.asarray(function(t), t.dtype), t.shape)

    def table(t: Real) -> Coefficients:
        a, da = jax.jvp(shaped(alpha), (t,), (jnp.ones_like(t),))
        s, ds = jax.jvp(shaped(sigma), (t,), (jnp.ones_like(t),))
        d = da * s - a * ds
        return Coefficients(
            alpha=a, sigma=s, d_alpha=da, d_sigma=ds, log_snr=2.0 * (jnp.log(a) - jnp.log(s)),
            data_x=-ds / d, data_v=s / d, noise_x=da / d, noise_v=-a / d, memoryless=2.0 * s * d / a,
        )  # fmt: skip

    return table


def _invert(increasing: Callable[[Real], Real], target: Real) -> Real:
    """Bisection on [0, 1], then one Newton step, which also carries the derivative 1 / increasing'(t)."""
    target = jnp.asarray(target)
    low, high = jnp.zeros_like(target), jnp.ones_like(target)

    def halve(_: Any, ends: tuple[Real, Real]) -> tuple[Real, Real]:
        middle = (ends[0] + ends[1]) / 2.0
        below = increasing(middle) < target
        return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

    low, high = jax.lax.fori_loop(0, jnp.finfo(target.dtype).nmant + 8, halve, (low, high))
    root = jax.lax.stop_gradient((low + high) / 2.0)
    value, slope = jax.jvp(increasing, (root,), (jnp.ones_like(root),))
    smooth = jnp.isfinite(value) & jnp.isfinite(target) & jnp.isfinite(slope) & (slope > 0)
    return jnp.where(smooth, root - jnp.where(smooth, value - target, 0.0) / jnp.where(smooth, slope, 1.0), root)
