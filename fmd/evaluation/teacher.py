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
from fmd.sampling.checks import refuse_other
from fmd.sampling.sampler import Sampler
from fmd.types import Images

EXAMPLES, STEPS = 200, 50  # 100 evaluations of the teacher for each, by the midpoint rule


class TeacherImages:
    """The images of a teacher, `EXAMPLES` of them, guided as its own settings say.

    Raises ValueError for a teacher of other images, classes or conditions than the model's.
    """

    def __init__(self, sampler: Sampler, teacher: Sampler, labels: Int[np.ndarray, " N"], seed: int, *, quiet: bool):
        refuse_other("--teacher", teacher.info, sampler.info)
        self.labels, self.seed, self.quiet = labels[:EXAMPLES], seed, quiet
        self.images = self._draw(teacher, teacher.settings.replace(solver="midpoint", steps=STEPS))

    def distance(self, sampler: Sampler, settings: Settings) -> float:
        """The mean square distance of the model's images from the teacher's."""
        return float(jnp.mean((self._draw(sampler, settings) - self.images) ** 2))

    def _draw(self, sampler: Sampler, settings: Settings) -> Images:
        return to_unit(jnp.asarray(sampler.sample(self.labels, key(self.seed), settings, quiet=self.quiet).images))
