"""Where training looks: densities of t.

Left: how often a training step sees the time t. Logit-normal times favour the middle, where a network has most to
learn; a shift moves them towards the noise, as larger images need (arXiv 2403.03206). Right: one batch of 32 times,
drawn independently and stratified; the latter leaves no gap (arXiv 2107.00630).
"""

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.gallery import style
from fmd.math import times

SAMPLERS = {
    "uniform": times.get("uniform"),
    "logit_normal": times.get("logit_normal"),
    "logit_normal, shift 3": times.get("logit_normal", shift=3.0),
    "mode": times.get("mode"),
    "cosmap": times.get("cosmap"),
}


def draw(small: bool = False) -> Figure:
    u = np.linspace(1e-3, 1 - 1e-3, 50 if small else 1000, dtype=np.float32)
    figure, (left, right) = style.figure(2, height=2.7)
    for name, sampler in SAMPLERS.items():
        t = np.asarray(sampler.from_uniform(u))
        left.plot(t, 1 / np.gradient(t, u), label=name)
    left.set(xlabel="t", ylabel="density", ylim=(0, 4))
    figure.legend(loc="outside lower center", ncols=5)
    for row, stratified in enumerate((False, True)):
        t = times.get("uniform", stratified=stratified)(jax.random.key(0), 32)
        right.eventplot(np.asarray(t), lineoffsets=row, linelengths=0.7, colors=(style.RED, style.BLUE)[row])
    right.set(xlabel="t", xlim=(0, 1), yticks=(0, 1), yticklabels=("independent", "stratified"))
    right.spines["left"].set_visible(False)
    return figure
