"""Image folders: layouts, crop and resize, channels, damaged files, and the kept decoded arrays."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest
import toys
from absl import logging
from PIL import Image

from fmd import config_files, modes
from fmd.data import folder, images, load
from fmd.sampling import sampler


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FMD_DATA_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def log(monkeypatch):
    lines = []
    for level in ("info", "warning"):
        monkeypatch.setattr(logging, level, lambda message, *values: lines.append(message % values))
    return lines


def paint(path, value, size=(6, 6), mode="RGB"):
    """A PNG of `size` (width, height) in one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def paint_classes(root, names=("b", "a"), count=4):
    for c, name in enumerate(sorted(names)):
        for k in range(count):
            paint(root / name / f"{k}.png", (10 * c, k, 0))


def test_classes_are_the_sorted_sub_folders(tmp_path):
    paint_classes(tmp_path / "set")
    paint(tmp_path / "set" / "a" / "deeper" / "x.PNG", (0, 9, 0))
    (tmp_path / "set" / "empty").mkdir()
    paint(tmp_path / "set" / ".hidden" / "x.png", (1, 1, 1))
    paint(tmp_path / "set" / "a" / "._0.png", (1, 1, 1))
    (tmp_path / "set" / "a" / "notes.txt").write_text("not an image")
    dataset = load("folder", path=str(tmp_path / "set"), test_fraction=0.25)
    assert (dataset.name, dataset.class_names, dataset.num_classes) == ("set", ("a", "b"), 2)
    assert dataset.image_shape == (6, 6, 3)
    for split in (dataset.train, dataset.test):
        np.testing.assert_array_equal(split.images[:, 0, 0, 0], 10 * split.labels)
    np.testing.assert_array_equal(np.bincount(dataset.train.labels), [4, 3])
    np.testing.assert_array_equal(np.bincount(dataset.test.labels), [1, 1])


def test_a_flat_folder_has_no_labels(tmp_path):
    for k in range(5):
        paint(tmp_path / "set" / f"{k}.png", k, mode="L")
    dataset = load("folder", path=str(tmp_path / "set"), test_fraction=0.4)
    assert (dataset.num_classes, dataset.class_names, dataset.image_shape) == (0, None, (6, 6, 1))
    assert (len(dataset.train), len(dataset.test)) == (3, 2)
    assert not dataset.train.labels.any()


@pytest.mark.parametrize("test", ["test", "val"])
def test_train_and_test_folders_are_splits(tmp_path, test):
    paint_classes(tmp_path / "set" / "train")
    paint_classes(tmp_path / "set" / test, count=2)
    dataset = load("folder", path=str(tmp_path / "set"))
    assert (len(dataset.train), len(dataset.test), dataset.class_names) == (8, 4, ("a", "b"))
    paint_classes(tmp_path / "set" / test, names=("c",))
    with pytest.raises(ValueError, match=r"class folders in .* differ"):
        load("folder", path=str(tmp_path / "set"))


def test_train_may_be_a_class(tmp_path):
    paint_classes(tmp_path / "set", names=("bus", "train"))
    assert load("folder", path=str(tmp_path / "set")).class_names == ("bus", "train")


def test_one_class_is_allowed_and_said(tmp_path, log):
    paint_classes(tmp_path / "set", names=("only",))
    assert load("folder", path=str(tmp_path / "set")).num_classes == 1
    assert any("one class only, 'only'" in line for line in log)


def test_the_centre_is_cropped_and_resized(tmp_path):
    """A red band left and right of a green square: only the square is left; a square of another size is averaged."""
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[..., 0], wide[:, 4:12] = 255, (0, 255, 0)
    checks = np.kron(np.indices((4, 4)).sum(0) % 2, np.ones((4, 4))).astype(np.uint8) * 200
    (tmp_path / "set").mkdir()
    for k in range(2):
        Image.fromarray(wide).save(tmp_path / "set" / f"{k}.png")
    dataset = load("folder", path=str(tmp_path / "set"), image_size=8)
    np.testing.assert_array_equal(dataset.train.images[0], wide[:, 4:12])
    assert load("folder", path=str(tmp_path / "set"), image_size=(4, 8)).image_shape == (4, 8, 3)
    np.testing.assert_allclose(images.fit_array(checks[..., None], (8, 8)).astype(float).mean(), 100, atol=2)
    np.testing.assert_array_equal(images.fit_array(wide, (8, 16)), wide)


