"""report.html: one page that shows a run, to be opened with any browser, now or in ten years.

It needs nothing beside itself: curves are inline SVG, samples embedded PNGs. It is made from what is in the workdir
and in `run.logs`, so after a resume it shows the whole history. While the run goes on it is written about every minute,
and an open page loads itself again: one that is older tells of a run that hangs or was killed.
"""

import base64
import html
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import jax

import fmd
from fmd.blocks import as_plain, flatten
from fmd.files import atomic_path
from fmd.models.parameter_table import parameter_table
from fmd.pictures.svg import line_chart, short
from fmd.processes import is_main_process
from fmd.training.callbacks.base import Callback
from fmd.training.callbacks.report_style import STYLE
from fmd.training.callbacks.samples import saved_grids
from fmd.training.lines import Line
from fmd.training.run import Run

MOST_GRIDS = 6
REWRITTEN = 60.0  # seconds
PACKAGES = ("jax", "jaxlib", "flax", "optax", "diffrax", "orbax-checkpoint", "numpy")
TITLES = {
    "loss": "Loss",
    "validation_loss": "Validation loss",
    "grad_norm": "Gradient norm",
    "param_norm": "Parameter norm",
    "learning_rate": "Learning rate",
    "images_per_second": "Images per second",
    "utilisation": "Model's operations over the devices' peak",
    "memory_bytes": "Device memory in use, bytes",
    "skipped": "Steps left out",
}


class HtmlReport(Callback):
    """Writes report.html at the start, about every minute, and at the end. Put it last: it shows what others made."""

    def on_train_start(self, run: Run) -> None:
        self._write(run, "in progress")

    def on_step_end(self, run: Run) -> None:
        lines = run.due(run.config.log.every) and time.monotonic() - self._written >= REWRITTEN
        if (lines or run.due(run.config.log.samples_every)) and not run.finished:
            self._write(run, "in progress")

    def on_train_end(self, run: Run) -> None:
        self._write(run, "finished" if run.finished else "stopped")

    def _write(self, run: Run, state: str) -> None:
        self._written = time.monotonic()
        if is_main_process():
            with atomic_path(run.workdir / "report.html", overwrite=True) as temporary:
                temporary.write_text(page(run, state), encoding="utf-8")


def page(run: Run, state: str) -> str:
    """The whole page. `run` needs the attributes that fmd.training.callbacks.Callback lists."""
    name = html.escape(run.workdir.name)
    going = state == "in progress"
    reload = f'<meta http-equiv="refresh" content="{REWRITTEN:.0f}">' if going else ""
    body = [
        header(run, name, state, time_left(run) if going else None),
        tiles(run),
        section("Samples", sample_grids(saved_grids(run.workdir, run.step))),
        section("Curves", "".join(charts(run.logs)), "charts"),
        section("Time", time_spent(run.logs["timing"].lines)),
        section("Config", config_table(as_plain(run.config), as_plain(type(run.config)())), "blocks"),
        section("Model, data and machine", machine(run)),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{reload}<style>{STYLE}</style></head>\n'
        f"<body>{''.join(body)}</body></html>\n"
    )


def header(run: Run, name: str, state: str, left: float | None) -> str:
    """How far the run is, when the page was written, and when the run will be done, as far as that is known."""
    steps = f"step {run.step:,} of {run.config.train.num_steps:,}, {state}"
    written, done = time.strftime("%Y-%m-%d %H:%M:%S"), ""
    if left is not None:
        end = time.strftime("%a %H:%M", time.localtime(time.time() + left))
        done = f"<p><b>{duration(left)} left</b><b>done about {end}</b></p>"
    bar = f'<progress max="{run.config.train.num_steps}" value="{run.step}"></progress>'
    return f"<header><h1>{name}</h1><p>{steps}<span>written {written}</span></p>{bar}{done}</header>"


def time_left(run: Run) -> float | None:
    """Seconds until the last step, by what all steps so far took with all that was done beside them."""
    lines = run.logs["timing"].lines
    if not lines or not lines[-1]["step"]:
        return None
    kinds = {"seconds", *beside(lines)} - {"compilation_seconds"}
    spent = sum(line.get(key, 0.0) for line in lines for key in kinds)
    return float(spent / lines[-1]["step"] * (run.config.train.num_steps - run.step))


def section(title: str, content: str, kind: str = "") -> str:
    return f'<section><h2>{title}</h2><div class="{kind}">{content}</div></section>\n' if content else ""


def tiles(run: Run) -> str:
    """The figures that one looks for first."""
    logs = {name: log.lines for name, log in run.logs.items()}
    count = sum(leaf.size for leaf in jax.tree.leaves(run.state.ema[run.info.averages[0]]))
    found = {"training loss": (logs.get("metrics", []), "loss")}
    found["validation loss"] = logs.get("validation", []), "validation_loss"
    figures = {
        **{name: last(*where) for name, where in found.items()},
        "parameters": count,
        "images per second": median(known(logs["timing"], "images_per_second") or [None]),
        "of the devices' peak": median(known(logs["timing"], "utilisation") or [None]),
        "operations": sum(line.get("flops") or 0 for line in logs["timing"]) or None,
        "peak memory, bytes": last(logs["timing"], "peak_memory_bytes"),
    }
    shown = {name: short(value) for name, value in figures.items() if value is not None}
    shown["training time"] = duration(sum(line["seconds"] for line in logs["timing"]))
    shown["device-hours"] = short(sum(line["seconds"] * line.get("devices", 1) for line in logs["timing"]) / 3600)
    notes = {name: trend(*where) for name, where in found.items()}
    tile = "<div><b>{}</b>{}<small>{}</small></div>"
    return f"<div class=tiles>{''.join(tile.format(v, k, notes.get(k, '')) for k, v in shown.items())}</div>"


