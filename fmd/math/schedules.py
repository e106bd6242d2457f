"""Schedules: the weights of data and noise along x_t = alpha(t) x1 + sigma(t) x0.

A schedule is a table of formulas in t (`Coefficients`) and the inverse of its log signal-to-noise ratio
log_snr = log(alpha^2 / sigma^2), which grows with t. With D = alpha' sigma - alpha sigma' > 0 the path and its velocity

    x = alpha X1 + sigma E0,    v = alpha' X1 + sigma' E0

are solved for the posterior means X1 = E[x1 | x] (data) and E0 = E[x0 | x] (noise) by

    X1 = data_x x + data_v v      data_x = -sigma'/D    data_v = sigma/D
    E0 = noise_x x + noise_v v    noise_x = alpha'/D    noise_v = -alpha/D

These four are written per schedule in the form that stays finite and accurate at both ends: where sigma' and D are
infinite at t = 1, their ratio is not. The quotients that have no finite limit are listed per schedule below.

    name          alpha, sigma                 infinite at an end                          paper
    linear        t, 1 - (1 - sigma_min) t     nothing                                     2210.02747, 2209.03003
    cosine        sin(pi t/2), cos(pi t/2)     nothing                                     2303.08797
    polynomial    t^n, 1 - t^n                 n > 1: data_v at 0; n < 1: velocity at 0    2412.06264
    linear_vp     t, sqrt(1 - t^2)             velocity at 1 (sigma' = -inf)               2303.08797
    sqrt_beta     t, sqrt(1 - t)               velocity at 1                               2506.02070
    vp            exp(-B/2), sqrt(1-exp(-B))   velocity at 1; alpha(0) is 0.0066           2011.13456
    ve            1, geometric in t            nothing                                     2011.13456

Parameters: linear (sigma_min), polynomial (n), vp (beta_min, beta_max), ve (sigma_max, sigma_min).
`memoryless` (the g^2 = 2 sigma D / alpha of a time-reversed diffusion, 2409.08861) is infinite where alpha(0) is 0.
Where sigma'(1) is infinite, the velocity loss under uniform t diverges logarithmically: clip the times below 1.

A schedule of your own is two functions, under a name for configs:

    @schedules.register("square")
    def square(power: float = 2.0) -> Schedule:
        return schedules.from_functions(lambda t: t, lambda t: (1 - t) ** power, "square", (power,))
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fmd.math.broadcasting import Positive, as_float, finfo
from fmd.registry import Between, Registry
from fmd.types import Number, Scalars

Real = Float[Array, "..."]
Curve = Callable[[Real], Real | Number]


class Coefficients(NamedTuple):
    """The values of a schedule at t; each has the shape and dtype of t."""

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


@dataclass(frozen=True)
class Schedule:
    """alpha, sigma and what follows from them: `table` maps t to Coefficients, `inverse` log_snr to t.

    Schedules of equal name and (hashable) params are equal, and share one jit trace.
    """

    name: str
    params: tuple[object, ...]
    table: Callable[[Real], Coefficients] = field(compare=False, repr=False)
    inverse: Callable[[Real], Real] = field(compare=False, repr=False)

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
        """sigma(0): sampling starts from N(0, prior_std^2). 1 but for `ve`, where it is sigma_max."""
        return float(_at_ends(self, ("sigma",), jnp.result_type(float))[0, 0])

    @property
    def singular_times(self) -> tuple[float, ...]:
        """The ends (of 0.0 and 1.0) where alpha' or sigma', hence the velocity, is infinite."""
        return self._ends_where_infinite("d_alpha", "d_sigma")

    @property
    def silent_times(self) -> tuple[float, ...]:
        """The ends where the velocity does not determine both posterior means (polynomial with n > 1 at 0)."""
        return self._ends_where_infinite("data_v", "noise_v")

    def _ends_where_infinite(self, *names: str) -> tuple[float, ...]:
        finite = np.isfinite(_at_ends(self, names, jnp.result_type(float))).all(axis=0)
        return tuple(t for t, known in zip((0.0, 1.0), finite, strict=True) if not known)


@cache
def _at_ends(schedule: Schedule, names: tuple[str, ...], dtype: np.dtype) -> Float[np.ndarray, "names 2"]:
    """These coefficients at 0 and at 1, also inside a trace.

    They are computed by one program. One per operation of a table would be what a start waits for.
    """
    table = jax.jit(lambda t: [getattr(schedule.at(t), name) for name in names])
    ends = table.lower(jax.ShapeDtypeStruct((2,), dtype)).compile()(np.array([0.0, 1.0], dtype))
    return np.stack(jax.device_get(ends))


SCHEDULES: Registry[Schedule] = Registry("schedule", makes=Schedule)
register = SCHEDULES.register


def get(name: str, **params: object) -> Schedule:
    """The schedule called `name`. ValueError for an unknown name or parameter or a value out of range."""
    return SCHEDULES.build(name, params)


@register("linear")
def linear(sigma_min: Annotated[Number, Between(0.0, 1.0, open_high=True)] = 0.0) -> Schedule:
    """alpha = t, sigma = 1 - (1 - sigma_min) t; D = 1. With sigma_min > 0 the end is data plus N(0, sigma_min^2)."""
    slope = 1.0 - sigma_min

    def table(t: Real) -> Coefficients:
        s, one = 1.0 - slope * t, jnp.ones_like(t)
        return Coefficients(
            alpha=t, sigma=s, d_alpha=one, d_sigma=-slope * one, log_snr=2.0 * (jnp.log(t) - jnp.log1p(-slope * t)),
            data_x=slope * one, data_v=s, noise_x=one, noise_v=-t, memoryless=2.0 * s / t)  # fmt: skip

    def inverse(log_snr: Real) -> Real:
        r = jax.nn.sigmoid(log_snr / 2.0)
        return r / (1.0 - sigma_min * r)

    return Schedule("linear", (sigma_min,), table, inverse)


@register("cosine")
def cosine() -> Schedule:
    """alpha = sin(pi t/2), sigma = cos(pi t/2) written sin(pi (1 - t)/2), which is 0 and not negative at t = 1."""
    quarter = math.pi / 2.0

    def table(t: Real) -> Coefficients:
        a, s = jnp.sin(quarter * t), jnp.sin(quarter * (1.0 - t))
        return Coefficients(
            alpha=a, sigma=s, d_alpha=quarter * s, d_sigma=-quarter * a, log_snr=2.0 * (jnp.log(a) - jnp.log(s)),
            data_x=a, data_v=s / quarter, noise_x=s, noise_v=-a / quarter, memoryless=math.pi * s / a)  # fmt: skip

    return Schedule("cosine", (), table, lambda log_snr: (2.0 / math.pi) * jnp.atan(jnp.exp(log_snr / 2.0)))


@register("polynomial")
def polynomial(n: Positive = 2.0) -> Schedule:
    """alpha = t^n, sigma = 1 - t^n, n > 0. For n > 1 the velocity vanishes at t = 0 and says nothing of the data."""

    def table(t: Real) -> Coefficients:
        a = t**n
        # 1 - t^n loses its digits near t = 1, expm1 its derivative at t = 0: each is used where it is good.
        s = jnp.where(t > 0.5, 0.0 - jnp.expm1(n * jnp.log(jnp.maximum(t, 0.5))), 1.0 - a)
        slope, inverse_slope = n * t ** (n - 1.0), t ** (1.0 - n) / n
        return Coefficients(
            alpha=a, sigma=s, d_alpha=slope, d_sigma=-slope, log_snr=2.0 * (n * jnp.log(t) - jnp.log(s)),
            data_x=jnp.ones_like(t), data_v=s * inverse_slope, noise_x=jnp.ones_like(t), noise_v=-t / n,
            memoryless=2.0 * n * s / t)  # fmt: skip

    return Schedule("polynomial", (n,), table, lambda log_snr: jnp.exp(jax.nn.log_sigmoid(log_snr / 2.0) / n))


@register("linear_vp")
def linear_vp() -> Schedule:
    """alpha = t, sigma = sqrt(1 - t^2); D = 1/sigma."""

    def table(t: Real) -> Coefficients:
        s, one = jnp.sqrt((1.0 - t) * (1.0 + t)), jnp.ones_like(t)
        return Coefficients(
            alpha=t, sigma=s, d_alpha=one, d_sigma=-t / s, log_snr=2.0 * jnp.log(t) - jnp.log1p(-t) - jnp.log1p(t),
            data_x=t, data_v=(1.0 - t) * (1.0 + t), noise_x=s, noise_v=-t * s, memoryless=2.0 / t)  # fmt: skip

    return Schedule("linear_vp", (), table, lambda log_snr: jnp.exp(jax.nn.log_sigmoid(log_snr) / 2.0))


@register("sqrt_beta")
def sqrt_beta() -> Schedule:
    """alpha = t, sigma = sqrt(1 - t); D = (2 - t)/(2 sigma)."""

    def table(t: Real) -> Coefficients:
        s = jnp.sqrt(1.0 - t)
        return Coefficients(
            alpha=t, sigma=s, d_alpha=jnp.ones_like(t), d_sigma=-0.5 / s, log_snr=2.0 * jnp.log(t) - jnp.log1p(-t),
            data_x=1.0 / (2.0 - t), data_v=2.0 * (1.0 - t) / (2.0 - t),
            noise_x=2.0 * s / (2.0 - t), noise_v=-2.0 * t * s / (2.0 - t), memoryless=(2.0 - t) / t)  # fmt: skip

    def inverse(log_snr: Real) -> Real:
        # t^2 = (1 - t) exp(log_snr), solved without overflow for either sign.
        r = jnp.exp(jnp.minimum(log_snr, 0.0) / 2.0)
        from_below = 2.0 * r / (r + jnp.sqrt(r * r + 4.0))
        from_above = 2.0 / (1.0 + jnp.sqrt(1.0 + 4.0 * jnp.exp(-jnp.maximum(log_snr, 0.0))))
        return jnp.where(log_snr < 0.0, from_below, from_above)

    return Schedule("sqrt_beta", (), table, inverse)


@register("vp")
def vp(beta_min: Number = 0.1, beta_max: Number = 20.0) -> Schedule:
    """alpha = exp(-B/2), sigma = sqrt(1 - exp(-B)), B = q^2 (beta_max - beta_min)/2 + q beta_min, q = 1 - t."""
    if not 0.0 < beta_min <= beta_max < math.inf:
        raise ValueError(f"schedule 'vp': {beta_min = }, {beta_max = }; need 0 < beta_min <= beta_max")
    rise = beta_max - beta_min

    def table(t: Real) -> Coefficients:
        q = 1.0 - t
        b, total = beta_min + q * rise, q * (q * (rise / 2.0) + beta_min)
        a, variance = jnp.exp(-total / 2.0), -jnp.expm1(-total)
        s = jnp.sqrt(variance)
        return Coefficients(
            alpha=a, sigma=s, d_alpha=b * a / 2.0, d_sigma=-b * a * a / (2.0 * s), log_snr=-total - jnp.log(variance),
            data_x=a, data_v=2.0 * variance / (b * a), noise_x=s, noise_v=-2.0 * s / b, memoryless=b)  # fmt: skip

    def inverse(log_snr: Real) -> Real:
        total = jnp.minimum(jax.nn.softplus(-log_snr), (beta_min + beta_max) / 2.0)
        return 1.0 - 2.0 * total / (beta_min + jnp.sqrt(beta_min**2 + 2.0 * rise * total))

    return Schedule("vp", (beta_min, beta_max), table, inverse)


@register("ve")
def ve(sigma_max: Number = 80.0, sigma_min: Number = 0.002) -> Schedule:
    """alpha = 1, sigma = sigma_max (sigma_min/sigma_max)^t: data is never scaled. Starts at N(0, sigma_max^2)."""
    if not 0.0 < sigma_min < sigma_max < math.inf:
        raise ValueError(f"schedule 've': {sigma_max = }, {sigma_min = }; need 0 < sigma_min < sigma_max")
    top, rate = math.log(sigma_max), math.log(sigma_max / sigma_min)

    def table(t: Real) -> Coefficients:
        s, one = sigma_max * jnp.exp(-rate * t), jnp.ones_like(t)
        return Coefficients(
            alpha=one, sigma=s, d_alpha=0.0 * one, d_sigma=-rate * s, log_snr=2.0 * (rate * t - top), data_x=one,
            data_v=one / rate, noise_x=0.0 * one, noise_v=-1.0 / (rate * s), memoryless=2.0 * rate * s * s)  # fmt: skip

    return Schedule("ve", (sigma_max, sigma_min), table, lambda log_snr: (top + log_snr / 2.0) / rate)


def from_functions(alpha: Curve, sigma: Curve, name: str | None = None, params: tuple[object, ...] = ()) -> Schedule:
    """A schedule of two elementwise functions: derivatives by forward differentiation, the inverse by bisection.

    Name and params tell it from other schedules; without a name the functions do. Quotients that are 0/0 at an end stay
    so: where an end matters, write out a `Schedule`. ValueError where sigma is negative or alpha/sigma does not grow.
    """

    def shaped(function: Curve) -> Callable[[Real], Real]:
        return lambda t: jnp.broadcast_to(jnp.asarray(function(t), t.dtype), t.shape)

    def table(t: Real) -> Coefficients:
        (a, da), (s, ds) = (jax.jvp(shaped(f), (t,), (jnp.ones_like(t),)) for f in (alpha, sigma))
        d = da * s - a * ds
        return Coefficients(
            alpha=a, sigma=s, d_alpha=da, d_sigma=ds, log_snr=2.0 * (jnp.log(a) - jnp.log(s)),
            data_x=-ds / d, data_v=s / d, noise_x=da / d, noise_v=-a / d, memoryless=2.0 * s * d / a)  # fmt: skip

    name, params = (name, params) if name else ("custom", (alpha, sigma))
    with jax.ensure_compile_time_eval():
        c = table(jnp.linspace(0.05, 0.95, 19))
        if not bool(jnp.all((c.sigma > 0) & (c.alpha >= 0) & (c.d_alpha * c.sigma > c.alpha * c.d_sigma))):
            raise ValueError(f"schedule {name!r}: need alpha >= 0, sigma > 0 and alpha/sigma growing (t = 1 is data)")
    return Schedule(name, params, table, partial(_invert, lambda t: table(t).log_snr))


def _invert(increasing: Callable[[Real], Real], target: Real) -> Real:
    """Bisection on [0, 1], then one Newton step, which also carries the derivative 1 / increasing'(t)."""

    def halve(_: object, ends: tuple[Real, Real]) -> tuple[Real, Real]:
        middle = (ends[0] + ends[1]) / 2.0
        below = increasing(middle) < target
        return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

    start = (jnp.zeros_like(target), jnp.ones_like(target))
    low, high = jax.lax.fori_loop(0, finfo(target.dtype).nmant + 8, halve, start)
    root = jax.lax.stop_gradient((low + high) / 2.0)
    value, slope = jax.jvp(increasing, (root,), (jnp.ones_like(root),))
    smooth = jnp.isfinite(value) & jnp.isfinite(target) & jnp.isfinite(slope) & (slope > 0)
    return jnp.where(smooth, root - jnp.where(smooth, value - target, 0.0) / jnp.where(smooth, slope, 1.0), root)
