"""Figures that a run left about its weights: `eval*.json` beside the checkpoint, `validation.jsonl` of the training."""

import json
from pathlib import Path
from typing import NamedTuple

from fmd.blocks import Plain, flatten
from fmd.checkpoints.weights import workdir_of
from fmd.export.places import without_folders
from fmd.files import read_json_lines
from fmd.run_info import RunInfo

MEANINGS = {  # by the last part of a figure's name
    "validation_loss": "mean over pixels and test images of the training loss, from fixed noise, at times spread "
    "evenly over [0, 1]; lower is better; it says little about how the images look",
    "fid": "Frechet distance of the samples' features from real images'; lower is better; it falls with the number of "
    "samples, and is the published FID only with InceptionV3's features",
    "kid": "squared maximum mean discrepancy of the features, unbiased; 0 for equal distributions",
    "precision": "share of samples in reach of a real image: as far as its k-th nearest of its own kind",
    "recall": "share of real images in reach of a sample",
    "density": "how many real images reach a sample, on average, over k",
    "coverage": "share of real images that reach a sample",
    "diversity": "mean squared distance of the features of two samples of a class",
    "diversity_of_real": "the same of real images",
    "class_accuracy": "share of samples that a classifier takes for the class that was asked for",
    "class_score": "the Inception Score's formula with another classifier; it knows nothing of real images",
    "copied": "share of samples as near to a training image as the nearest 1 % of the test images are to theirs",
    "copied_of_real": "the same of test images: 0.01, or more where many are equally near",
    "nearest_ratio": "median distance of samples to their nearest training image over that of test images",
    "bits_per_dim": "negative log-likelihood of test images in bits for each number of an image; lower is better",
    "evaluations_per_image": "calls of the network on one image, both halves of guidance counted",
    "training_flops": "operations of all convolutions and matrix products of the training steps",
    "training_device_hours": "hours of the training steps, times devices",
    "training_images_per_second": "median over the training steps, on all devices",
    "training_utilisation": "share of the devices' peak that the network's own operations took in training",
    "n_samples": "samples that were judged",
    "examples": "test images that were used",
    "step": "training steps that the weights had seen",
}


def meaning(name: str) -> str:
    """The meaning of a figure, by its dotted name; empty where it is not known here."""
    return MEANINGS.get(name.rpartition(".")[2], "")


class Figures(NamedTuple):
    """A table of figures by dotted name, and what they are about."""

    title: str
    values: Plain


def find_figures(checkpoint: Path, info: RunInfo) -> list[Figures]:
    """The figures in the folders of a workdir, or one step inside it, about the step and the average in `info`."""
    workdir, step = workdir_of(checkpoint), info.step or 0
    found = []
    for name, values in evaluations(checkpoint, info).items():
        row = "" if name == "eval" else f", row `{name}`"
        found.append(Figures(f"Evaluation of step {step:,} (`--mode=eval`){row}", dict(flatten(values))))
    lines = read_json_lines(workdir / "validation.jsonl")
    if earlier := [line for line in lines if line.get("step", step + 1) <= step]:
        title = f"Validation in training, of the average `{info.averages[0]}` at step {earlier[-1]['step']:,}"
        found.append(Figures(title, earlier[-1]))
    return found


def evaluations(checkpoint: Path, info: RunInfo) -> dict[str, Plain]:
    """The figures of `--mode=eval` for these weights, by file: eval.json, or a copy of it such as eval_flow.json.

    A run may have gone on since, or another of its averages may have been evaluated: such files do not count.
    """
    average = info.average or info.averages[0]
    for folder in dict.fromkeys([checkpoint, workdir_of(checkpoint)]):
        found = {}
        for file in sorted(folder.glob("eval*.json"), key=lambda file: file.stem):
            values = without_folders(_parse(file.read_text()))
            flat = dict(flatten(values))
            if flat and _is_of(flat, "step", info.step or 0) and _is_of(flat, "average", average):
                found[file.stem] = values
        if found:
            return found
    return {}


def _is_of(values: Plain, name: str, expected: object) -> bool:
    """True where what the figures say of themselves under a name, if they say it, is as expected."""
    return all(value in (None, expected) for key, value in values.items() if key.rpartition(".")[2] == name)


def _parse(text: str) -> Plain:
    """A JSON object; empty where there is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
