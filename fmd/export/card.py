"""README.md of an exported folder: what the model is, what it learnt from and how well, and how to use it.

It names neither folders of this machine nor times, so that the same export gives the same card.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from fmd.export import snippets
from fmd.export.figures import Figures, meaning
from fmd.sampling.program import EVEN, Settings, can_be_guided, rule_parameters
from fmd.utils.nested import flatten

RECIPE = ("model", "path", "train", "optimizer", "ema", "data", "sample")  # the blocks of a config that make the model
MOST_NAMES = 32  # of classes
LONGEST_VALUE = 120  # letters in a table

CARD = """\
# {kind} of {shape} images, trained on {source}

{what} It was trained with fmd {fmd_version}: flow matching in JAX.

![A grid of samples, a row per class](samples.png)

Drawn by this model: {per_row} images to a row, {settings}, guidance weight {weight}, seed {seed}; {evaluations}
evaluations of the network per image.

## What is here

| file | what |
|---|---|
| `weights/` | the averaged weights as an Orbax checkpoint |
| `weights.safetensors` | the same weights, by dotted names |
| `sampler.stablehlo` | the guided sampler with the weights inside, for JAX alone |
| `config.json` | format version, config, image shape, classes, origin of the data, step, settings of the sampler |
| `samples.png` | the picture above |
| `checksums.json` | BLAKE2b-128 of every other file |

## Training

{facts}

## Figures

{figures}

## Recipe

The config, without what only concerns the run (its logs, its checkpoints, its devices):

{recipe}

## Use

Each program below is complete, runs in this folder and draws the same four images. From the same noise the first two
are equal to the bit on one machine. The third is compiled with the weights as constants: one grey level of difference
in fewer than one in a thousand pixels is allowed there.

### With fmd

```python
{sampler}
```

A key may stand in place of the noise, `sampler({labels}, jax.random.key(0))`, and the settings may change, see
`help(sampler.sample)`. From the command line:
`python -m fmd.main --mode=sample --checkpoint=. --outfile=more.png`.

### With Orbax and Flax

The network is in `fmd.models`, guidance and solver are functions of `fmd.math`. The options of the compiler make it
equal to the bit; the images are right without them, too.

```python
{orbax}
```

The same parameters from `weights.safetensors`:

```python
{safetensors}
```

### With JAX alone

No fmd and no Flax: `pip install jax flatbuffers`.

```python
{jax_alone}
```

- It runs on {platforms}, for any batch size from 1. Inside, for good: {settings}.
- `noise` is float32 [b, {pixels}], standard normal from any generator, which is why it takes noise and not a key.
- `labels` are int32 [b]: {label_range}.
- `weight` is float32, {weight_range}.
- The images are uint8 [b, {pixels}]. Such a program cannot raise errors: where a label or the weight is none of the
  above, or a pixel would not be finite, the image is black.
- It was written by JAX {jax}, and JAX promises to read such files for six months. The weights and the config last.

## Licence

