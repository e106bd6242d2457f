"""Faults of a background that distances between features do not see: a grey veil, and the grid of a network's patches.

black_share   the share of pixels that are exactly 0; a veil of a few grey levels makes it smaller
grid_energy   power of the patterns that alternate from pixel to pixel, along rows, columns and both, in grey levels
              squared; a network that predicts 2 x 2 pixels at once leaves it where it is not well trained
"""

import numpy as np
from jaxtyping import Float, UInt8

ROWS = 1000  # images held as floats at once


def black_share(images: UInt8[np.ndarray, "N H W C"]) -> float:
    """The share of values that are 0."""
    return float(np.mean(images == 0))


def grid_energy(images: UInt8[np.ndarray, "N H W C"]) -> float:
    """The mean power of the three patterns of period 2, from the part of each image that has even sides."""
    height, width = images.shape[1] // 2 * 2, images.shape[2] // 2 * 2
    rows, columns = (np.resize(np.array([1.0, -1.0], np.float32), n) for n in (height, width))
    patterns = (rows[:, None] * np.ones(width), np.ones((height, 1)) * columns, np.multiply.outer(rows, columns))
    return sum(_mean_power(images[:, :height, :width], pattern.astype(np.float32)) for pattern in patterns)


def _mean_power(images: UInt8[np.ndarray, "N H W C"], pattern: Float[np.ndarray, "H W"]) -> float:
    parts = (images[first : first + ROWS].astype(np.float32) for first in range(0, len(images), ROWS))
    amplitudes = np.concatenate([np.einsum("nhwc,hw->nc", part, pattern) for part in parts]) / pattern.size
    return float(np.mean(amplitudes**2))


def measure(images: UInt8[np.ndarray, "N H W C"], real: UInt8[np.ndarray, "M H W C"]) -> dict[str, float]:
    """Both figures of samples, and of real images."""
    return {
        "black_share": black_share(images),
        "black_share_of_real": black_share(real),
        "grid_energy": grid_energy(images),
        "grid_energy_of_real": grid_energy(real),
    }
