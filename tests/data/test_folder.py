"""The folder source: crop and resize, channels, names, and what it refuses."""

import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from fmd import arguments, commands
from fmd import config as configs
from fmd.data import images, load
from fmd.data.sources import idx
from fmd.sampling import sampler
from tests.helpers import toys
from tests.helpers.pictures import paint, paint_classes

pytestmark = pytest.mark.usefixtures("cache")


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
    for size in ("large", (3, 4, 5)):
        with pytest.raises(ValueError, match=r"image_size = .* it must be a whole number or"):
            load("folder", path=str(root), image_size=size)


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

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="cannot be read"):
        load("folder", path=str(tmp_path / "set"))


def test_images_without_labels_train_an_unconditional_model(tmp_path):
    for k in range(12):
        paint(tmp_path / "set" / f"{k}.png", 20 * k, size=(9, 7), mode="L")
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
        commands.train_config(settings(), tmp_path / "refused")
    plain = settings(sample={"guidance": {"name": "cfg", "weight": 1.0}, "steps": 1})
    run = commands.train_config(plain, tmp_path / "run")
    assert (run.finished, run.info.num_classes, run.info.train_images) == (True, 0, 10)
    assert (tmp_path / "run" / "samples" / "step_00000002.png").exists()
    draw = sampler.load(tmp_path / "run", layout=run.layout)
    labels = arguments.parse_labels(None, 3, draw.info)
    np.testing.assert_array_equal(labels, arguments.parse_labels("null", 3, draw.info))
    assert draw(labels, jax.random.key(0)).shape == (3, 7, 9, 1)
    with pytest.raises(ValueError, match="this model was trained without labels and takes 0 alone"):
        draw([1], jax.random.key(0))
    with pytest.raises(ValueError, match="use weight 1"):
        draw(labels, jax.random.key(0), weight=0.0)


def test_the_shipped_config_names_parameters_of_the_source(tmp_path):
    paint_classes(tmp_path / "set")
    paint(tmp_path / "set" / "a" / "grey.png", 9, mode="L", size=(30, 20))
    config = configs.load_file(Path(__file__).parents[2] / "configs" / "folder.py")
    for block in (config, configs.apply_on_cpu(config)):
        params = {**block["data"]["params"], "path": str(tmp_path / "set")}
        dataset = load(block["data"]["source"], **params)
        assert dataset.image_shape == (params["image_size"], params["image_size"], 3)
        assert dataset.class_names == ("a", "b")


@pytest.mark.parametrize("name", [b"ni\xf1o", b"\xff\xfe", "Füße 鸟".encode(), b"tab\there"])
def test_class_names_of_any_bytes_are_text_in_all_that_is_written(tmp_path, log, name):
    root = tmp_path / os.fsdecode(b"s\xe9t")
    paint_classes(root, names=(os.fsdecode(name), "other"))
    (root / "other" / os.fsdecode(b"\xe9.png")).write_bytes(b"damaged")
    (root / "other" / os.fsdecode(b"\xe9.txt")).touch()
    dataset = load("folder", path=str(root))
    texts = [dataset.name, dataset.provenance, *dataset.class_names, *log, dataset.digest()]
    assert json.loads(json.dumps(texts, ensure_ascii=False).encode()) == texts
    assert all(text.isprintable() for text in texts)
    assert (len(set(dataset.class_names)), len(dataset.train)) == (2, 6)


def test_a_tilde_is_the_home_in_every_path_of_a_source(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    home = tmp_path / "home"
    paint_classes(home / "set")
    assert load("folder", path="~/set").num_classes == 2
    archive = {"images": np.zeros((4, 2, 2), np.uint8), "labels": np.arange(4) % 2}
    np.savez(home / "a.npz", **archive)
    assert len(load("npz", path="~/a.npz", test_path="~/a.npz").test) == 4
    for name, array in zip(idx.FILE_NAMES, [archive["images"], archive["labels"].astype(np.uint8)] * 2, strict=True):
        (home / name).write_bytes(idx.encode(array))
    assert load("idx", path="~").num_classes == 2
    with pytest.raises(ValueError, match=r"~: train-images-idx3-ubyte has md5"):
        load("mnist", path="~")
    with pytest.raises(KeyError, match=f"none is prepared in {home}/prepared"):
        load("tfds", name="no_such_set", data_dir="~/prepared")
    assert list((tmp_path / "work").iterdir()) == []


def test_a_set_that_moved_is_the_same_and_another_is_another(tmp_path, cache):
    """Two folders may have equal listings, lengths and times; it is the pixels that count."""
    for where, base in (("one", 0), ("two", 100)):
        for name in ("x", "y"):
            for k in range(4):
                file = tmp_path / where / "images" / name / f"{k}.bmp"
                paint(file, (base + k, 1, 2))
                os.utime(file, (10**9, 10**9))
    one, two = (load("folder", path=str(tmp_path / where / "images")) for where in ("one", "two"))
    assert one.train.images.max() < 100 <= two.train.images.max()
    shutil.copytree(tmp_path / "one", tmp_path / "moved" / "deeper", copy_function=shutil.copy)
    before = sorted(cache.glob("decoded/images-*"))
    moved = load("folder", path=str(tmp_path / "moved" / "deeper" / "images"))
    assert (moved.digest() == one.digest(), two.digest() == one.digest()) == (True, False)
    assert sorted(cache.glob("decoded/images-*")) == before  # the same files need not be decoded again
    (tmp_path / "one" / "images" / "y").rename(tmp_path / "one" / "images" / "a")
    assert load("folder", path=str(tmp_path / "one" / "images")).digest() != one.digest()
    # Another set unpacked in its place, with the times of the first.
    shutil.rmtree(tmp_path / "moved")
    shutil.copytree(tmp_path / "two", tmp_path / "moved" / "deeper")
    assert load("folder", path=str(tmp_path / "moved" / "deeper" / "images")).digest() == two.digest()


def test_a_current_folder_has_a_name(tmp_path, monkeypatch):
    paint_classes(tmp_path / "birds")
    monkeypatch.chdir(tmp_path / "birds")
    assert load("folder", path=".").name == "birds"
