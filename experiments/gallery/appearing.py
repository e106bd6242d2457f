"""Decided early, drawn late.

Digits on the way from noise (t = 0) to image (t = 1). Which digit it will be is settled while x_t still looks like
noise; the last third of the time draws the edges.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import fmd
from experiments.gallery import style
from fmd.sampling.trajectory import TIMES, trajectory


def draw(small: bool = False) -> Figure:
    sampler, labels = fmd.load("mnist"), np.array([3, 1, 4][: 1 if small else 3])
    frames = trajectory(sampler, labels, jax.random.key(0), weight=1.0, solver="midpoint", steps=1 if small else 16)
    return style.tiles(frames.swapaxes(0, 1), [str(label) for label in labels], [f"t = {t:g}" for t in TIMES])
