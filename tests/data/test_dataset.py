"""Splits and data sets refuse what does not fit, with one line; the registry knows its names."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from fmd.data import ImageDataset, Split, StreamedSplit, load, register_source, source_names, split
from fmd.data.sources import SOURCES


def make(n=4, shape=(3, 2, 1), labels=None):
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
        (np.zeros((2, 3, 3, 1), np.uint8), np.zeros(3, np.int32), "2 images but 3 labels: each image needs one"),
        (np.zeros((0, 3, 3, 1), np.uint8), np.zeros(0, np.int32), "at least one image"),
    ],
)
def test_a_split_refuses_wrong_arrays(images, labels, words):
    with pytest.raises(ValueError, match=words) as error:
        Split(images, labels)
    one_line(error)


def test_a_set_knows_its_shape_and_checks_its_parts():
    dataset = ImageDataset("a", make(labels=[0, 1, 2, 2]), make(), 3, "made here", ("x", "y", "z"))
    assert dataset.image_shape == (3, 2, 1)
    assert len(dataset.train) == 4
    with pytest.raises(ValueError, match="labels run from 0 to 3"):
        ImageDataset("a", make(labels=[0, 1, 2, 3]), make(), 3, "")
    with pytest.raises(ValueError, match="labels run from -1"):
        ImageDataset("a", make(), make(labels=[0, 0, -1, 0]), 3, "")
    with pytest.raises(ValueError, match="train images are"):
        ImageDataset("a", make(), make(shape=(3, 3, 1)), 3, "")
    with pytest.raises(ValueError, match="2 class names"):
        ImageDataset("a", make(), make(), 3, "", ("x", "y"))


def test_unlabelled_sets_have_the_null_label_only():
    assert ImageDataset("a", make(), make(), 0, "").num_classes == 0
    with pytest.raises(ValueError, match="allows 0 to 0"):
        ImageDataset("a", make(labels=[0, 0, 0, 1]), make(), 0, "")


def with_style(n=4, size=3, classes=3, **more):
    random = np.random.default_rng(0)
    parts = {"label": np.arange(n, dtype=np.int32) % classes, "style": random.random((n, size), np.float32), **more}
    return Split(np.zeros((n, 3, 2, 1), np.uint8), parts)


def test_named_parts_make_the_condition_of_a_set():
    hue = np.array([0, 4, 1, 1], np.int32)
    data = ImageDataset("a", with_style(hue=hue), with_style(hue=hue), 3, "made here")
    assert data.conditions == {
        "label": {"kind": "label", "num_classes": 3},
        "style": {"kind": "vector", "size": 3},
        "hue": {"kind": "label", "num_classes": 5},
    }
    assert json.loads(json.dumps(data.conditions)) == data.conditions
    np.testing.assert_array_equal(data.train.labels, [0, 1, 2, 0])
    taken = data.train.take(np.array([3, 1]))
    np.testing.assert_array_equal(taken.y["hue"], [1, 4])
    assert ImageDataset("a", make(), make(), 1, "").conditions is None
    alone = Split(np.zeros((2, 1, 1, 1), np.uint8), {"style": np.zeros((2, 5), np.float32)})
    np.testing.assert_array_equal(alone.labels, [0, 0])
    assert ImageDataset("a", alone, alone, 0, "").conditions == {"style": {"kind": "vector", "size": 5}}


def test_parts_that_do_not_fit_are_refused():
    for part, words in [
        (np.zeros((4, 2)), "style must be int32 .* got float64"),
        (np.zeros(4, np.float32), "style must be"),
        (np.zeros((3, 2), np.float32), "4 images but 3 style: each image needs one"),
        (np.full((4, 2), np.nan, np.float32), "style must be finite, but row 0 is not"),
        (np.array([[0, 0], [0, np.inf], [0, 0], [0, 0]], np.float32), "row 1 is not"),
    ]:
        with pytest.raises(ValueError, match=words) as error:
            with_style(style=part)
        one_line(error)
    with pytest.raises(ValueError, match="at least one part"):
        Split(np.zeros((2, 1, 1, 1), np.uint8), {})
    good = with_style()
    for train, test, words in [
        (make(), good, "train images come with labels but test images with label int32"),
        (good, with_style(size=4), r"style float32 \['N', 3\] but test images with .*style float32 \['N', 4\]"),
        (good, with_style(more=np.zeros(4, np.int32)), "more int32"),
        (with_style(classes=4), good, "train labels run from 0 to 3, but num_classes=3"),
    ]:
        with pytest.raises(ValueError, match=words) as error:
            ImageDataset("a", train, test, 3, "")
        one_line(error)
    spec = {"label": {"kind": "label", "num_classes": 3}, "hue": {"kind": "label", "num_classes": 2}}
    hues = with_style(style=np.array([0, 1, 2, 0], np.int32))
    with pytest.raises(ValueError, match="conditions label, hue, but images with"):
        ImageDataset("a", hues, hues, 3, "", conditions=spec)
    spec["style"] = spec.pop("hue")
    with pytest.raises(ValueError, match="styles run from 0 to 2, but its num_classes allows 0 to 1"):
        ImageDataset("a", hues, hues, 3, "", conditions=spec)
    pictures = with_style(style=np.zeros((4, 2, 2), np.uint8))
    with pytest.raises(ValueError, match="say in `conditions` of which kind style is"):
        ImageDataset("a", pictures, pictures, 3, "")


def test_the_digest_is_of_the_data_and_of_nothing_else():
    def digest(images=0, labels=(0, 1), name="a", names=("x", "y"), provenance="", y=None):
        pixels = np.full((2, 2, 2, 1), images, np.uint8)
        whole = Split(pixels, np.array(labels, np.int32) if y is None else y)
        return ImageDataset(name, whole, whole, 2, provenance, names).digest()

    assert re.fullmatch("[0-9a-f]{32}", digest())
    assert digest(name="b", provenance="elsewhere") == digest()
    style = {"label": np.array([0, 1], np.int32), "style": np.zeros((2, 1), np.float32)}
    others = [
        digest(images=1),
        digest(labels=(1, 0)),
        digest(names=("x", "z")),
        digest(names=None),
        digest(y=style),
        digest(y={**style, "style": np.ones((2, 1), np.float32)}),
    ]
    assert len({digest(), *others}) == 7


def test_the_digest_of_a_stream_looks_at_examples_all_over_it():
    def digest(images, label=0):
        labels = np.full(len(images), label, np.int32)
        pairs = list(zip(images, labels, strict=True))
        return ImageDataset("a", StreamedSplit(pairs, (2, 2, 1)), make(shape=(2, 2, 1)), 2, "").digest()

    images = np.zeros((200, 2, 2, 1), np.uint8)
    assert digest(images) == digest(images.copy())
    others = [digest(images, 1), digest(images[:-1]), digest(images + 1)]
    others += [digest(np.concatenate([images[:k], images[k:] + 1])) for k in (50, 100, 150)]
    assert len({digest(images), *others}) == 7


def test_the_registry(tmp_path):
    @register_source("mine")
    def mine(n: int = 2, share: float = 0.5, folder: str | None = None) -> ImageDataset:
        assert 0 <= share <= 1
        return ImageDataset("mine", make(n), make(n), 1, "made here")

    assert "mine" in source_names()
    assert len(load("mine", n=5).train) == 5
    load("mine", share=1, folder=None)
    load("mine", folder=tmp_path)
    with pytest.raises(KeyError, match=r"unknown data source 'main'; did you mean 'mine'.*folder, idx") as error:
        load("main")
    one_line(error)
    for wrong, words in [
        ({"m": 3}, "'mine' has no parameter 'm'; .*it takes: n, share, folder"),
        ({"n": "3"}, "n = '3'; it must be a whole number"),
        ({"n": True}, "n = True"),
        ({"share": "0.1"}, "share = '0.1'; it must be a number"),
        ({"folder": 3}, "folder = 3; it must be a name or None"),
    ]:
        with pytest.raises(ValueError, match=words) as error:
            load("mine", **wrong)
        one_line(error)
    with pytest.raises(ValueError, match="already registered"):
        register_source("folder")(mine)
    assert set(SOURCES.names()) >= {"digits", "fashion_mnist", "folder", "idx", "mnist", "npz", "tfds"}


def test_held_out_examples_are_evenly_spread_over_each_class():
    labels = np.array([0, 1] * 10 + [1] * 4, np.int32)
    mask = split.hold_out(labels, lambda n: n // 5)
    assert mask[labels == 0].sum() == 2
    assert mask[labels == 1].sum() == 2
    np.testing.assert_array_equal(np.flatnonzero(mask[labels == 0]), [2, 7])


def test_splitting_off_needs_something_to_split():
    images, labels = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1), np.array([0, 0, 0, 0, 1, 2], np.int32)
    train, test = split.split_off(Split(images, labels), 0.25)
    assert len(test) == 1  # classes of one image keep it for training
    assert sorted([*train.images.ravel(), *test.images.ravel()]) == list(range(6))
    with pytest.raises(ValueError, match="between 0 and 1"):
        split.split_off(Split(images, labels), 1.0)
    with pytest.raises(ValueError, match="no test split"):
        split.split_off(Split(images[3:], labels[3:]), 0.5)


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
    heavy = "jax tensorflow tensorflow_datasets sklearn array_record PIL tqdm"
    code = f"import sys, fmd.data; print(*(m for m in '{heavy}'.split() if m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_a_split_shows_shapes_and_not_pixels():
    split = Split(
        np.zeros((3, 2, 2, 1), np.uint8), {"label": np.zeros(3, np.int32), "age": np.zeros((3, 1), np.float32)}
    )
    assert repr(split) == "Split(images uint8 [3, 2, 2, 1], label int32 [3], age float32 [3, 1])"
