"""fmd: flow matching for images in JAX.

Conventions, everywhere: t = 0 is noise and t = 1 is data; x0 is noise, x1 is data; images are NHWC float32 in [-1, 1]
inside and uint8 at every boundary; guidance weight 1 is conditional, 0 unconditional; labels are int32 and
`num_classes` itself is the null label.

    images = fmd.load("mnist")([3, 1, 4], jax.random.key(0))        # uint8 [3, 28, 28, 1], by weights that ship

Import the room you need (`fmd.math.schedules`, `fmd.methods`, ...). Importing `fmd` loads nothing else.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmd.sampling.sampler import Sampler

__version__ = "0.2.0"


def load(path: str, **options: Any) -> "Sampler":
    """A sampler of a run, an export, a shipped model or one on the Hub; see `fmd.sampling.sampler.load`."""
    sampler: Sampler = importlib.import_module("fmd.sampling.sampler").load(path, **options)
    return sampler
