"""Published figures, repeated: the same number of samples, seed and settings, and each figure within its allowance.

What is published is what `--mode=eval` wrote: in `quality.json` of an export, {"rows": {name: row}}, or in a file of
its own. An allowance covers another machine, another seed of the noise and the training repeated; it is

    shares (accuracy, precision, recall, coverage)    4 standard errors of a share, 4 sqrt(p (1 - p) / n)
    fid                                               an eighth of it, and 0.05
    kid                                               4 of its standard errors
    psnr of images made from images                   half a decibel

for n samples. Between three seeds of training the FIDs of experiments/reference differ by up to an eighth. Half a
decibel is an eighth of a squared error; between seeds it was not measured.
"""

import json
import math
from pathlib import Path
from typing import NamedTuple

from fmd.blocks import Plain, flatten
from fmd.checkpoints.weights import PUBLISHED
from fmd.config import Settings, resolve
from fmd.data import ImageDataset
from fmd.evaluation import features
from fmd.evaluation.evaluate import Request, judge_samples
from fmd.sampling.sampler import Sampler

MAIN = ("class_accuracy", "precision", "recall", "coverage", "fid", "kid")
PAIRED = ("psnr_of_draw", "psnr_of_mean", "accuracy_of_draw", "accuracy_of_mean")
ERRORS = 4.0  # standard errors
DECIBELS = 0.5
HEADER = f"{'figure':>24}  {'published':>9}  {'found':>9}  allowed"


class Compared(NamedTuple):
    """A figure by its dotted name, as published and as found again, and how far they may be apart."""

    name: str
    published: float
    found: float
    allowed: float

    @property
    def agrees(self) -> bool:
        return abs(self.found - self.published) <= self.allowed

    def __str__(self) -> str:
        verdict = "agrees" if self.agrees else "DIFFERS"
        return f"{self.name:>24}  {self.published:9.4f}  {self.found:9.4f}  +-{self.allowed:.4f}  {verdict}"


def read_row(path: Path, name: str | None = None) -> Plain:
    """A row of published figures: {"figures": ..., "settings": ...}.

    Args:
        path: a file that `--mode=eval` wrote, or an export.
        name: of the row of an export; default: its first.

    Raises:
        ValueError: where nothing is published there, or no such row.
    """
    file = path / PUBLISHED if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"no figures to repeat: there is no {file}; --published takes an eval.json")
    try:
        content = json.loads(file.read_text())
        rows: Plain = content["rows"] if path.is_dir() else {path.stem: content}
        row: Plain = rows[next(iter(rows)) if name is None else name]
        _ = row["figures"], row["settings"]["n_samples"]
    except KeyError as error:
        known = f"; its rows are {', '.join(rows)}" if name is not None and error.args == (name,) else ""
        raise ValueError(f"{file} has no {error.args[0]!r}{known}") from None
    except (ValueError, TypeError, StopIteration):
        raise ValueError(f"{file} is damaged, or not what --mode=eval wrote") from None
    return row


def asked(row: Plain, seed: int | None = None) -> tuple[Request, Settings]:
    """The request and the settings that gave a row, with its seed or another.

    Files of fmd 0.1 have fewer keys, and balanced classes.
    """
    said = row["settings"]
    sample = said.get("sample") or {key: said[key] for key in ("solver", "steps", "grid") if said[key] is not None}
    if "sample" not in said:
        sample |= {"guidance": said["rule"], "rtol": said.get("tolerance")}
    request = Request(
        n_samples=said["n_samples"],
        references=tuple(said["references"]),
        features=said["features"].partition("-")[0],  # without their version, which is compared below
        seed=said.get("seed", 0) if seed is None else seed,
        classes="balanced" if said.get("classes", "balanced") == "balanced" else "reference",
        paired_examples=said.get("paired_examples", 0),
        paired_draws=said.get("paired_draws", Request.paired_draws),
    )
    return request, resolve({"sample": sample}).sample


def verify(
    sampler: Sampler, dataset: ImageDataset, row: Plain, *, folder: Path, seed: int | None = None, quiet: bool = False
) -> list[Compared]:
    """The main figures of a row (see `read_row`) beside those of samples drawn anew.

    The sampler is of the average that the row says. Samples are kept in `folder` while they are drawn, from noise of
    the published seed unless another is given.

    Raises:
        ValueError: where the row is of another step, or was judged by other features or beside other images.
    """
    request, settings = asked(row, seed)
    here = {
        "step": sampler.info.step,
        "features": features.get(request.features, dataset).name,
        "data_digest": dataset.digest(),
    }
    for key, value in here.items():
        said = row["settings"].get(key)
        if said not in (None, value):
            raise ValueError(
                f"the published figures are of {key} = {said!r}, here it is {value!r}: they do not compare"
            )
    figures = judge_samples(sampler, dataset, request, settings, folder=folder, quiet=quiet)["figures"]
    found, published = dict(flatten(figures)), dict(flatten(row["figures"]))
    return [
        Compared(name, value, found[name], allowance(name, published, request))
        for name, value in published.items()
        if name in found and (name.rpartition(".")[2] in MAIN or name.removeprefix("paired.") in PAIRED)
    ]


def allowance(name: str, published: Plain, request: Request) -> float:
    """How far a figure may be from the published one, see above."""
    kind, value = name.rpartition(".")[2], published[name]
    if kind.startswith("psnr"):
        return DECIBELS
    if kind == "fid":
        return float(max(value / 8, 0.05))
    if kind == "kid":
        return float(ERRORS * published[f"{name}_standard_error"])
    count = request.paired_examples if name.startswith("paired.") else request.n_samples
    return ERRORS * math.sqrt(max(value * (1 - value), 1 / count) / count)
