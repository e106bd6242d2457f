"""Classes are said with counts; classes without images, flat images and almost black sets are warnings."""

import numpy as np
import pytest

from fmd.data import ImageDataset, Split, StreamedSplit, load, register_source
from fmd.data.inspection import classes, doubts, ranges
from fmd.data.sources import idx
from tests.helpers.pictures import noise, paint


def make(labels, num_classes, *, images=None, names=None, streamed=False):
    labels = np.array(labels, np.int32)
    pixels = np.stack([noise(k, (4, 4)) for k in range(len(labels))]) if images is None else images
    split = Split(pixels, labels)
    train = StreamedSplit(split, split.image_shape) if streamed else split
    return ImageDataset("a", train, split, num_classes, "", names)


def test_classes_are_shown_in_one_line():
    assert classes(make([0, 1, 1], 2, names=("cat", "dog"))) == (
        "2 classes (training + test images): 0 cat: 1 + 1, 1 dog: 2 + 2"
    )
    assert classes(make([0, 1, 1], 2, streamed=True)) == "2 classes (test images): 0: 1, 1: 2"
    assert classes(make([0, 1, 1], 2, names=("0", "dog"))).endswith("images): 0: 1 + 1, 1 dog: 2 + 2")  # not "0 0"
    assert classes(make([0, 0], 0)) == ""
    many = classes(make([0], 1000))
    assert many.startswith("1000 classes")
    assert many.endswith("999: 0 + 0")
    assert len(many) < 400


@pytest.mark.parametrize(
    ("labels", "num_classes", "words"),
    [
        ([1, 2, 3], 4, "1 of 4 classes have no training images: 0;"),
        ([0, 1, 9], 10, "7 of 10 classes have no training images: 2 to 8;"),
        ([0, 2, 4], 7, "4 of 7 classes have no training images: 1, 3, 5 to 6;"),
        ([0, 1, 255], 256, "253 of 256 classes have no training images: 2 to 254;"),
    ],
)
def test_classes_without_images_are_said(labels, num_classes, words):
    dataset = make(labels, num_classes)
    (doubt,) = doubts(dataset)
    assert doubt.startswith(words)
    assert (dataset.class_counts() > 0).sum() == 3
    assert list(doubts(make(labels, num_classes, streamed=True))) == []


def test_sound_sets_raise_no_doubts():
    assert list(doubts(make([0, 1, 2], 3))) == []
    assert list(doubts(make([0, 0], 0))) == []


@pytest.mark.parametrize("streamed", [False, True])
def test_flat_and_dark_images_are_doubted(streamed):
    images = np.stack([noise(k, (4, 4)) for k in range(3)])
    images[1] = 77
    told = list(doubts(make([0, 0, 0], 1, images=images, streamed=streamed)))
    assert told == [f"1 of 3 {name} images are of one value, without any contrast" for name in ("training", "test")]
    for change, low, high in ((images[::2] // 16, 0, 15), (240 + images[::2] // 16, 240, 255)):
        told = list(doubts(make([0, 0], 1, images=change, streamed=streamed)))
        assert [line.startswith("the values of all") for line in told] == [True, True]
        assert f"lie in {low} to {high}, of 0 to 255" in told[0]


def test_every_source_warns_of_constant_images(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("FMD_DATA_DIR", str(tmp_path / "cache"))
    grey = np.full((6, 4, 4), 100, np.uint8) + np.arange(6, dtype=np.uint8)[:, None, None]
    for k in range(6):
        paint(tmp_path / "set" / f"{k}.png", 100 + k, mode="L")
    np.savez(tmp_path / "a.npz", images=grey)
    (tmp_path / "idx").mkdir()
    for name, array in zip(idx.FILE_NAMES, [grey, np.zeros(6, np.uint8)] * 2, strict=True):
        (tmp_path / "idx" / name).write_bytes(idx.encode(array))

    @register_source("flat")
    def flat() -> ImageDataset:
        return make([0] * 6, 1, images=grey[..., None])

    for source, params in [
        ("folder", {"path": "set"}),
        ("npz", {"path": "a.npz"}),
        ("idx", {"path": "idx"}),
        ("flat", {}),
    ]:
        caplog.clear()
        load(source, **{key: str(tmp_path / value) for key, value in params.items()})
        warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert any("training images are of one value" in line for line in warned)
        assert any("the values of all training images lie in 10" in line for line in warned)


def test_numbers_are_shown_as_ranges():
    assert ranges(np.array([0, 4, 5, 6, 9])) == "0, 4 to 6, 9"
    assert ranges(np.array([3])) == "3"
