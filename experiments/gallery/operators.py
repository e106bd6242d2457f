"""Seven ways to measure an image.

Above a coloured digit as each operator of `fmd.math.operators` sees it, below what its pseudo-inverse makes of that:
the shortest image with this measurement. The rest has to come from a prior: see the next picture.
"""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import fmd
from experiments.gallery import style
from fmd.math import operators, pixels

OPERATORS = {
    "identity": operators.get("identity"),
    "mask": operators.get("mask", hidden="lower_half"),
    "mask, centre": operators.get("mask", hidden="centre"),
    "average 4": operators.get("block_average", factor=4),
    "subsample 2": operators.get("subsample", factor=2),
    "blur 1.5": operators.get("blur", std=1.5, cutoff=0.05),
    "grey": operators.get("grey"),
}


def draw(small: bool = False) -> Figure:
    steps = 1 if small else 10
    digit = fmd.load("mnist")(range(4), jax.random.key(0), weight=1.0, solver="midpoint", steps=steps)[3:]
    ink, paper = np.array([[[[0.9, 0.5, -0.6]]]]), np.array([[[[-0.7, -0.5, 0.1]]]])
    share = digit / 255.0
    x = jnp.asarray(share * ink + (1 - share) * paper, jnp.float32)

    def shown(y: jax.Array) -> np.ndarray:
        """Any measurement as a picture of the size of x."""
        repeats = x.shape[1] // y.shape[1]
        return np.asarray(pixels.to_uint8(jnp.broadcast_to(y.repeat(repeats, 1).repeat(repeats, 2), x.shape)))[0]

    measured = {name: operator(x) for name, operator in OPERATORS.items()}
    inverted = [operator.pseudo_inverse(measured[name]) for name, operator in OPERATORS.items()]
    rows = [[shown(y) for y in measured.values()], [shown(y) for y in inverted]]
    return style.tiles(np.array(rows), ["A x", "A⁺ A x"], list(OPERATORS))
