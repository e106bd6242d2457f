"""The pieces of a model card, from what the run stored about itself."""

import json
from collections.abc import Iterable, Sequence

import jax

from fmd import methods
from fmd.blocks import Block, flatten, plain
from fmd.export.portable import shapes
from fmd.export.quality import Figures, meaning
from fmd.math import solvers
from fmd.run_info import RunInfo
from fmd.types import Params

RECIPE = ("model", "method", "path", "train", "optimizer", "ema", "data", "sample")  # config blocks that make a model
MOST_NAMES = 32  # of classes
LONGEST_VALUE = 120  # letters in a table


def kind(info: RunInfo) -> str:
    """The kind of generator, for the title."""
    if info.conditions is not None:
        return "Conditional generator"
    return "Class-conditional generator" if info.num_classes else "Generator"


def draws(info: RunInfo) -> str:
    """The images that it draws, in a sentence."""
    if info.conditions is not None:
        return f"It draws images, told {' and '.join(info.conditions)}."
    if not info.num_classes:
        return "It draws images without being told a class."
    return f"It draws images of {info.num_classes} classes{' and unconditional ones' if info.can_be_guided else ''}."


def sampling(info: RunInfo) -> str:
    """The solver and the guidance rule in words."""
    settings = info.config.sample

    def named(block: Block) -> str:
        told = ", ".join(f"{key} {plain(value)}" for key, value in block.params.items() if key != "weight")
        return block.name + (f" ({told})" if told else "")

    if not getattr(methods.from_config(info.config), "solves", True):
        return "one evaluation"
    adaptive = settings.solver in solvers.ADAPTIVE
    solver = f"solver {settings.solver}" + ("" if adaptive else f" with {settings.steps} steps")
    if adaptive and settings.rtol is not None:
        solver += f" of tolerance {settings.rtol:g}"
    if not adaptive and settings.grid.name != "uniform":
        solver += f" on the grid {named(settings.grid)}"
    if settings.schedule is not None:
        solver += f" along the schedule {named(settings.schedule)}"
    return f"{solver}, guidance rule {named(settings.guidance)}"


def training(info: RunInfo, params: Params) -> str:
    """Where the weights come from, as a table."""
    config, step, steps = info.config, info.step or 0, info.config.train.num_steps
    names = info.class_names or ()
    listed = ", ".join([*names[:MOST_NAMES], *(["..."] if len(names) > MOST_NAMES else [])])
    rows = {
        "data": f"{info.train_images:,} images of `{config.data.source}`, {info.provenance}",
        "classes": f"{info.num_classes}" + (f": {listed}" if listed else ""),
        "method": f"`{config.method.name}`",
        "steps": f"{step:,}" + ("" if step >= steps else f"; the config asks for {steps:,}"),
        "images seen": f"{step * config.train.batch_size:,}",
        "seed": config.seed,
        "weights": f"average `{info.averages[0]}` of the parameters along the run{average(info)}",
        "parameters": f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,}",
    }
    if info.cost is not None:  # of the steps, as timing.jsonl says
        rows["operations"] = f"{info.cost['flops']:.3g}, all convolutions and matrix products of training"
        rows["device-hours"] = f"{info.cost['device_hours']:.3g}, without evaluation and samples"
        if "images_per_second" in info.cost:
            rows["images per second"] = f"{info.cost['images_per_second']:.4g}, in the middle of the training steps"
        if "utilisation" in info.cost:
            rows["of the devices' peak"] = f"{info.cost['utilisation']:.1%}, by the operations of the network alone"
    return table(("", ""), list(rows.items()))


def average(info: RunInfo) -> str:
    """The meaning of the name of the average."""
    name, ema = info.averages[0], info.config.ema
    if name.startswith("decay"):
        return f": exponential, decay {ema.decays[int(name.removeprefix('decay'))]:g} after its warm-up"
    width = name.removeprefix("std=") if name.startswith("std=") else ema.power_stds[int(name.removeprefix("power"))]
    return f": power function of relative width {width} (arXiv 2312.02696)"


def quality(figures: Figures) -> str:
    """Figures as a table; lists, as of the figures of every class, are left out."""
    values = {key: value for key, value in figures.values.items() if value is not None and not isinstance(value, list)}
    rows = [(key, short(value), meaning(key)) for key, value in values.items()]
    return f"{figures.title}:\n\n{table(('figure', 'value', 'meaning'), rows)}"


def recipe(config: dict[str, object]) -> str:
    """The part of a config that makes the model, as a table."""
    chosen = {"seed": config["seed"], **{block: config[block] for block in RECIPE}}
    return table(("key", "value"), [(key, short(value)) for key, value in flatten(chosen) if value != {}])


def inputs(info: RunInfo) -> str:
    """The conditions that the portable program takes, as items of a list."""
    counts = {"labels": info.num_classes}
    if info.conditions is not None:
        counts = {name: part["num_classes"] for name, part in info.conditions.items() if part["kind"] == "label"}
    lines = []
    for name, (shape, dtype) in shapes(info).items():
        if name == "noise":
            continue
        dims = ", ".join(map(str, ("b", *shape[1:])))
        line = f"- `{name}` {'are' if name == 'labels' else 'is'} {dtype} [{dims}]"
        count = counts.get(name)
        if count:
            untold = "an unconditional image" if name == "labels" else "an image that is not told it"
            line += f": 0 to {count - 1}, or {count} for {untold}"
        elif count == 0:
            line += ": all 0, the model knows no classes"
        lines.append(f"{line}.")
    return "\n".join(lines)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [[" ".join(str(value).replace("|", "\\|").split()) for value in line] for line in (head, *rows)]
    lines.insert(1, ["---"] * len(head))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def short(value: object) -> str:
    """A number with six digits; anything else as JSON, cut."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
