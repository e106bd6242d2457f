"""Quality against one setting, everything else and the noise held fixed: a table, a JSON file and a picture.

weight     guidance weights
shift      time shifts of the solver's grid (2403.03206): more steps near noise above 1, near data below
steps      steps of the fixed-grid solvers Euler, midpoint and Heun, and adaptive solves of several tolerances; jumps
           where the model is sampled by them; of one solver alone where it was asked for
average    all averages of the weights that the run keeps

All are written anew after each point, so a sweep that is stopped leaves what it found.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from absl import logging

from fmd.blocks import Block, Plain
from fmd.config import Settings
from fmd.data import ImageDataset
from fmd.evaluation.evaluate import Request, judge_samples, labels_of, settings_of
from fmd.evaluation.teacher import TeacherImages
from fmd.files import write_json
from fmd.math import solvers
from fmd.pictures import plots
from fmd.pictures.grids import save_png
from fmd.sampling.sampler import Sampler, load

NUMBERS = {"weight": (0.0, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0), "shift": (0.5, 0.7, 1.0, 1.4, 2.0)}
STEPS = (5, 10, 20, 50)
FIXED = ("euler", "midpoint", "heun")
JUMPS = (1, 2, 4, 8)  # of networks with a second time; they are not guided
ADAPTIVE = "tsit5"
TOLERANCES = (1e-2, 1e-3)  # a grey level is 8e-3; by the solver's own default, 1e-5, a sweep takes hours on a CPU
COLUMNS = ("fid", "kid", "precision", "recall", "density", "coverage")  # of the first reference split
KINDS = ("weight", "steps", "shift", "average")


class Point(NamedTuple):
    """A point of a sweep and its name; `average` None means the weights at hand."""

    label: str
    settings: Settings
    average: str | None = None


def parse(text: str) -> tuple[str, tuple[str, ...]]:
    """("weight", ("1", "2")) from "weight=1,2"; no values where the usual ones are meant.

    Raises:
        ValueError: for another kind of sweep.
    """
    kind, _, values = text.partition("=")
    if kind not in KINDS:
        raise ValueError(f"--sweep={text}; give weight, steps, shift or average, or values such as weight=1,2,3")
    return kind, tuple(filter(None, values.split(",")))


def points(
    kind: str, values: Sequence[str], settings: Settings, averages: Sequence[str], *, one_solver: bool = False
) -> list[Point]:
    """The points of a sweep of a kind in `KINDS`, over these values or, where there are none, the usual ones.

    The rest is that of `settings` at all points. `averages` are those that the run keeps; with `one_solver` numbers of
    steps are tried with the solver of `settings` alone.

    Raises:
        ValueError: for values that are no numbers, numbers of steps for a solver that chooses its own, or an average
            that is not there.
    """
    if kind == "average":
        if unknown := [name for name in values if name not in averages and not name.startswith("std=")]:
            raise ValueError(f"--sweep=average: there is no {unknown[0]!r}, only {', '.join(averages)}")
        return [Point(name, settings, name) for name in values or averages]
    try:
        if kind in NUMBERS:
            numbers = [float(v) for v in values] or NUMBERS[kind]
            return [Point(f"{n:g}", settings.replace(**{kind: n})) for n in numbers]
        counts = [int(v) for v in values]
    except ValueError:
        raise ValueError(f"--sweep={kind}={','.join(values)}: the values must be numbers") from None
    if one_solver and values and settings.solver in solvers.ADAPTIVE:
        raise ValueError(f"--sweep=steps={','.join(values)}: {settings.solver} chooses its own steps; give --tolerance")
    tried = (settings.solver,) if one_solver else (*FIXED, ADAPTIVE)
    tried = tried if settings.solver in (*tried, *solvers.ADAPTIVE) else (settings.solver, *tried)
    tolerances = TOLERANCES if settings.rtol is None else (settings.rtol,)
    found = []
    for solver in tried:
        if solver in solvers.ADAPTIVE:
            asked = replace(settings, solver=solver, grid=Block("uniform"))
            found += [Point(f"{solver} {e:g}", asked.replace(tolerance=e)) for e in tolerances]
        else:
            asked = replace(settings, solver=solver, rtol=None, atol=None)
            asked = asked.replace(weight=1.0) if solver == solvers.JUMP else asked
            usual = JUMPS if solver == solvers.JUMP else STEPS
            found += [Point(f"{solver} {n}", asked.replace(steps=n)) for n in counts or usual]
    return found


def run(
    checkpoint: str | Path,
    sampler: Sampler,
    dataset: ImageDataset,
    request: Request,
    settings: Settings,
    kind: str,
    values: Sequence[str],
    *,
    folder: Path,
    found: Path | None = None,
    one_solver: bool = False,
    teacher: Sampler | None = None,
) -> list[Plain]:
    """One row per point: its label, the main figures and the cost; printed and saved as they come.

    They are saved in the folder `found`; default: the checkpoint's own. With a `teacher` each row has the distance
    from its images, too.
    """
    todo = points(kind, values, settings, sampler.info.averages, one_solver=one_solver)
    for point in todo:
        settings_of(sampler, request, point.settings)  # refused now, not after the points before
    taught = None
    if teacher is not None:
        taught = TeacherImages(sampler, teacher, labels_of(request, dataset), request.seed, quiet=False)
    rows: list[Plain] = []
    recorded: list[Plain] = []
    for point in todo:
        judged = sampler if point.average is None else load(checkpoint, average=point.average)
        result = judge_samples(judged, dataset, request, point.settings, folder=folder)
        figures, cost = result["figures"], result["cost"]
        row = {kind: point.label} | {name: figures[request.references[0]][name] for name in COLUMNS}
        row |= {"class_accuracy": figures.get("class_accuracy"), "evaluations": cost["evaluations_per_image"]}
        row |= {"failed": cost["failed"]}
        row |= {} if taught is None else {"to_teacher": taught.distance(judged, point.settings)}
        rows.append(row)
        recorded.append(result["settings"])
        print(line(row) if len(rows) > 1 else f"{header(row)}\n{line(row)}", flush=True)
        written = save(Path(checkpoint) if found is None else found, kind, rows, common_settings(recorded))
    logging.info("written to %s", " and ".join(map(str, written)))
    return rows


def common_settings(settings: Sequence[Mapping[str, object]]) -> Plain:
    """The settings that are equal at all points; of a block, those inside it. Points where one is None do not count."""
    shared: Plain = {}
    for key in settings[0]:
        said = [one[key] for one in settings if one.get(key) is not None]
        blocks = [value for value in said if isinstance(value, Mapping)]
        if said and len(blocks) == len(said):
            if len({block.get("name") for block in blocks}) == 1:
                shared[key] = common_settings(blocks)
        elif all(value == said[0] for value in said):
            shared[key] = said[0] if said else None
    return shared


def header(row: Mapping[str, object]) -> str:
    """The names of a row's columns."""
    return "".join(f"{name:>15}" for name in row)


def line(row: Plain) -> str:
    """A row of the table."""
    return "".join(
        f"{value:>15}" if isinstance(value, str) else f"{'-':>15}" if value is None else f"{value:>15.5g}"
        for value in row.values()
    )


def save(folder: Path, kind: str, rows: Sequence[Plain], settings: Plain) -> list[Path]:
    """Writes sweep_KIND.json and, where matplotlib is installed, sweep_KIND.png; returns the files."""
    written = [folder / f"sweep_{kind}.json"]
    write_json(written[0], {"rows": list(rows), "settings": settings})
    if find_spec("matplotlib"):
        written.append(folder / f"sweep_{kind}.png")
        save_png(written[1], plots.sweep(kind, rows), overwrite=True)
    return written
