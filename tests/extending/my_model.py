"""A model of one's own: any Flax module called with (x, t, y), with a field `num_classes`."""

import flax.linen as nn
import jax.numpy as jnp

from fmd.models.registry import register_model


@register_model("my_model")
class MyModel(nn.Module):
    num_classes: int
    width: int = 16

    @nn.compact
    def __call__(self, x, t, y, train=False):
        told = nn.Dense(self.width)(t[:, None]) + nn.Embed(self.num_classes + 1, self.width)(y)
        hidden = nn.silu(nn.Conv(self.width, (3, 3))(x) + told[:, None, None, :])
        return nn.Conv(x.shape[-1], (3, 3))(hidden).astype(jnp.float32)
