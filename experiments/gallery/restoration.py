"""Restored by a model that was not trained for it.

Three digits, each measured with noise by three operators, and three draws of what may lie behind each measurement, by
the method flower (arXiv 2509.26287). Draws differ where the measurement leaves a choice. The network is told no label.
"""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import fmd
from experiments.gallery import style
from fmd.math import operators, pixels

OPERATORS = {
    "lower half hidden": operators.get("mask", hidden="lower_half"),
    "means of 4 x 4": operators.get("block_average", factor=4),
    "blurred": operators.get("blur", std=2.0),
}


def draw(small: bool = False) -> Figure:
    sampler, steps, noise_std = fmd.load("mnist"), 1 if small else 60, 0.05
    labels, asked = (np.array([2]), {"blurred": OPERATORS["blurred"]}) if small else (np.array([2, 5, 8]), OPERATORS)
    truth = sampler(labels, jax.random.key(3), weight=1.0, solver="midpoint", steps=1 if small else 10)
    columns = []
    for operator in asked.values():
        y = operator(pixels.to_unit(jnp.asarray(truth)))
        y = y + noise_std * jax.random.normal(jax.random.key(1), y.shape)
        drawn = sampler.restore(
            y, operator, jax.random.key(2), noise_std=noise_std, method="flower", steps=steps, draws=3
        )
        size = truth.shape[1] // y.shape[1]
        seen = np.asarray(pixels.to_uint8(y)).repeat(size, 1).repeat(size, 2)
        columns.append(np.concatenate([truth[None], seen[None], drawn.swapaxes(0, 1)]))
    names = [name if i == len(labels) // 2 else "" for name in asked for i in range(len(labels))]
    return style.tiles(np.concatenate(columns, axis=1), ["image", "measured", "draw 1", "draw 2", "draw 3"], names)
