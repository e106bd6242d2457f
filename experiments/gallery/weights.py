"""The weight of guidance.

Rows share a label's noise; the weight grows downwards: 0 ignores the label, 1 is conditional, more makes digits plainer
and more alike (arXiv 2207.12598).
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import fmd
from experiments.gallery import style
from fmd.sampling.trajectory import sweep

WEIGHTS = (0.0, 1.0, 2.0, 4.0)


def draw(small: bool = False) -> Figure:
    sampler, weights, steps = fmd.load("mnist"), WEIGHTS[2:3] if small else WEIGHTS, 1 if small else 10
    labels = np.arange(2 if small else 10)
    images = sweep(sampler, labels, jax.random.key(4), weights=weights, solver="midpoint", steps=steps)
    return style.tiles(images, [f"w = {weight:g}" for weight in weights])
