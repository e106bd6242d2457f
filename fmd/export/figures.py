"""What a run found out about its weights: `eval.json` beside the checkpoint, `validation.jsonl` of the training."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fmd.checkpoints.weights import workdir_of
from fmd.utils.nested import flatten

MEANINGS = {
    "validation_loss": "mean over pixels and test images of the squared error of the velocity, from fixed noise, at "
    "times spread evenly over [0, 1]; lower is better; it says little about how the images look",
    "examples": "test images that were used",
    "step": "training steps that the weights had seen",
}


class Figures(NamedTuple):
    """A table of figures and what they are about."""

    title: str
    values: dict[str, Any]  # by dotted name


def find_figures(checkpoint: Path, facts: Mapping[str, Any], which: str) -> list[Figures]:
    """The figures in the folders of a checkpoint.

    Args:
        checkpoint: a workdir or one step inside it.
        facts: the run's, with the step of the weights.
        which: the average that is exported.
    """
    workdir, step = workdir_of(checkpoint), facts["step"]
    found = []
    for folder in dict.fromkeys([checkpoint, workdir]):
        values = _parse(_text(folder / "eval.json"))
        # The run may have gone on since, or another of its averages may have been evaluated.
        if values and values.get("step", step) == step and values.get("average", which) == which:
            found.append(Figures(f"Evaluation of step {step:,} (`--mode=eval`)", dict(flatten(values))))
            break
    lines = map(_parse, _text(workdir / "validation.jsonl").splitlines())
    if earlier := [line for line in lines if line.get("step", step + 1) <= step]:
        title = f"Validation in training, of the average `{facts['averages'][0]}` at step {earlier[-1]['step']:,}"
        found.append(Figures(title, earlier[-1]))
    return found


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _parse(text: str) -> dict[str, Any]:
    """A JSON object; empty where there is none, as in a line cut short by a kill."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
