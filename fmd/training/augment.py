"""Random changes of training images that leave them what they are: mirroring and small shifts."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fmd.randomness import example_keys
from fmd.types import Rng


@dataclass(frozen=True)
class Augment:
    """Mirrors half of the images where `flip`, and moves each by up to `shift` pixels each way."""

    flip: bool = False
    shift: int = 0

    def __call__(self, rng: Rng, images: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """The images [B, H, W, C], each changed by random numbers of its own."""
        if not (self.flip or self.shift):
            return images
        keys = jax.vmap(jax.random.split)(example_keys(rng.key("augment"), rng.index))
        mirror = jax.vmap(jax.random.bernoulli)(keys[:, 0]) & self.flip
        offset = jax.vmap(lambda k: jax.random.randint(k, (2,), -self.shift, self.shift + 1))(keys[:, 1])
        return mirror_and_move(images, mirror, offset, margin=self.shift)


def mirror_and_move(
    images: Float[Array, "B H W C"], mirror: Bool[Array, " B"], offset: Int[Array, "B 2"], *, margin: int
) -> Float[Array, "B H W C"]:
    """The images, the marked ones mirrored left to right, each moved by `offset` pixels in [-margin, margin].

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
