"""One evaluation beside twenty.

The digits that one network draws from the same noise, by one, two and four jumps of the average velocity (MeanFlow,
arXiv 2505.13447), and by twenty evaluations along the flow of the same network. The number is the root mean square
difference from the last row, of pixels in [-1, 1].
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import fmd
from experiments.gallery import style


def draw(small: bool = False) -> Figure:
    sampler, key, labels = fmd.load("mnist"), jax.random.key(0), np.arange(2 if small else 10)
    flow = sampler(labels, key, weight=1.0, solver="midpoint", steps=1 if small else 10)
    rows = {f"{n} jump{'s' * (n > 1)}": sampler(labels, key, weight=1.0, solver="jump", steps=n) for n in (1, 2, 4)}
    away = {name: np.std((row - flow.astype(float)) / 127.5) for name, row in rows.items()}
    names = [f"{name}\n{away[name]:.2f}" for name in rows]
    return style.tiles(np.stack([*rows.values(), flow]), [*names, "flow"])
