"""One evaluation beside twenty.

Digits that one network draws from the same noise. One jump asks it once for the whole way (arXiv 2505.13447,
2311.18828). One Euler step asks it once for the velocity at the start, and lands on the mean of its class. Midpoint
steps along the flow need many questions to arrive.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import fmd
from experiments.gallery import style

WAYS = {
    "1, jump": {"solver": "jump", "steps": 1},
    "1, Euler": {"solver": "euler", "steps": 1},
    "4, flow": {"solver": "midpoint", "steps": 2},
    "20, flow": {"solver": "midpoint", "steps": 10},
}


def draw(small: bool = False) -> Figure:
    sampler, ways = fmd.load("mnist"), dict(style.few(WAYS.items(), small))
    labels, key = np.arange(2 if small else 10), jax.random.key(0)
    return style.tiles(
        np.stack([sampler(labels, key, weight=1.0, **settings) for settings in ways.values()]), list(ways)
    )
