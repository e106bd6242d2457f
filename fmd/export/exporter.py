"""Makes of a run one folder that needs nothing of it, in three forms: for fmd, for Orbax and Flax, for JAX alone.

NAME/weights/             Orbax checkpoint: the averaged parameters
NAME/weights.safetensors  the same, by dotted names
NAME/sampler.stablehlo    the guided sampler with the parameters inside, see fmd.export.portable
NAME/flow.stablehlo       of a network that is sampled by jumps: the guided flow of the same parameters, for any weight
NAME/config.json          format version, config, image shape, classes, where the data came from, step, sampler settings
NAME/README.md            what the model is, how good, and how to load each form
NAME/samples.png          a grid drawn by it
NAME/quality.json         what --mode=eval found about the weights, if it did, for --mode=verify to repeat
NAME/checksums.json       of every file, so that a damaged copy is noticed

A compact export has the weights once, as safetensors in float16, without Orbax checkpoint and programs: an eighth of
the size, for weights that are sent around.

There is no pickle in it, and the same weights give the same bytes. It names no folder of the machine that trained.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from absl import logging

from fmd import methods
from fmd.blocks import Plain, as_plain, flatten
from fmd.checkpoints.weights import PUBLISHED, TENSORS, is_export, save_weights, seal
from fmd.config import Settings, resolve
from fmd.devices import make_layout
from fmd.export import card, portable
from fmd.export.places import origin, without_folders
from fmd.export.quality import evaluations, find_figures
from fmd.files import atomic_path, expand, write_json
from fmd.math import solvers
from fmd.math.solvers import JUMP
from fmd.pictures.grids import save_png
from fmd.randomness import stream
from fmd.run_info import RunInfo
from fmd.sampling.overview import Overview
from fmd.sampling.sampler import Sampler, load
from fmd.types import Params

FORMAT = 1  # of the notes in weights.safetensors
FLOW, FLOW_STEPS = "flow.stablehlo", 10  # the flow of a network that jumps, and its midpoint steps


def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    average: str | None = None,
    change: Callable[[Settings], Settings] | None = None,
    compact: bool = False,
    trust: bool = False,
    overview: Callable[[RunInfo], Overview] | None = None,
) -> Path:
    """Exports a workdir, or one step inside it.

    Args:
        checkpoint: the folder to export.
        out: the folder to make.
        average: the average to export where a run keeps several; default: its first.
        change: from the run's settings to those that the export samples with; default: no change.
        compact: the weights once, in float16, and no portable program.
        trust: import the modules that the run names, see `fmd.sampling.sampler.load`.
        overview: from what the run stored about itself to what its picture shows; default: a row per class, of models
            that are told nothing but labels.

    Returns:
        `out`.

    Raises:
        ValueError: when `checkpoint` holds no model or is an export itself, its sampler cannot be exported, or its
            weights are too large for float16.
        FileExistsError: when `out` exists.
    """
    checkpoint = expand(checkpoint).absolute()
    if is_export(checkpoint):
        raise ValueError(f"{checkpoint} is an export already; copy it, or export the run that it came from")
    with atomic_path(expand(out).absolute()) as folder:
        run = load(checkpoint, average=average, trust=trust, layout=make_layout("jit"))
        settings = run.settings if change is None else change(run.settings)
        portable.refuse(settings)
        info, weights = exported_info(run.info, settings, compact=compact), jax.device_get(run.params)
        stored = jax.tree.map(in_half, weights) if compact else weights
        weights = jax.tree.map(np.float32, stored) if compact else weights
        sampler = Sampler.from_info(info, params=weights, model=run.model, layout=run.layout)
        folder.mkdir()

        for name, asked in ({} if compact else programs(settings)).items():
            (folder / name).write_bytes(portable.serialize(sampler.model, weights, info, asked))
        (folder / TENSORS).write_bytes(tensors(stored, info))
        shown = Overview.of(info, None) if overview is None else overview(info)
        drawn = shown.draw(sampler, stream(info.config.seed, "sample"))
        if failed := int((~drawn.success).sum()):
            logging.warning("%d of %d samples failed: their pixels are not finite", failed, len(drawn.success))
        save_png(folder / "samples.png", shown.picture(drawn.images))
        figures = find_figures(checkpoint, run.info)
        if published := evaluations(checkpoint, run.info):
            write_json(folder / PUBLISHED, {"rows": published})
        cost = float(drawn.evaluations.mean())
        text = card.model_card(info, weights, figures, shown, evaluations=cost, published=bool(published))
        (folder / "README.md").write_text(text, encoding="utf-8")
        if compact:
            seal(folder, info)
        else:
            save_weights(folder, weights, info)
    return Path(out)


def programs(settings: Settings) -> dict[str, Settings]:
    """The settings of each portable program, by its file."""
    flow = {FLOW: settings.replace(solver="midpoint", steps=FLOW_STEPS)} if settings.solver == JUMP else {}
    return {"sampler.stablehlo": settings, **flow}


def in_half(array: np.ndarray) -> np.ndarray:
    """The array in float16. ValueError where a number is too large for it."""
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if not np.isfinite(half).all():
        raise ValueError("a weight is too large for float16, above 65,504: export without --compact")
    return half


def exported_info(info: RunInfo, settings: Settings, *, compact: bool = False) -> RunInfo:
    """The info of the folder: the run's, with one average, its settings and its portable program, if it has one."""
    config = dataclasses.replace(info.config, sample=settings)
    info = info.replace(
        config=resolve(without_folders(as_plain(config))),
        provenance=origin(info.provenance),
        averages=(info.average or info.averages[0],),
    )
    return info.replace(sampler=None if compact else program_of(info, settings))


def program_of(info: RunInfo, settings: Settings) -> Plain:
    """The settings and the inputs of the portable program."""
    said = {key: value for key, value in as_plain(settings).items() if value is not None}
    said["rule"] = said.pop("guidance")
    if settings.solver in solvers.ADAPTIVE:
        del said["steps"], said["grid"]
    inputs = [
        f"{name} {dtype}[b{''.join(f',{n}' for n in shape[1:])}]"
        for name, (shape, dtype) in portable.shapes(info).items()
    ]
    return said | {
        "method": info.config.method.name,
        "guided": portable.takes_weight(methods.from_config(info.config), info, settings),
        "inputs": [*inputs, "weight float32[]"],
        "platforms": list(portable.PLATFORMS),
        "jax": jax.__version__,
        "least_jax": jax.__version__,  # no older one is known to read what this one writes
    }


def tensors(weights: Mapping[str, Params], info: RunInfo) -> bytes:
    """The weights under dotted names ("conv_in.kernel") as safetensors; `unflatten_dict(..., sep=".")` makes the tree.

    All notes are one entry of its metadata, because the format writes several in any order.
    """
    from safetensors.numpy import save

    notes = {"format": FORMAT, "model": info.config.model.name, "step": info.step, "average": info.averages[0]}
    named = {name: np.asarray(array, order="C") for name, array in flatten(weights)}
    return save(named, metadata={"fmd": json.dumps(notes, sort_keys=True)})
