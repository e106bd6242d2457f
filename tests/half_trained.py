"""A run of a small UNet that stopped half-way, for the tests of the export. No training made its weights."""

import json

import jax
import numpy as np
import toys

from fmd.checkpoints.facts import write_facts
from fmd.checkpoints.store import Store
from fmd.models.registry import build_model
from fmd.training import setup

UNET = {"name": "unet", "base_channels": 8, "channel_multipliers": [1], "num_res_blocks": 1, "embedding_dim": 16}
STEP = 8  # of 12


def make_facts(classes=toys.CLASSES, **overrides):
    """The facts of a run of UNET; its config imports nothing, so that it loads without the tests."""
    config = toys.config(**{"imports": [], "model": UNET, **overrides})
    return {**setup.make_facts(config, toys.dataset()), "num_classes": classes}


def make_params(classes=toys.CLASSES, model=UNET):
    """Weights that are nowhere zero: an image depends on each of them."""
    model = build_model(model["name"], {**model, "num_classes": classes})
    x, t, y = np.zeros((1, 8, 8, 1), np.float32), np.zeros(1, np.float32), np.zeros(1, np.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x, t, y)["params"]
    random = np.random.default_rng(3)
    return jax.tree.map(lambda leaf: random.normal(0, 0.2, leaf.shape).astype(np.float32), shapes)


def write_run(folder, facts, params):
    """A workdir with one checkpoint; the second average is half of the first."""
    write_facts(folder, facts)
    averages = {name: params for name in facts["averages"]}
    averages["decay1"] = jax.tree.map(lambda leaf: leaf / 2, params)
    store = Store(folder / "checkpoints")
    store.save(STEP, ema=averages, train={"step": np.int32(STEP)})
    store.close()
    lines = [
        {"step": 4, "validation_loss": 1.5},
        {"step": 8, "validation_loss": 1.25},
        {"step": 12, "validation_loss": 9},
    ]
    (folder / "validation.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder
