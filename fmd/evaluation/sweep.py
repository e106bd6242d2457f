"""Quality against one setting, everything else and the noise held fixed: a table, a JSON file and a picture.

weight     guidance weights
shift      time shifts of the solver's grid (2403.03206), more steps near noise above 1 and near data below
steps      steps of the fixed-grid solvers Euler, midpoint and Heun, and adaptive solves of several tolerances; of one
           solver alone where the request names it
average    all averages of the weights that the run keeps

All are written anew after each point, so a sweep that is stopped leaves what it found.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from absl import logging

from fmd.data import ImageDataset
from fmd.evaluation.evaluator import Request, judge_samples, settings_of
from fmd.math import solvers
from fmd.sampling.sampler import Sampler, load
from fmd.utils import plots
from fmd.utils.files import write_json
from fmd.utils.viz import save_png

WEIGHTS = (0.0, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
SHIFTS = (0.5, 0.7, 1.0, 1.4, 2.0)
STEPS = (5, 10, 20, 50)
FIXED = ("euler", "midpoint", "heun")
ADAPTIVE = "tsit5"
TOLERANCES = (1e-2, 1e-3)  # a grey level is 8e-3; by the solver's own default, 1e-5, a sweep takes hours on a CPU
COLUMNS = ("fid", "kid", "precision", "recall", "density", "coverage")  # of the first reference split
SETS = {"weight": "weight", "steps": "steps", "shift": "grid"}  # the part of a request that a sweep itself sets
KINDS = ("weight", "steps", "shift", "average")


def parse(text: str) -> tuple[str, tuple[str, ...]]:
    """("weight", ("1", "2")) from "weight=1,2"; no values where the usual ones are meant.

    Raises:
        ValueError: for another kind of sweep.
    """
    kind, _, values = text.partition("=")
    if kind not in KINDS:
        raise ValueError(f"--sweep={text}; give weight, steps, shift or average, or values such as weight=1,2,3")
    return kind, tuple(filter(None, values.split(",")))


def points(kind: str, values: Sequence[str], request: Request, averages: Sequence[str]) -> list[tuple[str, Any, Any]]:
    """(label, request, average) of each point; average None means the one at hand.

    Raises:
        ValueError: for values that are no numbers, numbers of steps for a solver that chooses its own, an average that
            is not there, or a request that already says what the sweep is to vary.
    """
    if kind in SETS and getattr(request, SETS[kind]) is not None:
        raise ValueError(f"--sweep={kind} tries several values and --{kind} asks for one; leave it out")
    if kind == "average":
        if unknown := [name for name in values if name not in averages and not name.startswith("std=")]:
            raise ValueError(f"--sweep=average: there is no {unknown[0]!r}, only {', '.join(averages)}")
        return [(name, request, name) for name in values or averages]
    try:
        if kind == "weight":
            weights = [float(v) for v in values] or WEIGHTS
            return [(f"{w:g}", replace(request, weight=w), None) for w in weights]
        if kind == "shift":
            factors = [float(v) for v in values] or SHIFTS
            return [(f"{f:g}", replace(request, grid={"name": "shifted", "factor": f}), None) for f in factors]
        counts = [int(v) for v in values] or STEPS
    except ValueError:
        raise ValueError(f"--sweep={kind}={','.join(values)}: the values must be numbers") from None
    if values and request.solver in solvers.ADAPTIVE:
        raise ValueError(f"--sweep=steps={','.join(values)}: {request.solver} chooses its own steps; give --tolerance")
    tolerances = TOLERANCES if request.tolerance is None else (request.tolerance,)
    requests: list[tuple[str, Any, Any]] = []
    for solver in (*FIXED, ADAPTIVE) if request.solver is None else (request.solver,):
        if solver in solvers.ADAPTIVE:
            asked = replace(request, solver=solver, grid=None)
            requests += [(f"{solver} {e:g}", replace(asked, tolerance=e), None) for e in tolerances]
        else:
            asked = replace(request, solver=solver, tolerance=None)
            requests += [(f"{solver} {n}", replace(asked, steps=n), None) for n in counts]
    return requests


def run(
    checkpoint: str | Path,
    sampler: Sampler,
    dataset: ImageDataset,
    request: Request,
    kind: str,
    values: Sequence[str],
    *,
    folder: Path,
) -> list[dict[str, Any]]:
    """One row per point: its label, the main figures, and what it took; printed and saved as they come."""
    todo = points(kind, values, request, sampler.facts["averages"])
    for _, asked, _ in todo:
        settings_of(sampler, asked)  # refused now, not after the points before
    rows: list[dict[str, Any]] = []
    settings: list[dict[str, Any]] = []
    for label, asked, average in todo:
        judged = sampler if average is None else load(checkpoint, which=average)
        result = judge_samples(judged, dataset, asked, folder=folder)
        figures, cost = result["figures"], result["cost"]
        row = {kind: label} | {name: figures[request.references[0]][name] for name in COLUMNS}
        row |= {"class_accuracy": figures.get("class_accuracy"), "evaluations": cost["evaluations_per_image"]}
        row |= {"failed": cost["failed"]}
        rows.append(row)
        settings.append(result["settings"])
        print(line(row) if len(rows) > 1 else f"{header(row)}\n{line(row)}", flush=True)
        written = save(Path(checkpoint), kind, rows, common_settings(settings))
    logging.info("written to %s", " and ".join(map(str, written)))
    return rows


def common_settings(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that all points share, None aside: an adaptive solver has no grid, the others no tolerance.

    The rule's weight is among them as `weight`, where it is the same for all.
    """
    shared = {}
    for key in settings[0]:
        values = [one[key] for one in settings]
        if key == "rule":
            values = [{name: part for name, part in rule.items() if name != "weight"} for rule in values]
        said = [value for value in values if value is not None]
        if all(value == said[0] for value in said):
            shared[key] = said[0] if said else None
    return shared


def header(row: dict[str, Any]) -> str:
    """The names of a row's columns."""
    return "".join(f"{name:>15}" for name in row)


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    return "".join(
        f"{value:>15}" if isinstance(value, str) else f"{'-':>15}" if value is None else f"{value:>15.5g}"
        for value in row.values()
    )


def save(folder: Path, kind: str, rows: Sequence[dict[str, Any]], settings: Mapping[str, Any]) -> list[Path]:
    """Writes sweep_KIND.json and, where matplotlib is installed, sweep_KIND.png; returns the files."""
    written = [folder / f"sweep_{kind}.json"]
    write_json(written[0], {"rows": list(rows), "settings": settings})
    if find_spec("matplotlib"):
        written.append(folder / f"sweep_{kind}.png")
        save_png(written[1], plots.sweep(kind, rows), overwrite=True)
    return written
