"""Makes of a run one folder that needs nothing of it, in three forms: for fmd, for Orbax and Flax, for JAX alone.

NAME/weights/             Orbax checkpoint: the averaged parameters
NAME/weights.safetensors  the same, by dotted names
NAME/sampler.stablehlo    the guided sampler with the parameters inside, see fmd.export.portable
NAME/config.json          format version, config, image shape, classes, where the data came from, step, sampler settings
NAME/README.md            what the model is, how good, and how to load each form
NAME/samples.png          a grid drawn by it
NAME/checksums.json       of every file, so that a damaged copy is noticed

There is no pickle in it, and the same weights give the same bytes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from fmd.checkpoints.facts import FORMAT
from fmd.checkpoints.weights import is_export, load_weights, save_weights
from fmd.export import card, portable
from fmd.export.figures import find_figures
from fmd.sampling.grid import choose_rows, draw_grid
from fmd.sampling.program import can_be_guided, choose
from fmd.sampling.sampler import Sampler
from fmd.utils.distributed import make_layout
from fmd.utils.files import atomic_path
from fmd.utils.nested import flatten
from fmd.utils.seed import stream
from fmd.utils.viz import save_png

PER_CLASS = 8  # samples in a row of the picture


def export(checkpoint: str | Path, out: str | Path, *, which: str | None = None) -> Path:
    """Exports a workdir, or one step inside it.

    Args:
        checkpoint: the folder to export.
        out: the folder to make.
        which: the average to export where a run keeps several; default: its first.

    Raises:
        ValueError: when `checkpoint` holds no model, is an export itself, or its sampler cannot be exported.
        FileExistsError: when `out` exists.
    """
    checkpoint = Path(checkpoint).absolute()
    if is_export(checkpoint):
        raise ValueError(f"{checkpoint} is an export already; copy it, or export the run that it came from")
    with atomic_path(Path(out).absolute()) as folder:
        weights, run_facts = load_weights(checkpoint, which)
        which = which or run_facts["averages"][0]
        settings = choose(run_facts)
        program = {key: value for key, value in settings._asdict().items() if value is not None}
        program |= {"guided": can_be_guided(run_facts), "platforms": list(portable.PLATFORMS), "jax": jax.__version__}
        facts = {**run_facts, "averages": [which], "sampler": program}
        sampler = Sampler.from_facts(facts, params=weights, layout=make_layout("jit"))
        folder.mkdir()

        (folder / "sampler.stablehlo").write_bytes(portable.serialize(sampler.model, weights, facts, settings))
        (folder / "weights.safetensors").write_bytes(tensors(weights, facts))
        rows = choose_rows(facts, PER_CLASS)
        drawn = sampler.sample(rows.labels, stream(facts["config"]["seed"], "sample"))
        if not drawn.success.all():
            logging.warning(
                "%d of %d samples failed: their pixels are not finite", (~drawn.success).sum(), len(drawn.success)
            )
        save_png(folder / "samples.png", draw_grid(drawn.images, rows))
        text = card.model_card(
            facts,
            weights,
            settings,
            find_figures(checkpoint, run_facts, which),
            per_row=PER_CLASS,
            evaluations=drawn.evaluations.mean(),
        )
        (folder / "README.md").write_text(text, encoding="utf-8")
        save_weights(folder, weights, facts)
    return Path(out)


def tensors(weights: Mapping[str, Any], facts: Mapping[str, Any]) -> bytes:
    """The weights under dotted names ("conv_in.kernel") as safetensors; `unflatten_dict(..., sep=".")` makes the tree.

    All notes are one entry of its metadata, because the format writes several in any order.
    """
    from safetensors.numpy import save

    notes = {"format": FORMAT, "model": facts["config"]["model"]["name"], "step": facts["step"]}
    named = {name: np.asarray(array, order="C") for name, array in flatten(weights)}
    return save(named, metadata={"fmd": json.dumps({**notes, "average": facts["averages"][0]}, sort_keys=True)})
