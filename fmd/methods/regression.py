"""Regression: the image from its condition in one evaluation, the baseline of paired tasks.

    loss = |D(y) - x1|^2,      D(y) = network(x = 1, t = 0, y)

The least loss has the posterior mean D(y) = E[x1 | y]: the best image by squared error, with the detail that y does not
decide averaged away. Exact draws from p(x1 | y), which `bridge` learns to make, are sharper and have twice its error.

The network sees a constant that is not 0. From zeros no gradient would pass: its last layer and the planes of an image
that it is told begin as zeros themselves.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from fmd.config import Settings
from fmd.math.simulators import Solution
from fmd.methods import register
from fmd.methods.method import Drawn, Loss
from fmd.types import Condition, Images, Network, Rng


@register("regression")
@dataclass(frozen=True)
class Regression:
    """The method; with `label_dropout` it also learns the mean of all images, for conditions that are not told."""

    label_dropout: float = 0.1

    second_time = False
    needs_teacher = False
    solves = False
    no_field = "it predicts the mean of the images in one evaluation"

    def draw(self, rng: Rng, x1: Images, y: Condition) -> Drawn:
        """Whose condition is not told; neither x0 nor t says anything."""
        untold = rng.uniform("label_dropout") < self.label_dropout
        return Drawn(jnp.zeros_like(x1), x1, y, jnp.zeros_like(untold, jnp.float32), untold)

    def loss(self, network: Network, drawn: Drawn, teacher: Network | None = None) -> Loss:
        """The squared error of the image, the mean over pixels and channels, [B] float32."""
        error = predict(network, drawn.x1, network.drop(drawn.y, drawn.untold)) - drawn.x1
        return Loss(jnp.mean(error**2, axis=tuple(range(1, error.ndim))), jnp.zeros_like(drawn.t))

    def sample(self, network: Network, x0: Images, y: Condition, settings: Settings) -> Solution:
        """The prediction; of the noise x0 it takes the shape, of the settings nothing."""
        x = predict(network, x0, y)
        good = jnp.isfinite(x).all(axis=tuple(range(1, x.ndim)))
        return Solution(x, None, None, jnp.ones(x.shape[0], jnp.int32), good)

    def check(self, settings: Settings) -> None:
        """Raises ValueError for guidance and whatever else asks for more than one evaluation."""
        if settings.weight != 1.0 or settings.guidance.name != "cfg" or "weak" in settings.guidance:
            raise ValueError(
                f"guidance {dict(settings.guidance)} with method 'regression': a mean is not guided; use weight 1"
            )
        for key in ("sde", "schedule", "rtol", "atol", "times"):
            if getattr(settings, key) is not None:
                raise ValueError(
                    f"sample.{key} = {getattr(settings, key)} has no effect with method 'regression', which solves no "
                    f"equation; leave it out"
                )


def predict(network: Network, like: Images, y: Condition) -> Images:
    """The image of each condition, [B, H, W, C] as `like`."""
    return network(jnp.ones_like(like), jnp.zeros(like.shape[0]), y)
