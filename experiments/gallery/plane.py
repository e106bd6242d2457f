"""Distributions in the plane whose velocity is known exactly: mixtures of Gaussians of one width.

Given x at time t, component k has the weight softmax_k(-|x - alpha m_k|^2 / 2V), V = alpha^2 s^2 + sigma^2, and there

    E[x1 | x, k] = m_k + alpha s^2 / V (x - alpha m_k),      E[x0 | x, k] = sigma / V (x - alpha m_k).
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fmd.math import fields
from fmd.math.fields import Predict
from fmd.math.schedules import Schedule
from fmd.types import Field


@dataclass(frozen=True, eq=False)
class Mixture:
    """Equally many draws around each of the means [K, 2], of standard deviation `std` and label `classes` [K]."""

    means: np.ndarray
    std: float
    classes: np.ndarray

    @property
    def null(self) -> int:
        """The label that tells nothing."""
        return int(self.classes.max()) + 1

    def sample(self, key: Array, count: int) -> Array:
        """Draws [count, 2]."""
        which, where = jax.random.split(key)
        chosen = jax.random.randint(which, (count,), 0, len(self.means))
        return jnp.asarray(self.means)[chosen] + self.std * jax.random.normal(where, (count, 2))

    def logits(self, schedule: Schedule, x: Array, t: Array) -> tuple[Array, Array, Array]:
        """(-|x - alpha m|^2 / 2V [B, K], x - alpha m [B, K, 2], V [B]) for x [B, 2] and t [B]."""
        offset = x[:, None] - schedule.alpha(t)[:, None, None] * self.means[None]
        variance = (schedule.alpha(t) * self.std) ** 2 + schedule.sigma(t) ** 2
        return -jnp.sum(offset**2, -1) / (2 * variance[:, None]), offset, variance

    def among(self, schedule: Schedule, x: Array, t: Array, allowed: Array | None = None) -> Array:
        """The velocity [B, 2] at x [B, 2] and t [B], of the components that are `allowed` [B, K]."""
        logits, offset, variance = self.logits(schedule, x, t)
        logits = logits if allowed is None else jnp.where(allowed, logits, -jnp.inf)
        share = jax.nn.softmax(logits, axis=1)[..., None]
        pull = jnp.sum(share * offset, axis=1) / variance[:, None]
        c = schedule.at(t)
        data = jnp.sum(share * self.means[None], axis=1) + self.std**2 * c.alpha[:, None] * pull
        return c.d_alpha[:, None] * data + (c.d_sigma * c.sigma)[:, None] * pull

    def predict(self, schedule: Schedule) -> Predict:
        """The exact network of the velocity: predict(x [B, 2], t [B], y), y labels [B] or None."""

        def velocity(x: Array, t: Array, y: Array | None = None) -> Array:
            told = None if y is None else (y[:, None] == self.null) | (y[:, None] == self.classes[None])
            return self.among(schedule, x, t, told)

        return velocity

    def field(self, schedule: Schedule) -> Field:
        """The exact velocity as field(t, x, y)."""
        return fields.from_model(self.predict(schedule), schedule)

    def log_density(self, schedule: Schedule, x: Array, t: float = 1.0) -> Array:
        """log p_t of points [B, 2]."""
        logits, _, variance = self.logits(schedule, x, jnp.full(len(x), t))
        return jax.nn.logsumexp(logits, axis=1) - jnp.log(2 * math.pi * len(self.means) * variance)


def clusters(count: int = 5, radius: float = 2.0, std: float = 0.3) -> Mixture:
    """Clusters on a circle, each a class."""
    angle = 2 * np.pi * np.arange(count) / count + np.pi / 2
    means = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return Mixture(means.astype(np.float32), std, np.arange(count))


def moons(std: float = 0.15, beads: int = 16) -> Mixture:
    """Two half circles that reach into one another, each a class."""
    angle = np.pi * (np.arange(beads) + 0.5) / beads
    upper = np.stack([1.3 * np.cos(angle) - 0.65, 1.3 * np.sin(angle) - 0.3], axis=1)
    means = np.concatenate([upper, -upper]).astype(np.float32)
    return Mixture(means, std, np.repeat([0, 1], beads))


def spiral(std: float = 0.08, beads: int = 60) -> Mixture:
    """A spiral of one and a half turns."""
    share = np.sqrt((np.arange(beads) + 0.5) / beads)
    angle = 3 * np.pi * share
    means = 2.2 * share[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return Mixture(means.astype(np.float32), std, np.zeros(beads, int))
