"""How far a model's images are from those of its teacher's flow, from the same noise and labels.

A metric that needs no classifier: the mean square difference of pixels in [-1, 1]. It is 0 for a network that jumps
where the teacher flows, and large for one that makes as good images of other noise, as distribution matching may.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from fmd.config import Settings
from fmd.math.pixels import to_unit
from fmd.randomness import key
from fmd.sampling.sampler import Sampler

EXAMPLES, STEPS = 200, 50  # 100 evaluations of the teacher for each, by the midpoint rule


def distance(
    sampler: Sampler, settings: Settings, teacher: Sampler, labels: Int[np.ndarray, " N"], seed: int, *, quiet: bool
) -> float:
    """The mean square distance over `EXAMPLES` images; the teacher is guided as `settings` or its own say.

    Raises ValueError for a teacher of other images or classes.
    """
    if (teacher.image_shape, teacher.num_classes) != (sampler.image_shape, sampler.num_classes):
        raise ValueError(
            f"--teacher makes {teacher.image_shape} images of {teacher.num_classes} classes, this model "
            f"{sampler.image_shape} of {sampler.num_classes}; give a model of the same images"
        )
    asked = labels[:EXAMPLES]
    guided = teacher.settings.replace(solver="midpoint", steps=STEPS)
    ours, theirs = (
        to_unit(jnp.asarray(model.sample(asked, key(seed), how, quiet=quiet).images))
        for model, how in ((sampler, settings), (teacher, guided))
    )
    return float(jnp.mean((ours - theirs) ** 2))
