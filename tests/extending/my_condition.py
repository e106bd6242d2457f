"""A kind of condition of one's own: how it is embedded, and what it is where it is not told."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from fmd.data import ImageDataset, Split, register_source
from fmd.models.condition_kinds import Kind, register_condition


@register_condition("my_condition")
class MyCondition(Kind):
    """A number in [0, 1], as powers of itself; the learned vector `null` stands where it is not told."""

    powers: int = 3

    @nn.compact
    def __call__(self, value):
        def embed(number):
            return nn.Dense(self.dim, name="dense")(number ** jnp.arange(1.0, self.powers + 1)[None])

        return self.or_null(value, embed)

    def example(self, batch):
        return jnp.zeros((batch, 1), jnp.float32)


@register_source("with_my_condition")
def with_my_condition():
    numbers = np.random.default_rng(0).uniform(0, 1, (60, 1)).astype(np.float32)
    images = np.broadcast_to(255 * numbers[:, :, None, None], (60, 8, 8, 1)).astype(np.uint8)
    conditions = {"number": {"kind": "my_condition", "powers": 2}}
    split = Split(images, {"number": numbers})
    return ImageDataset("with_my_condition", split, split, 0, "made up", conditions=conditions)