The code is Apache-2.0. The weights were made from the data named above, and the terms of that data apply to them.
"""


def model_card(
    facts: Mapping[str, Any],
    params: Any,
    settings: Settings,
    figures: Sequence[Figures],
    *,
    per_row: int,
    evaluations: float,
) -> str:
    """The whole text.

    Args:
        facts: what config.json says.
        params: the weights.
        settings: of the sampler.
        figures: what is known about the quality of the weights.
        per_row: samples in a row of the picture.
        evaluations: of the network for one of them.
    """
    config, classes, shape = facts["config"], facts["num_classes"], "x".join(map(str, facts["image_shape"]))
    guided = can_be_guided(facts)
    recipe = {"seed": config["seed"], **{block: config[block] for block in RECIPE}}
    code = {
        name: snippets.fill(template, facts, settings)
        for name, template in {
            "sampler": snippets.SAMPLER,
            "orbax": snippets.ORBAX_AND_FLAX,
            "safetensors": snippets.SAFETENSORS,
            "jax_alone": snippets.JAX_ALONE,
        }.items()
    }
    if classes:
        what = f"It draws images of {classes} classes{' and unconditional ones' if guided else ''}."
        label_range = f"0 to {classes - 1}, or {classes} for an unconditional image"
    else:
        what, label_range = "It draws images without being told a class.", "all 0, the model knows no classes"
    if guided:
        weight_range = "finite: 1 is conditional, 0 unconditional, more is more typical of the class"
    else:
        weight_range = "1: this model cannot be guided, since it was not trained both with and without labels"
    return CARD.format(
        kind="Class-conditional generator" if classes else "Generator",
        shape=shape,
        pixels=", ".join(map(str, facts["image_shape"])),
        source=f"`{config['data']['source']}`",
        what=what,
        fmd_version=facts["fmd_version"],
        per_row=per_row,
        settings=_settings(settings),
        weight=f"{settings.rule['weight']:g}",
        seed=config["seed"],
        evaluations=f"{evaluations:.4g}",
        facts=_table(("", ""), _training(facts, params).items()),
        figures="\n\n".join(map(_figures, figures)) or "None: the run left no evaluation of these weights.",
        recipe=_table(("key", "value"), [(key, _short(value)) for key, value in flatten(recipe)]),
        labels=[0, min(1, max(classes - 1, 0))],
        platforms=", ".join(facts["sampler"]["platforms"]),
        label_range=label_range,
        weight_range=weight_range,
        jax=facts["sampler"]["jax"],
        **code,
    )


def _settings(settings: Settings) -> str:
    """The solver and the guidance rule in words."""
    parameters = ", ".join(f"{key} {value}" for key, value in rule_parameters(settings.rule).items())
    solver = f"solver {settings.solver}" + ("" if settings.adaptive else f" with {settings.steps} steps")
    if settings.grid not in (None, EVEN):
        solver += f" on the grid {', '.join(str(value) for value in settings.grid.values())}"
    return f"{solver}, guidance rule {settings.rule['name']}" + (f" ({parameters})" if parameters else "")


def _training(facts: Mapping[str, Any], params: Any) -> dict[str, Any]:
    """Where the weights come from."""
    config, step, steps = facts["config"], facts["step"], facts["config"]["train"]["num_steps"]
    names = facts["class_names"] or []
    shown = ", ".join([*names[:MOST_NAMES], *(["..."] if len(names) > MOST_NAMES else [])])
    return {
        "data": f"{facts['train_images']:,} images of `{config['data']['source']}`, {_origin(facts['provenance'])}",
        "classes": f"{facts['num_classes']}" + (f": {shown}" if shown else ""),
        "steps": f"{step:,} of {steps:,}" + ("" if step >= steps else ": **training was not finished**"),
        "images seen": f"{step * config['train']['batch_size']:,}",
        "seed": config["seed"],
        "weights": f"average `{facts['averages'][0]}` of the parameters along the run{_average(facts)}",
        "parameters": f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,}",
    }


def _origin(provenance: str) -> str:
    """Where the data came from, without the folders of the machine that trained."""
    words = provenance.partition(" (")[0].split(" ")
    return " ".join(Path(word).name if word.startswith("/") else word for word in words)


def _average(facts: Mapping[str, Any]) -> str:
    """What the name of the average means."""
    name, ema = facts["averages"][0], facts["config"]["ema"]
    if name.startswith("decay"):
        return f": exponential, decay {ema['decays'][int(name.removeprefix('decay'))]:g} after its warm-up"
    width = name.removeprefix("std=") if name.startswith("std=") else ema["power_stds"][int(name.removeprefix("power"))]
    return f": power function of relative width {width} (arXiv 2312.02696)"


def _figures(figures: Figures) -> str:
    """A table; lists, as of the figures of every class, are left out."""
    values = {key: value for key, value in figures.values.items() if value is not None and not isinstance(value, list)}
    rows = [(key, _short(value), meaning(key)) for key, value in values.items()]
    return f"{figures.title}:\n\n{_table(('figure', 'value', 'meaning'), rows)}"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _short(value: Any) -> str:
    """A number with six digits; anything else as JSON, cut."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
