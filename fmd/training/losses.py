"""Conditional flow matching with label dropout: what one training step minimises.

For a pair of noise x0 and image x1 and a time t, the network sees x_t = alpha(t) x1 + sigma(t) x0 and is regressed on
the velocity alpha'(t) x1 + sigma'(t) x0 (arXiv 2210.02747), or on x1 or x0. Its label is replaced by the null label
with probability `label_dropout`, so that one network learns the conditional and the unconditional field
(arXiv 2207.12598). The target is never computed through a division by sigma.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fmd.math import paths

Predict = Callable[[Array, Array, Array], Array]  # (x [B, H, W, C], t [B], y [B]) -> [B, H, W, C]


@dataclass(frozen=True)
class Objective:
    """What the network is trained to predict, and how its error is weighed."""

    schedule: Any  # fmd.math.schedules.Schedule
    prediction: str = "velocity"  # or "data", "noise"
    loss: str = "squared"  # or "pseudo_huber"
    weighting: str = "prediction"  # or "velocity"


@dataclass(frozen=True)
class Draws:
    """The random numbers of one batch."""

    x0: Float[Array, "B H W C"]
    t: Float[Array, " B"]
    drop_label: Bool[Array, " B"]


def cfg_flow_matching_loss(
    predict: Predict,
    x1: Float[Array, "B H W C"],
    labels: Int[Array, " B"],
    draws: Draws,
    objective: Objective,
    *,
    null_label: int,
) -> Float[Array, " B"]:
    """The loss of each example, [B] float32: the mean over pixels and channels, weighed.

    An untrained network with a zero-initialised output has, for the linear schedule and the velocity, the expected
    loss E[x1^2] + 1.
    """
    x_t = paths.interpolate(objective.schedule, draws.x0, x1, draws.t)
    targets = {
        "velocity": lambda: paths.velocity(objective.schedule, draws.x0, x1, draws.t),
        "data": lambda: x1,
        "noise": lambda: draws.x0,
    }
    seen_labels = jnp.where(draws.drop_label, null_label, labels)
    error = predict(x_t, draws.t, seen_labels) - targets[objective.prediction]()
    squared = jnp.mean(error**2, axis=tuple(range(1, error.ndim)))
    if objective.weighting == "velocity":
        squared = squared * velocity_weight(objective.schedule, draws.t, objective.prediction)
    if objective.loss == "pseudo_huber":
        # sqrt(|e|^2 + c^2) - c with c = 0.00054 sqrt(d) (arXiv 2310.14189), divided by sqrt(d): a mean, too.
        c = 0.00054
        return jnp.sqrt(squared + c**2) - c
    return squared


def velocity_weight(schedule: Any, t: Float[Array, " B"], prediction: str) -> Float[Array, " B"]:
    """The factor between a squared error of `prediction` and the squared velocity error that it amounts to.

    With D = alpha' sigma - alpha sigma': 1 for the velocity, (D / sigma)^2 for data, (D / alpha)^2 for noise
    (arXiv 2303.00848). Infinite at t = 1 for data and at t = 0 for noise: train with clipped times.
    """
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    determinant = schedule.d_alpha(t) * sigma - alpha * schedule.d_sigma(t)
    return {
        "velocity": lambda: jnp.ones_like(t),
        "data": lambda: (determinant / sigma) ** 2,
        "noise": lambda: (determinant / alpha) ** 2,
    }[prediction]()


def augment(
    images: Float[Array, "B H W C"], mirror: Bool[Array, " B"], offset: Int[Array, "B 2"], *, margin: int
) -> Float[Array, "B H W C"]:
    """Mirrors the marked images left to right and moves each by `offset` pixels, each in [-margin, margin].

    What moves in repeats the border pixels.
    """
    images = jnp.where(mirror[:, None, None, None], images[:, :, ::-1], images)
    if not margin:
        return images
    _, height, width, _ = images.shape
    rows = jnp.clip(jnp.arange(height)[None] - offset[:, :1], 0, height - 1)
    columns = jnp.clip(jnp.arange(width)[None] - offset[:, 1:], 0, width - 1)
    batch = jnp.arange(len(images))[:, None, None]
    return images[batch, rows[:, :, None], columns[:, None, :]]
