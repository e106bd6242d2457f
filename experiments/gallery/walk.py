"""A walk between two noises.

What a network draws on the way from one noise to another, along the arc and along the straight line between them. In
the middle of the line a state is shorter than any noise; see "Between two noises".
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import fmd
from experiments.gallery import style
from fmd.math import editing


def draw(small: bool = False) -> Figure:
    sampler, shares = fmd.load("mnist"), np.linspace(0, 1, 2 if small else 11, dtype=np.float32)
    first, second = jax.random.normal(jax.random.key(5), (2, *sampler.image_shape))
    arc = np.stack([editing.slerp(first[None], second[None], share)[0] for share in shares])
    line = np.stack([(1 - share) * first + share * second for share in shares])
    settings = {"weight": 1.0, "solver": "midpoint", "steps": 1 if small else 10}
    asked = [(label, way) for label in ((3,) if small else (3, 8)) for way in ("arc", "line")]
    noise = {"arc": arc, "line": line}
    rows = [sampler(np.full(len(shares), label), noise=noise[way], **settings) for label, way in asked]
    return style.tiles(
        np.stack(rows), [f"{label}, {way}" for label, way in asked], [f"{share:.1f}" for share in shares]
    )
