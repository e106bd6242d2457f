"""Schedules: how data enters and noise leaves along x_t = alpha(t) x1 + sigma(t) x0, t = 0 noise, t = 1 data.

A schedule is one table of formulas in t (`Coefficients`) and the inverse of its log signal-to-noise ratio
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
    vp            exp(-B/2), sqrt(1-exp(-B))   velocity at 1                               2011.13456
    ve            1, geometric in t            nothing                                     2011.13456

`memoryless` (the g^2 = 2 sigma D / alpha of a time-reversed diffusion, 2409.08861) is infinite where alpha(0) is 0.
Where sigma'(1) is infinite, the velocity loss under uniform t diverges logarithmically: clip the times below 1.
`vp` starts at alpha(0) = 0.0066, not 0; `ve` starts at N(0, sigma_max^2): see `Schedule.prior_std`.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fmd.math.broadcasting import Number
from fmd.math.registry import build
from fmd.math.schedule_type import Coefficients, Real, Schedule

__all__ = ["SCHEDULES", "Coefficients", "Schedule", "get"]


def get(name: str, **params: Any) -> Schedule:
    """The schedule called `name`: linear (sigma_min), cosine, polynomial (n), vp (beta_min, beta_max),
    ve (sigma_max, sigma_min), linear_vp, sqrt_beta. A schedule of your own is `Schedule(alpha, sigma)`, two functions.

    Raises ValueError for an unknown name or parameter or a value out of range.
    """
    return build("schedule", SCHEDULES, name, params)


def linear(sigma_min: Number = 0.0) -> Schedule:
    """alpha = t, sigma = 1 - (1 - sigma_min) t; D = 1. With sigma_min > 0 the end is data plus N(0, sigma_min^2)."""
    if not 0.0 <= sigma_min < 1.0:
        raise ValueError(f"schedule 'linear': sigma_min is {sigma_min}; it must be in [0, 1)")
    slope = 1.0 - sigma_min

    def table(t: Real) -> Coefficients:
        s, one = 1.0 - slope * t, jnp.ones_like(t)
        return Coefficients(
            alpha=t, sigma=s, d_alpha=one, d_sigma=-slope * one, log_snr=2.0 * (jnp.log(t) - jnp.log1p(-slope * t)),
            data_x=slope * one, data_v=s, noise_x=one, noise_v=-t, memoryless=2.0 * s / t,
        )  # fmt: skip

    def inverse(log_snr: Real) -> Real:
        r = jax.nn.sigmoid(log_snr / 2.0)
        return r / (1.0 - sigma_min * r)

    return Schedule.from_table("linear", (("sigma_min", sigma_min),), table, inverse)


def cosine() -> Schedule:
    """alpha = sin(pi t/2), sigma = cos(pi t/2) written sin(pi (1 - t)/2), which is 0 and not negative at t = 1."""

    def table(t: Real) -> Coefficients:
        quarter = math.pi / 2.0
        a, s = jnp.sin(quarter * t), jnp.sin(quarter * (1.0 - t))
        return Coefficients(
            alpha=a, sigma=s, d_alpha=quarter * s, d_sigma=-quarter * a, log_snr=2.0 * (jnp.log(a) - jnp.log(s)),
            data_x=a, data_v=s / quarter, noise_x=s, noise_v=-a / quarter, memoryless=math.pi * s / a,
        )  # fmt: skip

    return Schedule.from_table("cosine", (), table, lambda log_snr: (2.0 / math.pi) * jnp.atan(jnp.exp(log_snr / 2.0)))


def polynomial(n: Number = 2.0) -> Schedule:
    """alpha = t^n, sigma = 1 - t^n, n > 0. For n > 1 the velocity vanishes at t = 0 and says nothing of the data."""
    if not 0.0 < n < math.inf:
        raise ValueError(f"schedule 'polynomial': n is {n}; it must be positive and finite")

    def table(t: Real) -> Coefficients:
        a = t**n
        # 1 - t^n loses its digits near t = 1, expm1 its derivative at t = 0: each is used where it is good.
        s = jnp.where(t > 0.5, 0.0 - jnp.expm1(n * jnp.log(jnp.maximum(t, 0.5))), 1.0 - a)
        slope, inverse_slope = n * t ** (n - 1.0), t ** (1.0 - n) / n
        return Coefficients(
            alpha=a, sigma=s, d_alpha=slope, d_sigma=-slope, log_snr=2.0 * (n * jnp.log(t) - jnp.log(s)),
            data_x=jnp.ones_like(t), data_v=s * inverse_slope, noise_x=jnp.ones_like(t), noise_v=-t / n,
            memoryless=2.0 * n * s / t,
        )  # fmt: skip

    return Schedule.from_table(
        "polynomial", (("n", n),), table, lambda log_snr: jnp.exp(jax.nn.log_sigmoid(log_snr / 2.0) / n)
    )


def linear_vp() -> Schedule:
    """alpha = t, sigma = sqrt(1 - t^2); D = 1/sigma."""

    def table(t: Real) -> Coefficients:
        s = jnp.sqrt((1.0 - t) * (1.0 + t))
        return Coefficients(
            alpha=t, sigma=s, d_alpha=jnp.ones_like(t), d_sigma=-t / s,
            log_snr=2.0 * jnp.log(t) - jnp.log1p(-t) - jnp.log1p(t),
            data_x=t, data_v=(1.0 - t) * (1.0 + t), noise_x=s, noise_v=-t * s, memoryless=2.0 / t,
        )  # fmt: skip

    return Schedule.from_table("linear_vp", (), table, lambda log_snr: jnp.exp(jax.nn.log_sigmoid(log_snr) / 2.0))


def sqrt_beta() -> Schedule:
    """alpha = t, sigma = sqrt(1 - t); D = (2 - t)/(2 sigma)."""

    def table(t: Real) -> Coefficients:
        s = jnp.sqrt(1.0 - t)
        return Coefficients(
            alpha=t, sigma=s, d_alpha=jnp.ones_like(t), d_sigma=-0.5 / s, log_snr=2.0 * jnp.log(t) - jnp.log1p(-t),
            data_x=1.0 / (2.0 - t), data_v=2.0 * (1.0 - t) / (2.0 - t),
            noise_x=2.0 * s / (2.0 - t), noise_v=-2.0 * t * s / (2.0 - t), memoryless=(2.0 - t) / t,
        )  # fmt: skip

    def inverse(log_snr: Real) -> Real:
        # t^2 = (1 - t) exp(log_snr), solved without overflow for either sign.
        r = jnp.exp(jnp.minimum(log_snr, 0.0) / 2.0)
        from_below = 2.0 * r / (r + jnp.sqrt(r * r + 4.0))
        from_above = 2.0 / (1.0 + jnp.sqrt(1.0 + 4.0 * jnp.exp(-jnp.maximum(log_snr, 0.0))))
        return jnp.where(log_snr < 0.0, from_below, from_above)

    return Schedule.from_table("sqrt_beta", (), table, inverse)


def vp(beta_min: Number = 0.1, beta_max: Number = 20.0) -> Schedule:
    """alpha = exp(-B/2), sigma = sqrt(-expm1(-B)), B(q) the integral of beta_min + q (beta_max - beta_min)."""
    if not 0.0 < beta_min <= beta_max < math.inf:
        raise ValueError(f"schedule 'vp': beta_min, beta_max are {beta_min}, {beta_max}; need 0 < beta_min <= beta_max")
    rise = beta_max - beta_min

    def table(t: Real) -> Coefficients:
        q = 1.0 - t
        b, total = beta_min + q * rise, q * (q * (rise / 2.0) + beta_min)
        a, variance = jnp.exp(-total / 2.0), -jnp.expm1(-total)
        s = jnp.sqrt(variance)
        return Coefficients(
            alpha=a, sigma=s, d_alpha=b * a / 2.0, d_sigma=-b * a * a / (2.0 * s), log_snr=-total - jnp.log(variance),
            data_x=a, data_v=2.0 * variance / (b * a), noise_x=s, noise_v=-2.0 * s / b, memoryless=b,
        )  # fmt: skip

    def inverse(log_snr: Real) -> Real:
        total = jnp.minimum(jax.nn.softplus(-log_snr), (beta_min + beta_max) / 2.0)
        return 1.0 - 2.0 * total / (beta_min + jnp.sqrt(beta_min**2 + 2.0 * rise * total))

    return Schedule.from_table("vp", (("beta_min", beta_min), ("beta_max", beta_max)), table, inverse)


def ve(sigma_max: Number = 80.0, sigma_min: Number = 0.002) -> Schedule:
    """alpha = 1, sigma = sigma_max (sigma_min/sigma_max)^t: data is never scaled. Starts at N(0, sigma_max^2)."""
    if not 0.0 < sigma_min < sigma_max < math.inf:
        raise ValueError(
            f"schedule 've': sigma_max is {sigma_max}, sigma_min {sigma_min}; need 0 < sigma_min < sigma_max"
        )
    rate = math.log(sigma_max / sigma_min)

    def table(t: Real) -> Coefficients:
        s, one = sigma_max * jnp.exp(-rate * t), jnp.ones_like(t)
        return Coefficients(
            alpha=one, sigma=s, d_alpha=0.0 * one, d_sigma=-rate * s, log_snr=2.0 * (rate * t - math.log(sigma_max)),
            data_x=one, data_v=one / rate, noise_x=0.0 * one, noise_v=-1.0 / (rate * s), memoryless=2.0 * rate * s * s,
        )  # fmt: skip

    params = (("sigma_max", sigma_max), ("sigma_min", sigma_min))
    return Schedule.from_table("ve", params, table, lambda log_snr: (math.log(sigma_max) + log_snr / 2.0) / rate)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    f.__name__: f for f in (linear, cosine, polynomial, vp, ve, linear_vp, sqrt_beta)
}