def test_other_modes_become_one_or_three_channels(tmp_path):
    root = tmp_path / "set"
    paint(root / "rgba.png", (255, 0, 0, 0), mode="RGBA")  # transparent: white
    paint(root / "palette.png", 7, mode="P")
    Image.new("CMYK", (6, 6), (0, 0, 0, 255)).save(root / "cmyk.jpg")
    paint(root / "rgb.png", (1, 2, 3))
    dataset = load("folder", path=str(root), test_fraction=0.25)
    pixels = np.concatenate([dataset.train.images, dataset.test.images])[:, 0, 0].tolist()
    assert [255, 255, 255] in pixels
    assert [1, 2, 3] in pixels
    deep = tmp_path / "deep"
    deep.mkdir()
    for k in range(2):
        Image.fromarray(np.full((6, 6), 513, np.uint16)).save(deep / f"{k}.png")  # 16 bits: the upper 8 count
    assert load("folder", path=str(deep)).train.images[0, 0, 0, 0] == 2


def test_exif_turns_the_image_upright(tmp_path):
    stored = np.full((8, 4), 250, np.uint8)
    stored[:, :2] = 0
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise: the dark left half is on top
    (tmp_path / "set").mkdir()
    for k in range(2):
        Image.fromarray(stored).save(tmp_path / "set" / f"{k}.png", exif=exif)
    dataset = load("folder", path=str(tmp_path / "set"))
    np.testing.assert_array_equal(dataset.train.images[0, ..., 0], np.rot90(stored, -1))


def test_mixed_channels_and_sizes_are_refused_unless_converted(tmp_path):
    root = tmp_path / "set"
    paint(root / "a.png", (90, 90, 90))
    paint(root / "b.png", 40, mode="L")
    with pytest.raises(ValueError, match=r"mixed channel counts: .*a\.png has 3, .*b\.png has 1; set channels"):
        load("folder", path=str(root))
    assert load("folder", path=str(root), channels=1).image_shape == (6, 6, 1)
    assert load("folder", path=str(root), channels=3).image_shape == (6, 6, 3)
    with pytest.raises(ValueError, match="channels must be 1 or 3"):
        load("folder", path=str(root), channels=4)
    paint(root / "b.png", (1, 1, 1), size=(7, 6))
    with pytest.raises(ValueError, match=r"a\.png is 6x6, .*b\.png is 6x7; set image_size"):
        load("folder", path=str(root))
    with pytest.raises(ValueError, match="one or two positive numbers"):
        load("folder", path=str(root), image_size=0)


