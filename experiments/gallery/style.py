"""The look of all pictures: 720 pixels wide, a light ground for light and dark pages, colours for the colour-blind."""

from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from fmd.pictures import grids

BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"  # Okabe, Ito
GREY, GROUND = "#8A8A8A", "#FBFBF9"
WIDTH = 7.2  # inches, of 100 pixels
LOOK = {
    "figure.facecolor": GROUND,
    "figure.dpi": 100,
    "axes.facecolor": GROUND,
    "axes.edgecolor": GREY,
    "axes.prop_cycle": "cycler('color', " + repr([BLUE, RED, GREEN, ORANGE, PURPLE, SKY, "#333333"]) + ")",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "image.cmap": "Blues",
}


def figure(columns: int = 1, rows: int = 1, height: float = 2.6, **options: object) -> tuple[Figure, list[Axes]]:
    """A figure of the common width, and its axes row by row."""
    made = Figure((WIDTH, height), layout="compressed")
    return made, list(made.subplots(rows, columns, squeeze=False, **options).flat)


def plane(axis: Axes, limit: float, title: str = "") -> None:
    """Makes the axes a square of the plane without numbers, from -limit to limit."""
    axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[], yticks=[], title=title)
    axis.spines[:].set_visible(False)


def dots(axis: Axes, x: np.ndarray, color: str = BLUE, **options: object) -> None:
    """Points [N, 2]."""
    axis.scatter(*np.asarray(x).T, **{"s": 3, "alpha": 0.6, "linewidths": 0, "color": color, **options})


def lines(axis: Axes, ways: np.ndarray, color: str = BLUE, **options: object) -> None:
    """Ways [T, N, 2] of N points."""
    axis.plot(ways[..., 0], ways[..., 1], **{"color": color, "linewidth": 0.8, "alpha": 0.7, **options})


def few(things: Iterable, small: bool) -> list:
    """The things, or where the picture is to be small the first two."""
    return list(things)[: 2 if small else None]


def lattice(limit: float, side: int) -> np.ndarray:
    """The points [side^2, 2] of a square lattice, float32, row by row from below."""
    ticks = np.linspace(-limit, limit, side, dtype=np.float32)
    return np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)


def heat(axis: Axes, values: np.ndarray, limit: float, **options: object) -> object:
    """The values [side^2] at the points of a `lattice` as an image."""
    side = round(len(values) ** 0.5)
    extent = (-limit, limit, -limit, limit)
    return axis.imshow(np.reshape(values, (side, side)), origin="lower", extent=extent, **options)


def tiles(images: np.ndarray, rows: list[str], columns: list[str] = (), *, gap: int = 2) -> Figure:
    """Images uint8 [rows, columns, H, W, C] with names beside the rows and above the columns."""
    high, wide = images.shape[2] + gap, images.shape[3] + gap
    sheet = grids.image_grid(images.reshape(-1, *images.shape[2:]), columns=images.shape[1], gap=gap)
    room = 0.1 + 0.07 * max(len(name) for name in rows)  # inches for the names of the rows
    made = Figure((WIDTH, (WIDTH - room) * len(sheet) / sheet.shape[1] + 0.25), layout="compressed")
    axis = made.subplots()
    axis.imshow(np.broadcast_to(sheet, (*sheet.shape[:2], 3)), interpolation="nearest")
    axis.set_yticks([gap + high * (i + 0.5) for i in range(len(rows))], rows)
    axis.set_xticks([gap + wide * (i + 0.5) for i in range(len(columns))], columns)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return made


def rms(difference: np.ndarray) -> float:
    """The root mean square of the lengths of vectors [N, d]."""
    return float(jnp.sqrt(jnp.mean(jnp.sum(difference**2, axis=-1))))


def picture(made: Figure) -> Image.Image:
    """A figure as a picture of at most 64 colours."""
    canvas = FigureCanvasAgg(made)
    canvas.draw()
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    return pixels.quantize(64, dither=Image.Dither.NONE)
