"""A run of a small UNet that stopped half-way, for the tests of the export. No training made its weights."""

import json

import jax
import numpy as np

from fmd.checkpoints.store import Store
from fmd.files import write_json
from fmd.run_info import FILE
from fmd.sampling.sampler import model_of
from fmd.training import recipe as recipes
from tests.helpers import toys

UNET = toys.UNET
STEP = 8  # of 12


def make_info(**overrides):
    """The info of a run of UNET; its config imports nothing, so that it loads without the tests.

    `num_classes` and `conditions` may be given, and blocks of the config.
    """
    told = {key: overrides.pop(key) for key in ("num_classes", "conditions") if key in overrides}
    config = toys.config(**{"imports": [], "model": UNET, **overrides})
    return recipes.make_info(config, toys.dataset()).replace(**told)


def make_params(info):
    """Weights that are nowhere zero: an image depends on each of them."""
    model = model_of(info)
    shapes = jax.eval_shape(lambda: recipes.init_params(model, jax.random.key(0), info.image_shape, info.conditions))
    random = np.random.default_rng(3)
    return jax.tree.map(lambda leaf: random.normal(0, 0.2, leaf.shape).astype(np.float32), shapes)


def write_run(folder, info, params):
    """A workdir with one checkpoint; the second average is half of the first."""
    write_json(folder / FILE, info.to_json())
    averages = {name: params for name in info.averages}
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
