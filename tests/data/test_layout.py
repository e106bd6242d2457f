"""Folder layouts: splits and classes by their usual names, natural order, and an account of what is not taken."""

import os
import random

import numpy as np
import pytest

from fmd.data import file_names, layout, load
from tests.helpers.pictures import encoded, paint, paint_classes


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("FMD_DATA_DIR", str(tmp_path_factory.mktemp("cache")))


def touch(root, *paths):
    """Files that look like images by their names."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def shape(root):
    """The layout in short: classes, number of training files, and of test files (None without a test split)."""
    found = layout.find(root)
    return found.classes, len(found.train), None if found.test is None else len(found.test)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("train", "val"),
        ("training", "testing"),
        ("Train", "Valid"),
        ("TRAIN", "DEV"),
        ("train", "validation"),
        ("training_set", "test_set"),
        ("Training Images", "test-images"),
        ("train2017", "val2017"),
        ("trainset", "holdout"),
        ("1_Train", "2_Validation"),
        ("seg_train", "seg_test"),
        ("mnist_png_training", "mnist_png_testing"),
        ("cats-vs-dogs train", "cats-vs-dogs val"),
    ],
)
def test_splits_are_known_by_all_their_usual_names(tmp_path, train, test):
    touch(tmp_path, *(f"{train}/{c}/{k}.png" for c in "ab" for k in range(3)), f"{test}/a/0.png", f"{test}/b/1.png")
    assert shape(tmp_path) == (("a", "b"), 6, 2)
    flat = tmp_path / "flat"
    touch(flat, *(f"{train}/{k}.png" for k in range(3)), f"{test}/0.png", "unlabeled/0.png", "cover.png")
    assert shape(flat) == ((), 3, 1)
    told = layout.find(flat).not_taken()
    assert "1 images in folders beside the splits (unlabeled)" in told
    assert "1 images beside the splits (cover.png)" in told


@pytest.mark.parametrize(
    "name", ["bus", "trainer", "tested", "contest", "retraining", "valid", "development", "express_train"]
)
def test_other_names_are_classes(tmp_path, name):
    assert file_names.role(name) is None or name == "valid"
    touch(tmp_path, "train/0.png", f"{name}/0.png") if name != "valid" else touch(
        tmp_path, "invalid/0.png", "valid/0.png"
    )
    assert len(shape(tmp_path)[0]) == 2


def test_names_that_begin_in_different_ways_are_classes(tmp_path):
    touch(tmp_path, "steam_train/0.png", "road_test/0.png", "steam_engine/0.png")
    assert shape(tmp_path) == (("road_test", "steam_engine", "steam_train"), 3, None)


@pytest.mark.parametrize("names", [["test"], ["Test", "val"], ["dev", "2_test"]])
def test_test_images_alone_are_not_trained_on(tmp_path, names):
    touch(tmp_path, *(f"{name}/{c}/{k}.png" for name in names for c in "ab" for k in range(2)))
    with pytest.raises(
        ValueError, match=r"has no training images, only .*; to train on one of these give its own path"
    ):
        shape(tmp_path)
    assert shape(tmp_path / names[0]) == (("a", "b"), 4, None)


def test_the_images_of_split_folders_are_their_own(tmp_path):
    paint_classes(tmp_path / "set" / "Training")
    paint_classes(tmp_path / "set" / "Testing", count=2)
    dataset = load("folder", path=str(tmp_path / "set"))
    assert (len(dataset.train), len(dataset.test), dataset.class_names) == (8, 4, ("a", "b"))
    paint_classes(tmp_path / "set" / "Testing", names=("c",))
    with pytest.raises(ValueError, match=r"class folders in .* differ from those in .*: only there is c"):
        load("folder", path=str(tmp_path / "set"))


def test_test_is_preferred_to_validation_and_the_rest_is_told(tmp_path):
    touch(tmp_path, "train/a/0.png", "train/a/1.png", "val/a/0.png", "val/a/1.png", "test/a/0.png", "dev/a/0.png")
    assert shape(tmp_path) == (("a",), 2, 1)
    assert "3 images of further splits (val 2, dev)" in layout.find(tmp_path).not_taken()


def test_a_test_split_without_labels_is_passed_over(tmp_path):
    touch(tmp_path, *(f"train/{c}/{k}.png" for c in "ab" for k in range(3)), "test/0.png", "test/1.png")
    assert shape(tmp_path) == (("a", "b"), 6, None)
    assert "2 images of splits without labels (test 2)" in layout.find(tmp_path).not_taken()
    touch(tmp_path, "val/a/0.png")  # a class may be missing there
    assert shape(tmp_path) == (("a", "b"), 6, 1)
    nested = tmp_path / "nested"
    touch(nested, "train/a/0.png", "train/b/0.png", "test1/unknown/0.png")
    assert shape(nested) == (("a", "b"), 2, None)


def test_empty_split_folders_do_not_count(tmp_path):
    touch(tmp_path, "train/a/0.png", "train/b/0.png", "test/readme.txt")
    assert shape(tmp_path) == (("a", "b"), 2, None)
    assert "1 folders without images (test)" in layout.find(tmp_path).not_taken()
    other = tmp_path / "other"
    (other / "train").mkdir(parents=True)
    touch(other, "test/0.png", "bird/0.png")
    assert shape(other) == (("bird", "test"), 2, None)


def test_archives_that_unpack_into_folders_of_folders_are_found(tmp_path):
    touch(tmp_path, "archive/train/train/a/0.png", "archive/train/train/b/0.png", "archive/test/test/a/0.png")
    touch(tmp_path, "__MACOSX/archive/._x.png", "archive/.DS_Store")
    assert shape(tmp_path) == (("a", "b"), 2, 1)
    only = tmp_path / "only"
    touch(only, "Train/a/0.png", "Train/b/0.png")
    assert shape(only) == (("a", "b"), 2, None)


def test_splits_within_each_class_are_splits(tmp_path):
    touch(tmp_path, *(f"{c}/{s}/{k}.png" for c in "ab" for s in ("train", "test", "mask") for k in range(2)))
    assert shape(tmp_path) == (("a", "b"), 4, 4)
    assert "4 images of further splits (a/mask 2, b/mask 2)" in layout.find(tmp_path).not_taken()


@pytest.mark.parametrize(
    "names",
    [
        [str(k) for k in range(12)],
        [f"class{k}" for k in (1, 2, 9, 10, 11, 100)],
        ["1 one", "2 two", "10 ten"],
        ["a1b2", "a1b10", "a2", "a10b1"],
        ["007", "8", "9", "010", "11"],
        ["A", "B", "a", "b"],
    ],
)
def test_numbered_classes_come_in_natural_order(tmp_path, names):
    mixed = random.Random(0).sample(names, len(names))
    assert sorted(mixed, key=file_names.natural) == names
    for name in mixed:
        touch(tmp_path, f"{name}/0.png")
    assert shape(tmp_path)[0] == tuple(names)


def test_what_is_not_taken_is_counted_and_said(tmp_path):
    touch(tmp_path, "a/0.png", "b/0.jpeg", "b/labels.csv", "b/notes.txt", "a/notes.txt", "a/x.heic", "c/empty.txt")
    (tmp_path / "d").mkdir()
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    touch(tmp_path, "a/.hidden.png", "a/Thumbs.db")
    assert shape(tmp_path) == (("a", "b"), 2, None)
    assert layout.find(tmp_path).not_taken() == (
        "1 broken links (a/gone.png); 2 class folders without images (c, d); "
        "5 files that are no images (.txt 3, .heic, .csv)"
    )
    clean = tmp_path / "clean"
    touch(clean, "a/0.png")
    assert layout.find(clean).not_taken() == ""


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM"])
def test_images_are_known_by_their_content_as_well(tmp_path, form):
    data = encoded(form)
    touch(tmp_path, "a/0.png")
    for name in ("a/bare", "a/photo.2"):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "a" / "BMP text.txt").write_text("BM is not always a bitmap")
    found = [file.name for file, _ in layout.find(tmp_path / "a").train]
    expected = ["0.png", "bare"] + ["photo.2"] * (form in ("PNG", "JPEG", "GIF", "WEBP"))
    assert found == expected


def test_each_real_folder_is_read_once_whatever_links_there_are(tmp_path):
    touch(tmp_path, "a/0.png", "b/0.png", "store/c/0.png")
    root = tmp_path / "set"
    touch(root, "a/0.png", "b/0.png")
    (root / "a" / "loop").symlink_to(root)
    (root / "again").symlink_to(root / "b")
    (root / "c").symlink_to(tmp_path / "store" / "c")
    (root / "b" / "1.png").symlink_to(tmp_path / "a" / "0.png")  # links to files are files
    assert shape(root) == (("a", "b", "c"), 4, None)
    assert "2 folders that are read already by another name (a/loop, again)" in layout.find(root).not_taken()
    splits = tmp_path / "splits"
    touch(splits, "all/a/0.png", "all/a/1.png", "all/b/0.png")
    for split in ("train", "test"):
        (splits / split).mkdir()
    (splits / "train" / "a").symlink_to(splits / "all" / "a")
    (splits / "test" / "a").symlink_to(splits / "all" / "a")
    assert shape(splits) == (("a",), 2, None)


def test_a_link_to_the_training_split_is_no_test_split(tmp_path):
    touch(tmp_path, "train/0.png", "train/1.png")
    (tmp_path / "test").symlink_to(tmp_path / "train")
    assert shape(tmp_path) == ((), 2, None)
    assert "read already" in layout.find(tmp_path).not_taken()


def test_classes_are_said_with_counts(tmp_path, caplog):
    for k in (1, 2, 10):
        for i in range(2 + k):
            paint(tmp_path / "set" / str(k) / f"{i}.png", (20 * k, i, 0))
    with caplog.at_level("INFO"):
        dataset = load("folder", path=str(tmp_path / "set"))
    assert dataset.class_names == ("1", "2", "10")
    assert "3 classes (training + test images): 0 1: 2 + 1, 1 2: 3 + 1, 2 10: 11 + 1" in caplog.text
    np.testing.assert_array_equal(dataset.class_counts(), [2, 3, 11])


def test_a_folder_without_permission_is_one_line(tmp_path, monkeypatch):
    touch(tmp_path, "a/0.png")
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("a"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match=r"folder .*a cannot be read: check its permissions"):
        layout.find(tmp_path)
