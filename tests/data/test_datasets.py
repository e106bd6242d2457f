"""Splits and data sets refuse what does not fit, with one line; the registry knows its names."""

import subprocess
import sys

import numpy as np
import pytest

from fmd.data import ImageDataset, Split, datasets, load, register_source, source_names


def split(n=4, shape=(3, 2, 1), labels=None):
    labels = np.zeros(n, np.int32) if labels is None else np.array(labels, np.int32)
    return Split(np.zeros((n, *shape), np.uint8), labels)


def one_line(error) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (np.zeros((2, 3, 3, 1), np.float32), np.zeros(2, np.int32), "uint8"),
        (np.zeros((2, 3, 3), np.uint8), np.zeros(2, np.int32), "N, H, W, C"),
        (np.zeros((2, 3, 3, 1), np.uint8), np.zeros(2, np.int64), "int32"),
        (np.zeros((2, 3, 3, 1), np.uint8), np.zeros((2, 1), np.int32), r"\[N\]"),
        (np.zeros((2, 3, 3, 1), np.uint8), np.zeros(3, np.int32), "2 images but 3 labels"),
        (np.zeros((0, 3, 3, 1), np.uint8), np.zeros(0, np.int32), "at least one image"),
    ],
)
def test_a_split_refuses_wrong_arrays(images, labels, words):
    with pytest.raises(ValueError, match=words) as error:
        Split(images, labels)
    one_line(error)


def test_a_set_knows_its_shape_and_checks_its_parts():
    dataset = ImageDataset("a", split(labels=[0, 1, 2, 2]), split(), 3, "made here", ("x", "y", "z"))
    assert dataset.image_shape == (3, 2, 1)
    assert len(dataset.train) == 4
    with pytest.raises(ValueError, match="labels run from 0 to 3"):
        ImageDataset("a", split(labels=[0, 1, 2, 3]), split(), 3, "")
    with pytest.raises(ValueError, match="labels run from -1"):
        ImageDataset("a", split(), split(labels=[0, 0, -1, 0]), 3, "")
    with pytest.raises(ValueError, match="train images are"):
        ImageDataset("a", split(), split(shape=(3, 3, 1)), 3, "")
    with pytest.raises(ValueError, match="2 class names"):
        ImageDataset("a", split(), split(), 3, "", ("x", "y"))


def test_unlabelled_sets_have_the_null_label_only():
    assert ImageDataset("a", split(), split(), 0, "").num_classes == 0
    with pytest.raises(ValueError, match="allows 0 to 0"):
        ImageDataset("a", split(labels=[0, 0, 0, 1]), split(), 0, "")


def test_the_registry(monkeypatch):
    monkeypatch.setattr(datasets, "_SOURCES", dict(datasets._SOURCES))

    @register_source("mine")
    def mine(n: int = 2, share: float = 0.5, folder: str | None = None):
        assert 0 <= share <= 1
        return ImageDataset("mine", split(n), split(n), 1, "made here")

    assert "mine" in source_names()
    assert len(load("mine", n=5).train) == 5
    with pytest.raises(KeyError, match=r"unknown data source 'theirs': choose one of .*mine") as error:
        load("theirs")
    one_line(error)
    with pytest.raises(ValueError, match="unexpected keyword argument 'm'; its parameters are: n, share, folder"):
        load("mine", m=3)
    for wrong, wanted in [
        ({"n": "3"}, "int"),
        ({"n": True}, "int"),
        ({"share": "0.1"}, "float"),
        ({"folder": 3}, "str or"),
    ]:
        with pytest.raises(
            ValueError, match=f"data source 'mine': {next(iter(wrong))} is .*; it must be {wanted}"
        ) as error:
            load("mine", **wrong)
        one_line(error)
    load("mine", share=1, folder=None)
    with pytest.raises(ValueError, match="already registered"):
        register_source("mine")(mine)


def test_held_out_examples_are_evenly_spread_over_each_class():
    labels = np.array([0, 1] * 10 + [1] * 4, np.int32)
    mask = datasets.hold_out(labels, lambda n: n // 5)
    assert mask[labels == 0].sum() == 2
    assert mask[labels == 1].sum() == 2
    np.testing.assert_array_equal(np.flatnonzero(mask[labels == 0]), [2, 7])


def test_splitting_off_needs_something_to_split():
    images, labels = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1), np.array([0, 0, 0, 0, 1, 2], np.int32)
    train, test = datasets.split_off(images, labels, 0.25)
    assert len(test) == 1  # classes of one image keep it for training
    assert sorted([*train.images.ravel(), *test.images.ravel()]) == list(range(6))
    with pytest.raises(ValueError, match="between 0 and 1"):
        datasets.split_off(images, labels, 1.0)
    with pytest.raises(ValueError, match="no test split"):
        datasets.split_off(images[3:], labels[3:], 0.5)


def test_digits_are_scaled_and_split_as_stated():
    bundled = pytest.importorskip("sklearn.datasets").load_digits()
    dataset = load("digits")
    assert (len(dataset.train), len(dataset.test), dataset.image_shape) == (1497, 300, (8, 8, 1))
    np.testing.assert_array_equal(np.bincount(dataset.test.labels), [30] * 10)
    # Every image of the file is there once, with its label.
    pairs = {
        (image.tobytes(), int(label))
        for s in (dataset.train, dataset.test)
        for image, label in zip(s.images, s.labels, strict=True)
    }
    expected = {
        (np.array([round(v * 255 / 16) for v in image.ravel()], np.uint8).tobytes(), int(label))
        for image, label in zip(bundled.images, bundled.target, strict=True)
    }
    assert pairs == expected


def test_importing_the_room_is_light():
    heavy = "jax tensorflow tensorflow_datasets sklearn grain PIL tqdm"
    code = f"import sys, fmd.data; print(*(m for m in '{heavy}'.split() if m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
