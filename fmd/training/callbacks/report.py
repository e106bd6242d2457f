"""report.html: one page that shows a run, to be opened with any browser, now or in ten years.

It needs nothing beside itself: curves are inline SVG, samples embedded PNGs. It is made from what is in the workdir
and in `run.logs`, so after a resume it shows the whole history.
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
PACKAGES = ("jax", "jaxlib", "flax", "optax", "diffrax", "orbax-checkpoint", "numpy")
TITLES = {
    "loss": "Loss",
    "validation_loss": "Validation loss",
    "grad_norm": "Gradient norm",
    "param_norm": "Parameter norm",
    "learning_rate": "Learning rate",
    "images_per_second": "Images per second",
    "memory_bytes": "Device memory in use, bytes",
    "skipped": "Steps left out",
}


class HtmlReport(Callback):
    """Writes report.html every `log.samples_every` steps and at the end. Put it last: it shows what the others made."""

    def on_step_end(self, run: Run) -> None:
        if run.due(run.config.log.samples_every) and not run.finished:
            self._write(run, "in progress")

    def on_train_end(self, run: Run) -> None:
        self._write(run, "finished" if run.finished else "stopped")

    def _write(self, run: Run, state: str) -> None:
        if is_main_process():
            with atomic_path(run.workdir / "report.html", overwrite=True) as temporary:
                temporary.write_text(page(run, state), encoding="utf-8")


def page(run: Run, state: str) -> str:
    """The whole page. `run` needs the attributes that fmd.training.callbacks.Callback lists."""
    name = html.escape(run.workdir.name)
    steps = f"step {run.step:,} of {run.config.train.num_steps:,}"
    written = time.strftime("%Y-%m-%d %H:%M")
    body = [
        f"<header><h1>{name}</h1><p>{steps}, {state}<span>{written}</span></p></header>",
        tiles(run),
        section("Samples", sample_grids(saved_grids(run.workdir, run.step))),
        section("Curves", "".join(charts(run.logs)), "charts"),
        section("Time", time_spent(run.logs["timing"].lines)),
        section("Config", config_table(as_plain(run.config), as_plain(type(run.config)())), "blocks"),
        section("Model, data and machine", machine(run)),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body>{''.join(body)}</body></html>\n"
    )


def section(title: str, content: str, kind: str = "") -> str:
    return f'<section><h2>{title}</h2><div class="{kind}">{content}</div></section>\n' if content else ""


def tiles(run: Run) -> str:
    """The figures that one looks for first."""
    logs = {name: log.lines for name, log in run.logs.items()}
    count = sum(leaf.size for leaf in jax.tree.leaves(run.weights))
    figures = {
        "training loss": last(logs.get("metrics", []), "loss"),
        "validation loss": last(logs.get("validation", []), "validation_loss"),
        "parameters": count,
        "images per second": _median(logs["timing"], "images_per_second"),
        "peak memory, bytes": last(logs["timing"], "peak_memory_bytes"),
    }
    shown = {name: short(value) for name, value in figures.items() if value is not None}
    shown["training time"] = duration(sum(line["seconds"] for line in logs["timing"]))
    return "<div class=tiles>" + "".join(f"<div><b>{v}</b>{k}</div>" for k, v in shown.items()) + "</div>"


def sample_grids(grids: Sequence[tuple[int, Path]]) -> str:
    """The first grid, the last, and some in between, embedded."""
    pictures = []
    for number, path in spread(grids, MOST_GRIDS):
        data = base64.b64encode(path.read_bytes()).decode()
        pictures.append(
            f'<figure><img alt="samples at step {number}" src="data:image/png;base64,{data}">'
            f"<figcaption>step {number:,}</figcaption></figure>"
        )
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
    for key in sorted(curves.keys() - bins, key=_place):
        yield line_chart(TITLES.get(key, key), {key: curves[key]}, allow_log=key != "learning_rate")
    ranges = [f"{i / len(bins):.3g} to {(i + 1) / len(bins):.3g}" for i in range(len(bins))]
    yield line_chart(
        "Loss by time t (0 is noise, 1 is data)", {r: curves[key] for r, key in zip(ranges, bins, strict=True)}
    )


def time_spent(lines: Sequence[Line]) -> str:
    """A bar of what the hours went to."""
    totals = {"training": sum(line["seconds"] for line in lines)}
    for key in dict.fromkeys(key for line in lines for key in line if key.endswith("_seconds")):
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


def config_table(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """A table per block; what differs from the defaults is marked, with the default beside it."""
    usual = dict(flatten(defaults))
    blocks: dict[str, list[str]] = {}
    for key, value in flatten(config):
        block, _, rest = key.partition(".") if "." in key else ("run", "", key)
        cells = f"<th>{html.escape(rest)}</th><td>{html.escape(str(value))}</td>"
        if key in usual and usual[key] == value:
            row = f"<tr>{cells}<td></td></tr>"
        else:
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
    parameters = html.escape(parameter_table(run.weights))
    return f"<table>{table}</table><details><summary>Parameters</summary><pre>{parameters}</pre></details>"


def last(lines: Sequence[Line], key: str) -> Any:
    """The newest value of a column, None where there is none."""
    return next((line[key] for line in reversed(lines) if line.get(key) is not None), None)


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


def _median(lines: Sequence[Line], key: str) -> Any:
    known = [line[key] for line in lines if line.get(key) is not None]
    return median(known) if known else None


def _place(key: str) -> tuple[int, str]:
    """Sorts by the order of TITLES, then by name."""
    return (list(TITLES).index(key) if key in TITLES else len(TITLES)), key
