"""The table of results: a row for each config, its figures read from the files that `--mode=eval` wrote.

    python experiments/reference/table.py            # writes table.md; a test compares the two

A row names its files, one for each seed of the training. Figures of several seeds are their mean and standard
deviation. What no file holds stands in the row: memory of the training, the machine, and minutes of older runs.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fmd.blocks import flatten
from fmd.checkpoints.locate import SHIPPED, shipped
from fmd.evaluation.verify import read_row

RESULTS = Path(__file__).with_name("results")
TABLE = Path(__file__).with_name("table.md")
NO_BREAK = "\u00a0"  # a space at which no line is broken


@dataclass(frozen=True)
class Row:
    """A config, and where what it reached is written."""

    config: str
    files: Mapping[int, str] = field(default_factory=dict)  # by seed: a file in results/, or a model that ships
    minutes: str = ""  # of training; default: those of the steps, where the files say them
    memory: str = ""  # of the training process, at its peak
    machine: str = ""
    what: str = ""  # of several rows of a config, or why there are no files


def seeds(stem: str, *numbers: int) -> dict[int, str]:
    """A file for each seed, of names that end in it."""
    return {number: f"{stem}_seed{number}" for number in numbers}


TWO, ONE, BUSY = "2 cores", "1 core, busy", "2 cores, busy"
THREE = (123, 124, 125)
ROWS = (
    Row("digits", {0: "digits_cpu"}, machine=BUSY, what="by its pixels"),
    Row("mnist_baseline", seeds("mnist_baseline_cpu", 42, 43, 44), "8 to 10", machine=ONE),
    Row("mnist_cfg_strong", seeds("mnist_cfg_strong_cpu", *THREE), "4 to 6", "1.5 GB", TWO),
    Row("mnist_one_step", seeds("mnist_one_step_cpu_1200", *THREE), "48 to 104", "2.1 GB", BUSY),
    Row("mnist_one_step", seeds("mnist_one_step_cpu_1200_jumps2", *THREE), "48 to 104", "2.1 GB", BUSY, "by two jumps"),
    Row("mnist_transformer", {123: "mnist_transformer_cpu"}, memory="1.7 GB", machine=ONE),
    Row("mnist_denoise", {123: "mnist_denoise_cpu"}, "11", "1.5 GB", BUSY),
    Row("mnist_denoise", {123: "mnist_denoise_mean_cpu"}, machine=ONE, what="a regression"),
    Row("mnist_super_resolution", {123: "mnist_super_resolution_cpu"}, "11", "1.5 GB", BUSY),
    Row("mnist_super_resolution", {123: "mnist_super_resolution_mean_cpu"}, "13", machine=ONE, what="a regression"),
    Row("mnist_super_resolution", {123: "mnist_bridge_cpu"}, machine=ONE, what="a bridge"),
    Row("fashion_mnist", seeds("fashion_mnist_cpu", *THREE), "5 to 6", "1.5 GB", BUSY),
    Row("fashion_mnist_one_step", seeds("fashion_mnist_one_step_cpu_1200", *THREE), "48 to 101", "2.1 GB", BUSY),
    Row(
        "fashion_mnist_one_step",
        seeds("fashion_mnist_one_step_cpu_1200_jumps2", *THREE),
        "48 to 101",
        "2.1 GB",
        BUSY,
        "by two jumps",
    ),
    Row("fashion_mnist_inpaint", {123: "fashion_mnist_inpaint_cpu"}, memory="1.5 GB", machine=ONE),
    Row("fine_tune", {123: "fine_tune_cpu"}, "6", "1.5 GB", BUSY),
    Row("fine_tune", {123: "fine_tune_lora_cpu"}, memory="1.5 GB", machine=ONE, what="low-rank"),
    Row("folder", {0: "folder_cpu"}, machine=BUSY, what="CIFAR-10; by 8x8 blocks"),
    Row("folder_pairs", {0: "folder_pairs_cpu"}, machine=BUSY, what="colours; by 8x8 blocks"),
    *(Row(name, what="for accelerators") for name in ("cifar10", "cifar10_one_step", "cifar10_transformer")),
    *(Row(name, what="for accelerators") for name in ("imagenet64", "imagenet256")),
)
MINUTES = ("cost.training_device_hours", "{:.0f}", 60)
COLUMNS = {  # heading: dotted name of the figure, how it is written, in which unit
    "samples": ("settings.n_samples", "{:,.0f}", 1),
    "evaluations": ("cost.evaluations_per_image", "{:.0f}", 1),
    "FID test": ("figures.test.fid", "{:.2f}", 1),
    "right class, %": ("figures.class_accuracy", "{:.1f}", 100),
    "recall": ("figures.test.recall", "{:.3f}", 1),
    "PSNR, dB": ("figures.paired.psnr_of_draw", "{:.1f}", 1),
}


def main() -> None:
    TABLE.write_text(text())


def text() -> str:
    """The table as Markdown."""
    headings = ["config", "seeds", *COLUMNS, "minutes", "memory", "machine", "file"]
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for row in ROWS:
        unbroken = [cell.replace(" ", NO_BREAK) for cell in cells(row)]
        lines.append(f"| {' | '.join(unbroken)} |")
    return "\n".join(lines) + "\n"


def cells(row: Row) -> list[str]:
    """The cells of a row; of one that was not measured the first two."""
    name = f"`{row.config}`, {row.what}" if row.what else f"`{row.config}`"
    if not row.files:
        return [name, "not measured", *[""] * (len(COLUMNS) + 4)]
    figures = [dict(flatten(read_row(path_of(name)))) for name in row.files.values()]
    *found, minutes = [
        written([values.get(name) for values in figures], form, unit)
        for name, form, unit in (*COLUMNS.values(), MINUTES)
    ]
    numbers = ", ".join(map(str, row.files))
    return [name, numbers, *found, row.minutes or minutes, row.memory, row.machine, label(row.files)]


def path_of(name: str) -> Path:
    """The file of a name, or the folder of a model that ships."""
    return SHIPPED / name if name in shipped() else RESULTS / f"{name}.json"


def written(values: list[float | None], form: str, unit: float) -> str:
    """A figure, or the mean of several and where they differ their standard deviation; nothing where it is missing."""
    known = [value * unit for value in values if value is not None]
    mean = form.format(statistics.fmean(known)) if known else ""
    return f"{mean} ± {form.format(statistics.stdev(known))}" if len(set(known)) > 1 else mean


def label(files: Mapping[int, str]) -> str:
    """How the files of a row are named in the table: one name for all, with their seeds in braces."""
    seed, name = next(iter(files.items()))
    if name in shipped():
        return f"`fmd/shipped/{name}`"
    several = "{" + ",".join(map(str, files)) + "}"
    return f"`{name.replace(str(seed), several) if len(files) > 1 else name}`"


if __name__ == "__main__":
    main()
