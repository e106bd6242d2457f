"""README.md of an exported folder: what the model is, what it learnt from and how well, and how to use it.

It begins with what the Hugging Face Hub reads of it. It names neither folders of this machine nor times, so that the
same export gives the same card.
"""

from collections.abc import Sequence

from fmd.blocks import as_plain
from fmd.export import describe, snippets
from fmd.export.quality import Figures
from fmd.math.solvers import JUMP
from fmd.models.conditions import on_grid
from fmd.run_info import RunInfo
from fmd.sampling.overview import Overview
from fmd.types import Params

CARD = """\
---
library_name: fmd
license: other
license_name: terms-of-the-training-data
pipeline_tag: {task}
tags: [flow-matching, jax, {method}]
---
# {kind} of {shape} images, trained on {source}

{what} It was trained with fmd {fmd_version} in JAX, by the method `{method}`.

![{caption}](samples.png)

Drawn by this model: {per_row} images to a row, {settings}, guidance weight {weight}, seed {seed}; {evaluations}
evaluations of the network per image.

## What is here

| file | what |
|---|---|
{files}

## Training

{training}

## Figures

{figures}

## Recipe

The config, without what only concerns the run (its logs, its checkpoints, its devices):

{recipe}

## Use

{use}

## Licence

The code is Apache-2.0. The weights were made from the data named above, and the terms of that data apply to them.
"""

FILES = """\
| `weights/` | the averaged weights as an Orbax checkpoint |
| `weights.safetensors` | the same weights, by dotted names |
| `sampler.stablehlo` | the guided sampler with the weights inside, for JAX alone |{flow_row}
| `config.json` | format version, config, image shape, classes, origin of the data, step, settings of the sampler |
| `samples.png` | the picture above |{published}
| `checksums.json` | BLAKE2b-128 of every other file |"""
COMPACT_FILES = """\
| `weights.safetensors` | the averaged weights in float16, by dotted names |
| `config.json` | format version, config, image shape, classes, origin of the data, step |
| `samples.png` | the picture above |{published}
| `checksums.json` | BLAKE2b-128 of every other file |"""

USE = """\
Each program below is complete, runs in this folder and draws the same four images. From the same noise the first two
are equal to the bit on one machine. The third is compiled with the weights as constants: one grey level of difference
in fewer than one in a thousand pixels is allowed there.

{with_fmd}

### With Orbax and Flax

The network is in `fmd.models`, {where}. The options of the compiler make it
equal to the bit; the images are right without them, too.

```python
{orbax}
```

The same parameters from `weights.safetensors`:

```python
{safetensors}
```

### With JAX alone

No fmd and no Flax: `pip install "jax>={least_jax}" flatbuffers`.

```python
{jax_alone}
```

- It runs on {platforms}, for any batch size from 1. Inside, for good: {settings}.
- `noise` is float32 [b, {pixels}], standard normal from any generator, which is why it takes noise and not a key.
{inputs}
- `weight` is float32, {weight_range}.
- The images are uint8 [b, {pixels}]. Such a program cannot raise errors: where an input is none of the above or a pixel
  would not be finite, the image is black.
- It needs JAX {least_jax} or newer; JAX promises to read such files for six months. The weights and the config last."""
COMPACT_USE = """\
{with_fmd}

### Without fmd

The parameters, in float16, of a network in `fmd.models`:

```python
{safetensors}
```"""
WITH_FMD = """\
### With fmd

```python
{sampler}
```

A key may stand in place of the noise, `sampler(y, jax.random.key(0))`, and the settings may change, see
`help(sampler.sample)`. From the command line:
`python -m fmd.main --mode=sample --checkpoint=. --outfile=more.png`."""

PUBLISHED_ROW = """
| `quality.json` | the figures below with all that decides them; `--mode=verify` repeats them |"""
FLOW_ROW = """
| `flow.stablehlo` | the same with the guided flow of this network in place of its jumps: slower, for any weight |"""


def model_card(
    info: RunInfo,
    params: Params,
    figures: Sequence[Figures],
    picture: Overview,
    *,
    evaluations: float,
    published: bool = False,
) -> str:
    """The whole text.

    `info` is what config.json says; without `sampler` the export is a compact one. `picture` is what samples.png shows,
    with `evaluations` of the network for an image. `figures` may be `published` in a file of the export, too.
    """
    config, settings = info.config, info.config.sample
    return CARD.format(
        kind=describe.kind(info),
        shape="x".join(map(str, info.image_shape)),
        source=f"`{config.data.source}`",
        what=describe.draws(info),
        fmd_version=info.fmd_version,
        method=config.method.name,
        task="image-to-image" if on_grid(info.conditions) else "unconditional-image-generation",
        caption=picture.caption,
        per_row=picture.per_row,
        settings=describe.sampling(info),
        weight=f"{settings.weight:g}",
        seed=config.seed,
        evaluations=f"{evaluations:.4g}",
        files=(COMPACT_FILES if info.sampler is None else FILES).format(
            flow_row=FLOW_ROW if settings.solver == JUMP else "", published=PUBLISHED_ROW if published else ""
        ),
        training=describe.training(info, params),
        figures="\n\n".join(map(describe.quality, figures)) or "None: the run left no evaluation of these weights.",
        recipe=describe.recipe(as_plain(config)),
        use=_use(info),
    )


def _use(info: RunInfo) -> str:
    """The programs that load each form of the weights, with what there is to say of them."""
    code, program = snippets.programs(info), info.sampler
    with_fmd = WITH_FMD.format(**code)
    if program is None:
        return COMPACT_USE.format(with_fmd=with_fmd, **code)
    in_math = "guidance and solver are functions of `fmd.math`"
    guided = "finite: 1 is conditional, 0 unconditional, more is more typical of the class"
    return USE.format(
        with_fmd=with_fmd,
        where=in_math if snippets.is_plain(info) else "the way from noise to images in `fmd.methods`",
        platforms=", ".join(program["platforms"]),
        settings=describe.sampling(info),
        pixels=", ".join(map(str, info.image_shape)),
        inputs=describe.inputs(info),
        weight_range=guided if program["guided"] else "1: neither this model nor its way to sample can be guided",
        least_jax=program["least_jax"],
        **code,
    )
