"""The recipes of transformers for accelerators: four steps of each, a small network on small streamed images.

All else is the recipe's own: bfloat16, prediction, times, the loss and its weights, optimiser, averages, guidance.
"""

from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from fmd import config as configs
from fmd.data import ImageDataset, Split, load
from fmd.data.prepare import prepare
from fmd.training import callbacks, trainer

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = {
    "data.source": "array_record",
    "model.depth": "2", "model.width": "64", "model.heads": "2",
    "train.num_steps": "4", "train.batch_size": "8", "train.steps_per_dispatch": "1", "optimizer.warmup_steps": "0",
    "log.every": "1", "log.samples_every": "4", "sample.steps": "2",
}  # fmt: skip
PARALLEL = {
    "cifar10_transformer": {"parallel.mode": "jit"},
    "imagenet64": {"parallel.mode": "mesh"},
    "imagenet256": {"parallel.fsdp": "8"},
}
BINS = 8  # of the times in a line of the log


def begins(name, t):
    """The loss at a time of a network that predicts 0, of pixels whose mean square is 1/3."""
    return 1 / 3 / max(1 - t, 0.05) ** 2 if name == "imagenet256" else 4 / 3  # of the image, weighed; of the velocity


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A prepared folder of noise, 32 x 32 pixels, four classes."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("images") / "prepared"

    def split(count):
        pixels = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        return Split(pixels, np.arange(count, dtype=np.int32) % 4)

    prepare(ImageDataset("noise", split(40), split(8), 4, "made up"), folder, quiet=True)
    return folder


class Begin(callbacks.Callback):
    """Keeps the parameters that a run begins with."""

    def on_train_start(self, run):
        self.params = jax.device_get(run.state.params)


@pytest.mark.parametrize("name", PARALLEL)
def test_four_steps_move_every_parameter(name, images, tmp_path):
    changes = {**SMALL, "data.params.path": str(images), **PARALLEL[name]}
    config = configs.resolve(configs.override(configs.load_file(CONFIGS / f"{name}.py"), list(changes.items())))
    begin = Begin()
    draws = [callbacks.Samples()] if name == "imagenet256" else []
    dataset = load(config.data.source, **config.data.params)
    run = trainer.train(config, tmp_path / "run", dataset, [begin, callbacks.Log(), *draws])
    assert run.finished
    lines = run.logs["metrics"].lines
    assert np.isfinite([line["loss"] for line in lines]).all()
    for k in range(BINS):
        if (loss := lines[0][f"loss_t{k}"]) is not None:
            assert 0.9 * begins(name, k / BINS) < loss < 1.1 * begins(name, (k + 1) / BINS)
    before, after = jax.tree_util.tree_leaves_with_path(begin.params), jax.tree.leaves(jax.device_get(run.state.params))
    for (path, one), other in zip(before, after, strict=True):
        assert one.dtype == other.dtype == np.float32
        assert (one != other).any(), jax.tree_util.keystr(path)
    in_parts = [sharding.spec for sharding in jax.tree.leaves(run.shardings.params) if sharding.spec != jax.P()]
    assert bool(in_parts) == ("parallel.fsdp" in changes)
    if draws:
        assert np.array(Image.open(run.workdir / "samples" / "step_00000004.png")).std() > 10
