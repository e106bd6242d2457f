"""Images with conditions of every kind in one archive: trained on, sampled, exported, refused where they do not go."""

import jax
import numpy as np
import pytest
from PIL import Image

from fmd import commands
from fmd.data import load as load_data
from fmd.export.exporter import export
from fmd.sampling.sampler import load
from tests.helpers import toys

PARTS = ("low", "marks", "age", "labels_too")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    random = np.random.default_rng(0)
    path, images = tmp_path_factory.mktemp("data") / "told.npz", random.integers(0, 256, (60, 8, 8, 1), np.uint8)
    arrays = {
        "low": images.reshape(60, 4, 2, 4, 2, 1).mean((2, 4)).astype(np.float32) / 127.5 - 1,
        "marks": random.integers(0, 2, (60, 3)),
        "age": random.uniform(0, 1, 60),
        "labels_too": np.arange(60) % 5,
    }
    np.savez(path, images=images, **arrays)
    return path


def config(archive, **more):
    data = {"source": "npz", "params": {"path": str(archive), "conditions": PARTS}, **more}
    quiet = {"samples_every": 0, "eval_every": 0, "every": 2}
    return toys.config(
        parallel={"mode": "jit"}, data=data, model=toys.UNET, train={"num_steps": 2}, log=quiet,
        optimizer={"warmup_steps": 0},
    )  # fmt: skip


def test_it_is_trained_sampled_and_exported(archive, tmp_path):
    run = commands.train_config(config(archive), tmp_path / "run")
    kinds = {name: part["kind"] for name, part in run.dataset.conditions.items()}
    assert kinds == {"low": "image", "marks": "labels", "age": "vector", "labels_too": "label"}
    y = jax.tree.map(lambda part: part[:3], run.dataset.test.y)
    drawn = load(tmp_path / "run")(y, jax.random.key(0), steps=2)
    assert drawn.shape == (3, 8, 8, 1)
    again = load(export(tmp_path / "run", tmp_path / "model"))(y, jax.random.key(0), steps=2)
    np.testing.assert_array_equal(again, drawn)


def test_images_are_not_mirrored_without_what_lies_beside_them(archive, tmp_path):
    with pytest.raises(ValueError, match=r"config\.data\.flip and shift change the images, but not condition 'low'"):
        commands.train_config(config(archive, flip=True), tmp_path / "run")
    assert load_data("npz", path=str(archive), conditions=("age",)).conditions["age"]["kind"] == "vector"


def test_a_condition_is_made_of_the_image(tmp_path):
    made = toys.config(
        parallel={"mode": "jit"}, model=toys.UNET, train={"num_steps": 2, "part_dropout": {"low": 0.5}},
        data={"derive": {"low": {"name": "block_average", "factor": 4, "noise_std": 0.1}}, "flip": True},
        log={"samples_every": 2, "eval_every": 0, "every": 2}, optimizer={"warmup_steps": 0},
        sample={"guidance": {"name": "cfg", "weight": 1.0}},
    )  # fmt: skip
    run = commands.train_config(made, tmp_path / "run")
    assert {name: part["kind"] for name, part in run.info.conditions.items()} == {"label": "label", "low": "image"}
    grid = Image.open(tmp_path / "run" / "samples" / "step_00000002.png")
    assert grid.width == 7 * (4 * 10) + 2 * 7  # the small image, two draws, the truth
    exported = load(export(tmp_path / "run", tmp_path / "model"))
    assert exported.info.sampler["inputs"][1:] == ["label int32[b]", "low float32[b,2,2,1]", "weight float32[]"]
    y = {"label": np.array([1, 4], np.int32), "low": np.zeros((2, 2, 2, 1), np.float32)}
    assert exported(y, jax.random.key(0), guidance={"name": "cfg", "weights": {"low": 2.0}}).shape == (2, 8, 8, 1)