def test_damaged_files_are_left_out_counted_and_named(tmp_path, log):
    root = tmp_path / "set"
    paint_classes(root)
    (root / "a" / "0.png").write_bytes(b"not a PNG")
    noise = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "b" / "3.png")
    (root / "b" / "3.png").write_bytes((root / "b" / "3.png").read_bytes()[:80])  # a good header, then nothing
    for _ in range(2):  # decoded, then from the cache
        dataset = load("folder", path=str(root))
        assert len(dataset.train) + len(dataset.test) == 6
        assert "2 unreadable files left out" in dataset.provenance
        assert "2 of 8 files cannot be read and are left out: a/0.png, b/3.png" in log[-2]
        for split in (dataset.train, dataset.test):
            np.testing.assert_array_equal(split.images[:, 0, 0, 0], 10 * split.labels)
    for k in range(4):
        (root / "b" / f"{k}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="no image of class 'b'"):
        load("folder", path=str(root))
    for k in range(4):
        (root / "a" / f"{k}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 8 image files can be read"):
        load("folder", path=str(root))


def test_decoded_arrays_are_kept_until_a_file_changes(tmp_path, cache, monkeypatch):
    root = tmp_path / "set"
    paint_classes(root)
    first = load("folder", path=str(root))
    (kept,) = (cache / "decoded").iterdir()
    reads, read = [], images.read
    monkeypatch.setattr(images, "read", lambda *a: reads.append(a) or read(*a))
    np.testing.assert_array_equal(load("folder", path=str(root)).train.images, first.train.images)
    assert reads == []
    load("folder", path=str(root), channels=1)
    assert len(reads) == 8  # another result has another name
    kept.write_bytes(kept.read_bytes()[:200])
    np.testing.assert_array_equal(load("folder", path=str(root)).train.images, first.train.images)
    assert len(reads) == 16  # a damaged copy is decoded again
    os.utime(root / "a" / "0.png", ns=(1, 1))
    load("folder", path=str(root))
    assert len(reads) == 24


def test_an_unwritable_cache_is_no_obstacle(tmp_path, cache, log):
    cache.write_text("a file")
    paint_classes(tmp_path / "set")
    assert len(load("folder", path=str(tmp_path / "set")).train) == 6
    assert any("not kept" in line for line in log)


def test_folders_that_cannot_serve_are_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load("folder", path=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no images in .*empty"):
        load("folder", path=str(tmp_path / "empty"))
    paint_classes(tmp_path / "set")
    paint(tmp_path / "set" / "stray.png", (0, 0, 0))
    with pytest.raises(ValueError, match=r"images beside class folders \(a, "):
        load("folder", path=str(tmp_path / "set"))

    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folder.os, "listdir", refuse)
    with pytest.raises(PermissionError, match="cannot be read"):
        load("folder", path=str(tmp_path / "set"))


def test_images_without_labels_train_an_unconditional_model(tmp_path):
    for k in range(12):
        paint(tmp_path / "set" / f"{k}.png", 20 * k, size=(8, 8), mode="L")
    (tmp_path / "set" / "11.png").write_bytes(b"not a PNG")

    def settings(**overrides):
        return toys.config(
            data={"source": "folder", "params": {"path": str(tmp_path / "set")}},
            train={"num_steps": 2, "batch_size": 8},
            optimizer={"warmup_steps": 1},
            ema={"decays": [0.9], "power_stds": []},
            log={"every": 1, "eval_every": 0, "samples_every": 0, "eval_examples": 8},
            parallel={"mode": "jit"},
            **overrides,
        )

    with pytest.raises(ValueError, match=r"weight 2\.0 needs a model trained with labels .* 0 classes.*; use weight 1"):
        modes.train_config(settings(), tmp_path / "refused")
    plain = settings(sample={"guidance": {"name": "cfg", "weight": 1.0}, "steps": 1})
    run = modes.train_config(plain, tmp_path / "run")
    assert (run.finished, run.facts["num_classes"], run.facts["train_images"]) == (True, 0, 10)
    assert (tmp_path / "run" / "samples" / "step_00000002.png").exists()
    draw = sampler.load(tmp_path / "run", layout=run.layout)
    labels = modes.parse_labels(None, 3, draw.num_classes)
    np.testing.assert_array_equal(labels, modes.parse_labels("null", 3, draw.num_classes))
    assert draw(labels, jax.random.key(0)).shape == (3, 8, 8, 1)
    with pytest.raises(ValueError, match="this model was trained without labels and takes 0 alone"):
        draw([1], jax.random.key(0))
    with pytest.raises(ValueError, match="use weight 1"):
        draw(labels, jax.random.key(0), weight=0.0)


def test_the_shipped_config_names_parameters_of_the_source(tmp_path):
    paint_classes(tmp_path / "set")
    paint(tmp_path / "set" / "a" / "grey.png", 9, mode="L", size=(30, 20))
    config = config_files.load_file(Path(__file__).parents[2] / "configs" / "folder.py")
    for block in (config, config_files.apply_on_cpu(config)):
        params = {**block["data"]["params"], "path": str(tmp_path / "set")}
        dataset = load(block["data"]["source"], **params)
        assert dataset.image_shape == (params["image_size"], params["image_size"], 3)
        assert dataset.class_names == ("a", "b")
