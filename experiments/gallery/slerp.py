"""Between two noises.

The length of what lies between two noises of 784 numbers. Noises are all about 28 long (grey: 99 % of them). The
straight line between two is 8 shorter in the middle, where no noise is and a model has never been; the arc (slerp)
stays among them. `Sampler.interpolate` walks along it.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.gallery import style
from fmd.math import editing


def draw(small: bool = False) -> Figure:
    first, second = jax.random.normal(jax.random.key(0), (2, 5 if small else 40, 784))
    shares = np.linspace(0, 1, 5 if small else 41)
    ways = {
        "straight line": np.stack([(1 - share) * first + share * second for share in shares]),
        "slerp": np.stack([editing.slerp(first, second, share) for share in shares]),
    }
    figure, (axis,) = style.figure(height=2.4)
    for (name, way), color in zip(ways.items(), (style.RED, style.BLUE), strict=True):
        length = np.linalg.norm(way, axis=-1)
        axis.plot(shares, length, color=color, linewidth=0.6, alpha=0.5)
        axis.plot(shares, length.mean(axis=1), color=color, linewidth=2.5, label=name)
    band = 784**0.5 + 2.576 * 0.5**0.5 * np.array([-1, 1])  # lengths are nearly normal, of deviation √½
    axis.axhspan(*band, color=style.GREY, alpha=0.25, linewidth=0)
    axis.set(xlabel="share of the way", ylabel="length")
    axis.legend()
    return figure
