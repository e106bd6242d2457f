"""Schedules: how noise gives way to data.

The weights of data and of noise along x_t = alpha(t) x1 + sigma(t) x0, and the log signal-to-noise ratio that follows.
Three of the schedules have alpha = t, and lie behind one another. Schedules differ in how much of the time they spend
at which noise level: the paths of one are those of another at another pace and scale (arXiv 2303.08797).
"""

import numpy as np
from matplotlib.figure import Figure

from experiments.gallery import style
from fmd.math import schedules

NAMES = ("linear", "cosine", "polynomial", "sqrt_beta", "linear_vp", "vp")


def draw(small: bool = False) -> Figure:
    t = np.linspace(0.0, 1.0, 21 if small else 201, dtype=np.float32)
    figure, axes = style.figure(3, height=2.5)
    for name in NAMES:
        c = schedules.get(name).at(t)
        for axis, values in zip(axes, (c.alpha, c.sigma, c.log_snr), strict=True):
            axis.plot(t, values, label=name)
    for axis, title in zip(axes, ("alpha, of the data", "sigma, of the noise", "log-SNR"), strict=True):
        axis.set(title=title, xlabel="t")
    axes[2].set(ylim=(-12, 12))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(NAMES))
    return figure
