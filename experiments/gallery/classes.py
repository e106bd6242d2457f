"""A generator that reads.

Which label explains a drawn digit best: the mean of p(label | image) over digits of each class, estimated by the errors
of the velocity under each label (arXiv 2303.16203), with nothing trained for it. Rows are what was asked for.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

import fmd
from experiments.gallery import style


def draw(small: bool = False) -> Figure:
    sampler, each = fmd.load("mnist"), 1 if small else 4
    classes = range(sampler.num_classes)
    labels = np.repeat(classes, each)
    images = sampler(labels, jax.random.key(0), weight=1.0, solver="midpoint", steps=1 if small else 10)
    work = {"draws": 2} if small else {"draws": 24, "first": 6, "keep": 3}
    found = np.exp(sampler.classify(images, jax.random.key(1), weighting="precision", **work))
    read = np.mean(found.argmax(axis=1) == labels)
    table = found.reshape(len(classes), each, -1).mean(axis=1)
    figure, (axis,) = style.figure(height=3.4)
    bar = axis.imshow(table, vmin=0, vmax=1)
    figure.colorbar(bar, ax=axis, shrink=0.8, label="mean of p(label | image)")
    axis.set(xlabel="label", ylabel="asked for", xticks=classes, yticks=classes, title=f"{read:.0%} read as asked for")
    return figure