def trend(lines: Sequence[Line], key: str) -> str:
    """How a figure's mean moved from the third quarter of its lines to the last; empty for fewer than eight lines."""
    values = known(lines, key)
    quarter = len(values) // 4
    if quarter < 2:
        return ""
    before, now = sum(values[-2 * quarter : -quarter]), sum(values[-quarter:])
    return f"{100 * (now / before - 1):+.1f} % against the quarter before" if before else ""


def sample_grids(grids: Sequence[tuple[int, Path]]) -> str:
    """The last grid, the first, and some in between, embedded, the newest first."""
    pictures = []
    for number, path in reversed(spread(grids, MOST_GRIDS)):
        data = base64.b64encode(path.read_bytes()).decode()
        image = f'<img alt="samples at step {number}" src="data:image/png;base64,{data}">'
        pictures.append(f"<figure>{image}<figcaption>step {number:,}</figcaption></figure>")
    return f"<div class=grids>{''.join(pictures)}</div>" if pictures else ""


def charts(logs: Mapping[str, Any]) -> Iterator[str]:
    """A chart per figure of each log; the losses of the time bins share one."""
    curves = {}
    for name, log in logs.items():
        for key in dict.fromkeys(key for line in log.lines for key in line if key != "step"):
            points = [(line["step"], line[key]) for line in log.lines if key in line]
            if (name != "timing" or key in TITLES) and all(isinstance(y, int | float | None) for _, y in points):
                curves[key] = points
    bins = [key for key in curves if key.startswith("loss_t")]
    if not any(value for _, value in curves.get("skipped", [])):
        curves.pop("skipped", None)
    for key in sorted(curves.keys() - bins, key=[*TITLES, *sorted(curves)].index):
        yield line_chart(TITLES.get(key, key), {key: curves[key]}, allow_log=key != "learning_rate")
    ranges = [f"{i / len(bins):.3g} to {(i + 1) / len(bins):.3g}" for i in range(len(bins))]
    yield line_chart(
        "Loss by time t (0 is noise, 1 is data)", {r: curves[key] for r, key in zip(ranges, bins, strict=True)}
    )


def time_spent(lines: Sequence[Line]) -> str:
    """A bar of what the hours went to."""
    totals = {"training": sum(line["seconds"] for line in lines)}
    for key in beside(lines):
        totals[key.removesuffix("_seconds")] = sum(line.get(key, 0.0) for line in lines)
    whole = sum(totals.values())
    if not whole:
        return ""
    bar = "".join(f'<i class="s{3 * i % 8}" style="flex:{t / whole:.4f}"></i>' for i, t in enumerate(totals.values()))
    keys = "".join(
        f'<span><i class="s{3 * i % 8}"></i>{html.escape(name)} {duration(t)}</span>'
        for i, (name, t) in enumerate(totals.items())
    )
    return f'<div class=bar>{bar}</div><div class="legend">{keys}</div>'


def beside(lines: Sequence[Line]) -> list[str]:
    """The columns of what was done beside the steps."""
    return list(dict.fromkeys(key for line in lines for key in line if key.endswith("_seconds")))


def config_table(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """A table per block; what differs from the defaults is marked, with the default beside it."""
    usual = dict(flatten(defaults))
    blocks: dict[str, list[str]] = {}
    for key, value in flatten(config):
        block, _, rest = key.partition(".") if "." in key else ("run", "", key)
        cells = f"<th>{html.escape(rest)}</th><td>{html.escape(str(value))}</td>"
        row = f"<tr>{cells}<td></td></tr>"
        if key not in usual or usual[key] != value:
            default = f"default {usual[key]}" if key in usual else ""
            row = f"<tr class=changed>{cells}<td>{html.escape(default)}</td></tr>"
        blocks.setdefault(block, []).append(row)
    return "".join(
        f"<div class=block><h3>{html.escape(name)}</h3><table>{''.join(rows)}</table></div>"
        for name, rows in blocks.items()
    )


def machine(run: Run) -> str:
    device, data = jax.devices()[0], run.dataset
    shape = "x".join(map(str, data.image_shape))
    rows = {
        "data": f"{data.name}: {len(data.train):,} training and {len(data.test):,} test images {shape}, "
        f"{data.num_classes} classes; {data.provenance}",
        "devices": f"{jax.device_count()} x {device.device_kind} ({device.platform}), "
        f"{jax.process_count()} process{'es' if jax.process_count() > 1 else ''}, parallel mode {run.layout.mode}",
        "system": f"{platform.platform()}, Python {platform.python_version()}",
        "versions": ", ".join([f"fmd {fmd.__version__}", *(f"{name} {version(name)}" for name in PACKAGES)]),
    }
    table = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in rows.items())
    parameters = html.escape(parameter_table(run.state.ema[run.info.averages[0]]))
    return f"<table>{table}</table><details><summary>Parameters</summary><pre>{parameters}</pre></details>"


def known(lines: Sequence[Line], key: str) -> list[Any]:
    """The values of a column that are there."""
    return [line[key] for line in lines if line.get(key) is not None]


def last(lines: Sequence[Line], key: str) -> Any:
    """The newest value of a column, or None."""
    return next(reversed(known(lines, key)), None)


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """The first, the last and some in between, evenly."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def duration(seconds: float | int) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds:.3g} s"
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min {rest:02} s"
