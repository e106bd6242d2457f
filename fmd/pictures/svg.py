"""Line charts as inline SVG, without a plotting library.

Colours come from the page: classes `line`, `s0` to `s7`. A chart is a string of markup; text is escaped. Where a value
is None or not finite the line has a gap. Long series are drawn as means over equal stretches, at most MOST_POINTS of
them.
"""

import html
import math
from collections.abc import Mapping, Sequence

from fmd.types import Number

Point = tuple[Number, Number | None]

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 10, 26
MOST_POINTS = 300
LOG_FROM = 6.0  # largest over smallest value from which the vertical axis is logarithmic


def line_chart(title: str, series: Mapping[str, Sequence[Point]], *, allow_log: bool = True) -> str:
    """A titled figure of lines over steps; an empty string without numbers.

    Args:
        title: the caption.
        series: name -> (step, value) pairs in the order of steps. Several lines get a legend.
        allow_log: where values are positive and far apart, the vertical axis may be logarithmic.
    """
    drawn = {name: thin(points) for name, points in series.items()}
    known = [(x, y) for points in drawn.values() for x, y in points if y is not None]
    if not known:
        return ""
    values = [y for _, y in known]
    logarithmic = allow_log and min(values) > 0 and max(values) > LOG_FROM * min(values)
    y_low, y_high = _range(values, logarithmic)
    x_low, x_high = min(0.0, min(x for x, _ in known)), max(max(x for x, _ in known), 1.0)

    def across(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        low, high, y = (math.log(v) for v in (y_low, y_high, y)) if logarithmic else (y_low, y_high, y)
        return HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts: list[str] = []
    for tick in log_ticks(y_low, y_high) if logarithmic else linear_ticks(y_low, y_high):
        parts.append(f'<path class="grid" d="M{LEFT} {up(tick):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{up(tick) + 4:.1f}" text-anchor="end">{short(tick)}</text>')
    for tick in linear_ticks(x_low, x_high):
        parts.append(f'<text x="{across(tick):.1f}" y="{HEIGHT - 7}" text-anchor="middle">{short(tick)}</text>')
    for number, (name, points) in enumerate(drawn.items()):
        path = _path([(across(x), None if y is None else up(y)) for x, y in points])
        parts.append(f'<path class="line s{number % 8}" d="{path}"><title>{html.escape(name)}</title></path>')
        x, y = next(((x, y) for x, y in reversed(points) if y is not None), (x_low, None))
        newest = "" if y is None else f'<circle class="s{number % 8}" cx="{across(x):.1f}" cy="{up(y):.1f}" r="2.5"/>'
        parts.append(newest)

    legend = ""
    if len(drawn) > 1:
        keys = (f'<span><i class="s{i % 8}"></i>{html.escape(name)}</span>' for i, name in enumerate(drawn))
        legend = f'<div class="legend">{"".join(keys)}</div>'
    last = next(y for points in drawn.values() for _, y in reversed(points) if y is not None)
    note = f"<b>{short(last)}</b>" if len(drawn) == 1 else ""
    scale = "<small>log scale</small>" if logarithmic else ""
    return (
        f"<figure class=chart><figcaption>{html.escape(title)} {scale}{note}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">{"".join(parts)}</svg>'
        f"{legend}</figure>"
    )


def thin(points: Sequence[Point]) -> list[Point]:
    """At most MOST_POINTS points: means over equal stretches, None where no value is known, and the last point."""
    clean = [(float(x), float(y) if y is not None and math.isfinite(y) else None) for x, y in points]
    if len(clean) <= MOST_POINTS:
        return clean
    length = math.ceil((len(clean) - 1) / (MOST_POINTS - 1))
    stretches = [clean[i : min(i + length, len(clean) - 1)] for i in range(0, len(clean) - 1, length)]
    thinned = []
    for stretch in stretches:
        known = [y for _, y in stretch if y is not None]
        thinned.append((sum(x for x, _ in stretch) / len(stretch), sum(known) / len(known) if known else None))
    return [*thinned, clean[-1]]


def short(value: Number) -> str:
    """A number in few letters: 1200000 -> 1.2M, 3e15 -> 3P, 0.00002 -> 2e-5."""
    if value == 0:
        return "0"
    large = [(0.9995e18, 1e18, "E"), (0.9995e15, 1e15, "P"), (0.9995e12, 1e12, "T")]
    for limit, unit, letter in (*large, (0.9995e9, 1e9, "G"), (0.9995e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= limit:
            return f"{value / unit:.3g}{letter}"
    if abs(value) < 1e-3:
        digits, power = f"{value:.1e}".split("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:.4g}"


def linear_ticks(low: Number, high: Number, about: int = 5) -> list[float]:
    """Round numbers in [low, high]; they are 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.7)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: Number, high: Number) -> list[float]:
    """1, 2 and 5 times the powers of ten in [low, high]; over more than three of them, some powers alone."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    digits = (1, 2, 5) if last - first <= 3 else (1,)
    ticks = [d * 10.0**p for p in range(first, last + 1, max(1, (last - first) // 6)) for d in digits]
    return [t for t in ticks if low * 0.999 <= t <= high * 1.001]


def _range(values: Sequence[Number], logarithmic: bool) -> tuple[Number, Number]:
    low, high = min(values), max(values)
    if logarithmic:
        return low / 1.08, high * 1.08
    margin = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    # Not below zero for what is never negative.
    return (max(low - margin, 0.0) if low >= 0 else low - margin), high + margin


def _path(points: Sequence[Point]) -> str:
    """SVG path data; the pen is lifted at None. A point alone is a dot, by the round ends of its line."""
    commands, pen = [], "M"
    for x, y in points:
        if y is None:
            pen = "M"
            continue
        commands.append(f"{pen}{x:.1f} {y:.1f}" + ("h0" if pen == "M" else ""))
        pen = "L"
    return "".join(commands)
