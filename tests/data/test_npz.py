"""NumPy archives: with and without labels, one file or two, and foreign ones."""

import numpy as np
import pytest

from fmd.data import load

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 4, 5, 3), dtype=np.uint8)
LABELS = np.arange(10) % 2


def write(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_labelled(tmp_path):
    dataset = load("npz", path=write(tmp_path / "set.npz", images=IMAGES, labels=LABELS), test_fraction=0.2)
    assert (dataset.name, dataset.num_classes, dataset.image_shape) == ("set", 2, (4, 5, 3))
    np.testing.assert_array_equal(np.bincount(dataset.test.labels), [1, 1])
    together = np.concatenate([dataset.train.images, dataset.test.images])
    assert sorted(image.tobytes() for image in together) == sorted(image.tobytes() for image in IMAGES)


def test_unlabelled_and_without_a_channel_axis(tmp_path):
    dataset = load("npz", path=write(tmp_path / "set.npz", images=IMAGES[..., 0]))
    assert (dataset.num_classes, dataset.image_shape, len(dataset.test)) == (0, (4, 5, 1), 1)


def test_a_test_file_of_its_own(tmp_path):
    train = write(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    test = write(tmp_path / "b.npz", images=IMAGES[:3], labels=LABELS[:3].astype(np.uint8))
    dataset = load("npz", path=train, test_path=test, num_classes=5)
    assert (len(dataset.train), len(dataset.test), dataset.num_classes) == (10, 3, 5)
    np.testing.assert_array_equal(dataset.train.images, IMAGES)
    with pytest.raises(ValueError, match="only one has labels"):
        load("npz", path=train, test_path=write(tmp_path / "c.npz", images=IMAGES))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"pictures": IMAGES}, "no array 'images', only: pictures"),
        ({"images": IMAGES / 255}, "must be uint8 .* got float64"),
        ({"images": IMAGES[0, 0]}, "must be uint8"),
        ({"images": IMAGES[:0]}, "must be uint8"),
        ({"images": IMAGES, "labels": LABELS[:9]}, "10 images but 9 labels"),
        ({"images": IMAGES, "labels": LABELS + 0.5}, "labels must be int32"),
        ({"images": IMAGES, "labels": LABELS - 1}, "count from 0, got -1 to 0"),
        ({"images": np.array([None])}, "not an .npz archive of plain arrays"),
    ],
)
def test_foreign_archives_are_refused(tmp_path, arrays, words):
    with pytest.raises(ValueError, match=words) as error:
        load("npz", path=write(tmp_path / "set.npz", **arrays))
    assert "\n" not in str(error.value)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load("npz", path=str(tmp_path / "nothing.npz"))
    np.save(tmp_path / "a.npy", IMAGES)
    (tmp_path / "b.npz").write_bytes(b"text")
    whole = write(tmp_path / "c.npz", images=IMAGES)
    data = (tmp_path / "c.npz").read_bytes()
    (tmp_path / "c.npz").write_bytes(data[: len(data) // 2])
    for path in (tmp_path / "a.npy", tmp_path / "b.npz", whole):
        with pytest.raises(ValueError, match=r"not an .npz archive of plain arrays, or is damaged"):
            load("npz", path=str(path))


def test_further_arrays_become_parts_of_the_condition(tmp_path):
    style, hue = np.random.default_rng(1).random((10, 3)), np.arange(10) % 4
    path = write(tmp_path / "a.npz", images=IMAGES, labels=LABELS, style=style, hue=hue, size=style[:, 0])
    dataset = load("npz", path=path, conditions=["style", "hue", "size"], test_fraction=0.2)
    assert dataset.conditions == {
        "label": {"kind": "label", "num_classes": 2},
        "style": {"kind": "vector", "size": 3},
        "hue": {"kind": "label", "num_classes": 4},
        "size": {"kind": "vector", "size": 1},
    }
    for split in (dataset.train, dataset.test):
        for image, values, label in zip(split.images, split.y["style"], split.y["label"], strict=True):
            (row,) = np.flatnonzero((image == IMAGES).all((1, 2, 3)))
            np.testing.assert_array_equal(values, style[row].astype(np.float32))
            assert label == LABELS[row]
    test = write(tmp_path / "b.npz", images=IMAGES[:3], style=style[:3], hue=hue[:3])
    with pytest.raises(ValueError, match="only one has labels"):
        load("npz", path=path, test_path=test, conditions=("style",))
    alone = load("npz", path=test, conditions=("style",), test_fraction=0.5)
    assert (alone.num_classes, alone.conditions) == (0, {"style": {"kind": "vector", "size": 3}})
    assert load("npz", path=path).conditions is None


def test_conditions_that_cannot_serve_are_refused(tmp_path):
    path = write(
        tmp_path / "a.npz", images=IMAGES, bad=np.full((10, 2), np.inf), words=np.array(["a"] * 10), low=-1 - LABELS
    )
    with pytest.raises(ValueError, match="no array 'style', only: bad, images, low, words"):
        load("npz", path=path, conditions=("style",))
    for name, words in [("bad", "bad must be finite"), ("words", "words must be int32"), ("low", "count from 0")]:
        with pytest.raises(ValueError, match=words):
            load("npz", path=path, conditions=(name,))


def test_kinds_that_are_given_decide_what_an_array_becomes(tmp_path):
    marks, planes = np.arange(10) % 2, np.broadcast_to((LABELS % 2)[:, None, None], (10, 3, 3)).astype(np.uint8)
    path = write(tmp_path / "a.npz", images=IMAGES, age=20 + np.arange(10), hole=planes, hue=marks, true=marks > 0)
    wanted = {"age": "number", "hole": "mask", "hue": "auto", "true": "label"}
    test = write(tmp_path / "b.npz", images=IMAGES[:3], age=[0, 90, 1], hole=planes[:3], hue=marks[:3], true=marks[:3])
    dataset = load("npz", path=path, test_path=test, conditions=wanted)
    assert dataset.conditions == {
        "age": {"kind": "number", "low": 20.0, "high": 29.0},  # of the training rows
        "hole": {"kind": "mask", "height": 3, "width": 3, "channels": 1},
        "hue": {"kind": "label", "num_classes": 2},
        "true": {"kind": "label", "num_classes": 2},
    }
    y = dataset.train.y
    np.testing.assert_array_equal(y["age"], 20 + np.arange(10, dtype=np.float32)[:, None])
    np.testing.assert_array_equal(y["hole"][..., 0], 255 * planes)  # 0 and 1 are 0 and 255
    given = {"age": {"kind": "number", "low": 0, "high": 100}, "hue": {"kind": "mine", "field": 3}}
    told = load("npz", path=path, conditions=given).conditions
    assert told == {"age": given["age"], "hue": given["hue"]}


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ({"age": "nummber"}, "unknown kind 'nummber' of 'age'; did you mean 'number'"),
        ({"age": {"kind": "number", "lo": 0}}, "has no field 'lo'; it has: low, high"),
        ({"age": {"low": 0}}, "it must be a kind, or a block with a `kind`"),
        (("age", "age"), "'age' is named twice"),
        (("label",), "'label' is the class of an image: leave it out"),
        ({"words": "number"}, r"condition 'words' of kind number must be numbers \[N\], got <U1"),
        ({"age": "labels"}, r"condition 'age' of kind labels must be 0 and 1 \[N, K\]"),
        ({"style": "number"}, "condition 'style' of kind number"),
        ({"style": {"kind": "vector", "size": 4}}, "condition 'style': size = 4, but its values have 3"),
        ({"age": {"kind": "label", "num_classes": 3}}, "ages run from .* but its num_classes allows 0 to 2"),
        ("age", "it must be a tuple, each a name or a block of keys"),
    ],
)
def test_kinds_that_do_not_fit_are_refused_in_a_line(tmp_path, conditions, words):
    arrays = {"age": np.arange(10), "words": np.array(list("abcdefghij")), "style": np.ones((10, 3))}
    with pytest.raises(ValueError, match=words) as caught:
        load("npz", path=write(tmp_path / "a.npz", images=IMAGES, **arrays), conditions=conditions)
    assert "\n" not in str(caught.value)
