"""One picture per data set: what was drawn, with curves below, by Pillow alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

WIDTH, HEIGHT, MARGIN = 640, 200, 40
Curve = Sequence[tuple[int, float | None]]


def save(path: Path, images: Sequence[Path], curves: Mapping[str, Curve]) -> None:
    """Writes the images and the curves, one below the other, as one PNG."""
    parts = [Image.open(image).convert("RGB") for image in images]
    parts += [curve(name, points) for name, points in curves.items()]
    whole = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    whole.save(path, optimize=True)


def curve(name: str, points: Curve) -> Image.Image:
    """A line through the points, with the ends of both axes written at them."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    known = [(x, y) for x, y in points if y is not None]
    if len(known) < 2:
        draw.text((MARGIN, HEIGHT // 2), f"{name}: {known or 'nothing'}", "black")
        return picture
    xs, ys = zip(*known, strict=True)
    wide, high = (max(xs) - min(xs)) or 1, (max(ys) - min(ys)) or 1
    line = [
        (
            MARGIN + (x - min(xs)) / wide * (WIDTH - 2 * MARGIN),
            HEIGHT - MARGIN - (y - min(ys)) / high * (HEIGHT - 2 * MARGIN),
        )
        for x, y in known
    ]
    draw.line([(MARGIN, MARGIN), (MARGIN, HEIGHT - MARGIN), (WIDTH - MARGIN, HEIGHT - MARGIN)], "grey")
    draw.line(line, "blue", width=2)
    draw.text((MARGIN, 8), f"{name}, last {ys[-1]:.4g}", "black")
    draw.text((2, MARGIN), f"{max(ys):.3g}", "black")
    draw.text((2, HEIGHT - MARGIN - 10), f"{min(ys):.3g}", "black")
    draw.text((MARGIN, HEIGHT - MARGIN + 6), str(min(xs)), "black")
    draw.text((WIDTH - 2 * MARGIN, HEIGHT - MARGIN + 6), f"step {max(xs)}", "black")
    return picture
