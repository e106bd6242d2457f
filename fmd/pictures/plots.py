"""Figures of toys in the plane and of losses, uint8 [H, W, 3].

Drawn with matplotlib (the extra `notebooks`), loaded when needed, on figures of their own: no global state, no window.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fmd.extras import need
from fmd.pictures.svg import LOG_FROM, Point, log_ticks, short, thin
from fmd.types import Field, Number

DOTS_PER_INCH = 100
FEWEST_ARROWS = 2
MARKED_BELOW = 30  # points of a line that get a dot each


def vector_field(
    field: Field,
    t: Number,
    *,
    limits: tuple[Number, Number] = (-3.0, 3.0),
    arrows: int = 21,
    particles: ArrayLike | None = None,
    paths: ArrayLike | None = None,
    speed: Number | None = None,
    title: str | None = None,
    side: int = 480,
) -> np.ndarray:
    """The velocity in the plane as arrows, coloured by speed.

    Args:
        field: called once as field(t, x) with x float32 [arrows^2, 2].
        t: the time.
        limits: of both axes.
        arrows: per row and column.
        particles: array [N, 2] of points to show on top.
        paths: array [T, N, 2] of ways that led there, as lines.
        speed: of an arrow that just reaches its neighbour; default: the largest. Give one to compare pictures.
        title: default: the time.
        side: pixels of the square picture.
    """
    if arrows < FEWEST_ARROWS:
        raise ValueError(f"arrows = {arrows}; a field takes {FEWEST_ARROWS} or more per row")
    ticks = np.linspace(*limits, arrows, dtype=np.float32)
    x = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    v = np.asarray(field(np.float32(t), x))
    speeds = np.linalg.norm(v, axis=1)
    full = speed or np.max(speeds[np.isfinite(speeds)], initial=0.0) or 1.0
    gap = (limits[1] - limits[0]) / (arrows - 1)

    figure, axes = _figure(side, side)
    axes.quiver(
        *x.T, *v.T, speeds, angles="xy", scale_units="xy", scale=full / gap, width=0.004, cmap="viridis_r",
        clim=(0, full),
    )  # fmt: skip
    if paths is not None:
        paths = np.asarray(paths)
        axes.plot(paths[..., 0], paths[..., 1], color="0.3", linewidth=0.6, alpha=0.5)
    if particles is not None:
        axes.scatter(*np.asarray(particles).T, s=7, color="crimson", alpha=0.7, linewidths=0, zorder=3)
    axes.set(xlim=limits, ylim=limits, aspect="equal", title=f"t = {t:.2f}" if title is None else title)
    return _pixels(figure)


def loss_curves(
    series: Mapping[str, Sequence[Point]], *, title: str = "loss", width: int = 640, height: int = 400
) -> np.ndarray:
    """Lines over steps, from the (step, value) pairs of each name; None or a value that is not finite leaves a gap.

    The vertical axis is logarithmic where values are positive and far apart, as in the report of a run.
    """
    figure, axes = _figure(width, height)
    known = []
    for name, points in series.items():
        thinned = thin(points)
        steps, values = [x for x, _ in thinned], [np.nan if y is None else y for _, y in thinned]
        known += [y for y in values if np.isfinite(y)]
        axes.plot(steps, values, label=name, linewidth=1.5, marker="." if len(thinned) < MARKED_BELOW else None)
    if not known:
        raise ValueError(f"nothing to draw: no value of {', '.join(series) or 'no series'} is a finite number")
    if min(known) > 0 and max(known) > LOG_FROM * min(known):
        axes.set_yscale("log")
        ticks = log_ticks(min(known), max(known))
        axes.set_yticks(ticks, [short(tick) for tick in ticks])
        axes.set_yticks([], minor=True)
    if len(series) > 1:
        axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    axes.set(title=title, xlabel="step")
    return _pixels(figure)


def sweep(setting: str, rows: Sequence[Mapping[str, object]], *, width: int = 720, height: int = 420) -> np.ndarray:
    """Quality against one setting: bars of the Frechet distance, lines of shares (accuracy, precision, recall).

    Args:
        setting: the column of `rows` that names the points.
        rows: one mapping per point; `fid` must be there, shares that are missing or None are left out.
    """
    figure, axes = _figure(width, height)
    names = [str(row[setting]) for row in rows]
    axes.bar(names, [row["fid"] for row in rows], color="0.8", label="fid")
    axes.set(xlabel=setting, ylabel="fid")
    shares = axes.twinx()
    known = [k for k in ("class_accuracy", "precision", "recall") if all(row.get(k) is not None for row in rows)]
    for name in known:
        shares.plot(names, [row[name] for row in rows], marker="o", label=name)
    shares.set(ylim=(0, 1.02), ylabel="share")
    if known:
        shares.legend(frameon=False, loc="lower right")
    return _pixels(figure)


def _figure(width: int, height: int) -> tuple[Any, Any]:
    """A figure of so many pixels, and its axes."""
    matplotlib = need("matplotlib.figure", "notebooks")
    figure = matplotlib.Figure((width / DOTS_PER_INCH, height / DOTS_PER_INCH), dpi=DOTS_PER_INCH, layout="constrained")
    return figure, figure.subplots()


def _pixels(figure: Any) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
