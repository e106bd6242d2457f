"""The source of pairs: files matched by name, splits above and below, what has no partner, and a short training."""

from pathlib import Path

import jax
import numpy as np
import pytest

from fmd import commands
from fmd import config as configs
from fmd.data import load
from fmd.sampling import sampler
from tests.helpers import toys
from tests.helpers.pictures import paint

pytestmark = pytest.mark.usefixtures("cache")


def paint_pairs(root, numbers, target="target/{}.png", inputs="input/{}.png", size=(6, 6)):
    """Pairs of one colour each: red is the number in the image, and green the number in the input."""
    for k in numbers:
        paint(root / target.format(k), (k, 0, 0), size=(6, 6))
        paint(root / inputs.format(k), (0, k, 0), size=size)


def numbers_of(split, part="input"):
    """The numbers of images and inputs, which must be the same."""
    told = split.y[part][:, 0, 0, 1].tolist()
    assert split.images[:, 0, 0, 0].tolist() == told
    return told


@pytest.mark.parametrize("layout", ["target/{0}", "{0}/target"])
def test_pairs_are_matched_by_name_with_splits_above_or_below(tmp_path, layout):
    for split, numbers in (("train", range(9, 15)), ("test", range(3))):
        target = layout.format(split)
        inputs = target.replace("target", "input")
        paint_pairs(tmp_path, numbers, target + "/{}.png", inputs + "/{}.bmp", size=(3, 3))
    dataset = load("pairs", path=str(tmp_path))
    # In the order of the names of the images, which is not that of their numbers.
    assert numbers_of(dataset.train) == [10, 11, 12, 13, 14, 9]
    assert numbers_of(dataset.test) == [0, 1, 2]
    assert dataset.conditions == {"input": {"kind": "image", "height": 3, "width": 3, "channels": 3}}
    assert (dataset.num_classes, dataset.image_shape) == (0, (6, 6, 3))
    sized = load("pairs", path=str(tmp_path), image_size=4, channels=1, input_size=(2, 2))
    assert (sized.image_shape, sized.conditions["input"]) == (
        (4, 4, 1),
        {"kind": "image", "height": 2, "width": 2, "channels": 1},
    )
    assert load("pairs", path=str(tmp_path), image_size=4).conditions["input"]["height"] == 4


def test_folders_below_the_target_are_classes_and_inputs_may_be_several(tmp_path):
    for name, numbers in (("cats", range(4)), ("dogs", range(10, 14))):
        paint_pairs(tmp_path, numbers, f"photo/{name}/{{}}.png", f"edges/{name}/{{}}.png")
        for k in numbers:
            paint(tmp_path / "outline" / name / f"{k}.png", k % 2, mode="L")
    wanted = {"outline": "mask", "edges": {"kind": "image", "height": 2, "width": 2, "channels": 1}}
    dataset = load("pairs", path=str(tmp_path), target="photo", conditions=wanted, image_size=6)
    assert dataset.class_names == ("cats", "dogs")
    assert dataset.conditions == {
        "label": {"kind": "label", "num_classes": 2},
        "edges": {"kind": "image", "height": 2, "width": 2, "channels": 1},
        "outline": {"kind": "mask", "height": 6, "width": 6, "channels": 1},
    }
    images, y = dataset.train.images[:, 0, 0, 0], dataset.train.y
    np.testing.assert_array_equal(y["label"], images >= 10)
    np.testing.assert_array_equal(y["outline"][:, 0, 0, 0], 255 * (images % 2))  # a mask of 0 and 1 is one of 0 and 255


def test_a_pair_of_which_one_cannot_be_read_or_is_missing_is_left_out(tmp_path, log):
    paint_pairs(tmp_path, range(12))
    (tmp_path / "input" / "3.png").write_bytes(b"damaged")
    (tmp_path / "target" / "5.png").write_bytes(b"damaged")
    (tmp_path / "input" / "7.png").unlink()
    (tmp_path / "target" / "8.png").unlink()
    dataset = load("pairs", path=str(tmp_path), test_fraction=0.25)
    found = sorted(numbers_of(dataset.train) + numbers_of(dataset.test))
    assert found == [0, 1, 2, 4, 6, 9, 10, 11]
    assert "2 unreadable files left out" in dataset.provenance
    lines = [line for line in log if "left out" in line]
    assert any(
        "1 images without an input of their name (target/7.png); 1 inputs without an image (input/8.png)" in line
        for line in lines
    )
    assert any("of input: 1 of 10 files cannot be read" in line and "(input/3.png)" in line for line in lines)
    assert any(": 1 of 10 files cannot be read" in line and "(target/5.png)" in line for line in lines)


def test_pairs_that_cannot_serve_are_refused(tmp_path):
    def refused(words, kind=ValueError, root=tmp_path, **params):
        with pytest.raises(kind, match=words) as caught:
            load("pairs", path=str(root), **params)
        assert "\n" not in str(caught.value)

    refused("there is no folder .*nowhere", FileNotFoundError, tmp_path / "nowhere")
    refused("has no folder 'target', nor a training folder with one", FileNotFoundError)
    paint_pairs(tmp_path, range(4), "target/{}.png", "input/other_{}.png")
    refused(r"no training image has an input: 4 images .* \(target/0\.png, .*matched by name")
    refused("there is no folder .*depth: it needs a file for each image", FileNotFoundError, conditions=("depth",))
    refused("'input' is a folder of images: its kind must be image or mask", conditions={"input": "number"})
    refused("must name a folder of inputs", conditions=())
    paint_pairs(tmp_path, range(4))
    paint(tmp_path / "input" / "2.bmp")
    refused(r"input has two files of one name, 2\.bmp and 2\.png")
    (tmp_path / "input" / "2.bmp").unlink()
    paint(tmp_path / "input" / "2.png", size=(9, 6))
    refused("condition 'input': images of different sizes: .*; set image_size")
    assert load("pairs", path=str(tmp_path), image_size=6).conditions["input"]["width"] == 6


def test_the_shipped_config_trains_and_samples(tmp_path):
    paint_pairs(tmp_path / "set", range(0, 240, 20), size=(12, 9))
    config = configs.apply_on_cpu(configs.load_file(Path(__file__).parents[2] / "configs" / "folder_pairs.py"))
    small = {
        "data": {"params": {"path": str(tmp_path / "set"), "image_size": 8, "input_size": 4}},
        "model": toys.UNET,
        "train": {"num_steps": 2, "batch_size": 8},
        "optimizer": {"warmup_steps": 1},
        "log": {"every": 1, "eval_every": 0, "samples_every": 0, "eval_examples": 8},
        "sample": {"steps": 1},
        "parallel": {"mode": "jit"},
        "on_cpu": None,
    }
    run = commands.train_config(configs.resolve(configs.merge(config, small)), tmp_path / "run")
    assert run.finished
    assert run.info.conditions == {"input": {"kind": "image", "height": 4, "width": 4, "channels": 3}}
    inputs = {"input": run.dataset.test.y["input"][:1]}
    assert sampler.load(tmp_path / "run", layout=run.layout)(inputs, jax.random.key(0)).shape == (1, 8, 8, 3)
