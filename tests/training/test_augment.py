"""Augmentation: each image by itself, from random numbers of its own."""

import jax.numpy as jnp
import numpy as np

from fmd.training.augment import mirror_and_move


def test_each_image_is_mirrored_and_moved_and_the_border_repeated():
    images = jnp.arange(2 * 4 * 4, dtype=jnp.float32).reshape(2, 4, 4, 1)
    mirror, offset = jnp.array([True, False]), jnp.array([[0, 0], [1, -2]])
    out = np.asarray(mirror_and_move(images, mirror, offset, margin=2))
    np.testing.assert_array_equal(out[0, :, :, 0], np.asarray(images)[0, :, ::-1, 0])
    padded = np.pad(np.asarray(images)[1, :, :, 0], 2, mode="edge")
    np.testing.assert_array_equal(out[1, :, :, 0], padded[1:5, 4:8])
    np.testing.assert_array_equal(mirror_and_move(images, mirror, offset, margin=0)[1], images[1])
