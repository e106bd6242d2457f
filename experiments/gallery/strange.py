"""How strange is an image?

Digits, and what was done to them, with the median score of each kind: the distance of the network's errors at four
times from those of ordinary digits (`fmd.math.anomaly.profile`). Too simple and too rich are both found. The network
saw nothing but digits, and was told nothing of this task.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import fmd
from experiments.gallery import style
from fmd.math import anomaly
from fmd.sampling import judging

KINDS = {
    "as drawn": lambda x, random: x,
    "mirrored": lambda x, random: x[:, :, ::-1],
    "quarter turn": lambda x, random: np.rot90(x, axes=(1, 2)),
    "negative": lambda x, random: 255 - x,
    "coarse": lambda x, random: x[:, ::2, ::2].repeat(2, 1).repeat(2, 2),
    "noisy": lambda x, random: np.clip(x + random.normal(0, 25, x.shape), 0, 255).astype(np.uint8),
    "pixels shuffled": lambda x, random: random.permuted(x.reshape(len(x), -1), axis=1).reshape(x.shape),
}


def draw(small: bool = False) -> Figure:
    sampler, draws, random = fmd.load("mnist"), 1 if small else 4, np.random.default_rng(0)
    kinds, ordinary = dict(style.few(KINDS.items(), small)), 6 if small else 60
    labels = np.arange(ordinary + (2 if small else 6)) % sampler.num_classes
    images = sampler(labels, jax.random.key(0), weight=1.0, solver="midpoint", steps=1 if small else 10)
    usual = judging.residuals(sampler, images[:ordinary], draws=draws)
    made = {name: np.ascontiguousarray(change(images[ordinary:], random)) for name, change in kinds.items()}
    scores = {name: anomaly.profile(judging.residuals(sampler, x, draws=draws), usual) for name, x in made.items()}
    names = [f"{name}: {np.median(scores[name]):.0f}" for name in made]
    return style.tiles(np.stack(list(made.values())), names)
