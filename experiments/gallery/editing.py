"""Told another digit.

Each digit becomes the next one, by three ways that keep something of it: flow_edit moves along the difference of two
velocities from t = 0.15 on (arXiv 2412.08629), sde_edit adds noise down to t = 0.2 and takes it away again
(2108.01073), both with guidance weight 2; invert goes back to the noise and forth again, told the new label. A later
start changes less: from t = 0.3 or 0.4 and without guidance most digits stay what they are.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import fmd
from experiments.gallery import style

METHODS = {"flow_edit": {"start": 0.15, "weight": 2.0}, "sde_edit": {"start": 0.2, "weight": 2.0}, "invert": {}}


def draw(small: bool = False) -> Figure:
    sampler, labels, steps = fmd.load("mnist"), np.arange(1 if small else 10), 1 if small else 20
    images = sampler(labels, jax.random.key(0), weight=1.0, solver="midpoint", steps=1 if small else 10)
    rows = [images]
    for method, options in list(METHODS.items())[: 1 if small else None]:
        target = (labels + 1) % sampler.num_classes
        rows.append(
            sampler.edit(images, target, jax.random.key(1), source=labels, method=method, steps=steps, **options)
        )
    return style.tiles(
        np.stack(rows), ["image", *METHODS][: len(rows)], [f"{a} to {(a + 1) % sampler.num_classes}" for a in labels]
    )
