"""IDX files: round trip, gzip, the customary names, and one line for everything that is wrong with a file."""

import gzip
import os

import numpy as np
import pytest

from fmd.data import load
from fmd.data.sources import idx

RNG = np.random.default_rng(0)
ARRAYS = (
    RNG.integers(0, 256, (5, 4, 3), dtype=np.uint8),
    np.array([0, 1, 2, 1, 0], np.uint8),
    RNG.integers(0, 256, (2, 4, 3), dtype=np.uint8),
    np.array([2, 0], np.uint8),
)


def write(folder, arrays=ARRAYS, names=idx.FILE_NAMES, pack=bytes):
    folder.mkdir(exist_ok=True)
    for name, array in zip(names, arrays, strict=True):
        (folder / name).write_bytes(pack(idx.encode(array)))
    return str(folder)


def test_the_format_is_the_published_one():
    assert idx.encode(np.array([[7, 8, 9]], np.uint8)) == bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 3, 7, 8, 9])


@pytest.mark.parametrize("prefix", ["", "emnist-letters-"])
@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress)])
def test_a_folder_is_read_gzipped_or_not(tmp_path, prefix, suffix, pack):
    names = [f"{prefix}{name}{suffix}" for name in idx.FILE_NAMES]
    dataset = load("idx", path=write(tmp_path / "set", names=names, pack=pack))
    np.testing.assert_array_equal(dataset.train.images[..., 0], ARRAYS[0])
    np.testing.assert_array_equal(dataset.train.labels, ARRAYS[1])
    np.testing.assert_array_equal(dataset.test.images[..., 0], ARRAYS[2])
    np.testing.assert_array_equal(dataset.test.labels, ARRAYS[3])
    assert (dataset.name, dataset.num_classes) == ("set", 3)
    assert str(tmp_path) in dataset.provenance


def test_colour_images_and_a_stated_number_of_classes(tmp_path):
    colour = [np.repeat(a[..., None], 3, -1) if a.ndim == 3 else a for a in ARRAYS]
    names = ("train-images-idx4-ubyte", idx.FILE_NAMES[1], "test-images.idx4-ubyte", "test-labels.idx1-ubyte")
    dataset = load("idx", path=write(tmp_path / "set", colour, names), num_classes=7)
    assert dataset.image_shape == (4, 3, 3)
    assert dataset.num_classes == 7


def test_without_a_path_the_debian_package_is_meant():
    if not idx.DEBIAN_FASHION_MNIST.exists():
        with pytest.raises(FileNotFoundError, match="there is no folder /usr/share/datasets/fashion-mnist"):
            load("idx")


GOOD = idx.encode(ARRAYS[0])
ZIPPED = gzip.compress(GOOD, mtime=0)  # without the time, so that both test processes collect the same cases


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "begins with nothing"),
        (b"\x89PNG" + bytes(20), "not an IDX file: it begins with 89504e47"),
        (b"\0\0\x0d" + GOOD[3:], "type 0x0d"),
        (GOOD[:10], "3 dimensions, the file has 10 bytes"),
        (GOOD[:-1], r"shape \(5, 4, 3\) needs 60 values, the file has 59"),
        (GOOD + b"\0", "the file has 61"),
        (ZIPPED[:-9], "damaged gzip"),
        (ZIPPED[:30] + b"xx" + ZIPPED[32:], "damaged gzip"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, data, words):
    path = write(tmp_path / "set")
    (tmp_path / "set" / idx.FILE_NAMES[0]).write_bytes(data)
    with pytest.raises(ValueError, match=words) as error:
        load("idx", path=path)
    assert idx.FILE_NAMES[0] in str(error.value)
    assert "\n" not in str(error.value)


def test_what_does_not_fit_together_is_refused(tmp_path):
    with pytest.raises(ValueError, match="5 images but 4 labels"):
        load("idx", path=write(tmp_path / "count", (ARRAYS[0], ARRAYS[1][:4], *ARRAYS[2:])))
    with pytest.raises(ValueError, match=r"images must be uint8 \[N, H, W, C\] or \[N, H, W\], got uint8 \[5\]"):
        load("idx", path=write(tmp_path / "rank", (ARRAYS[1], ARRAYS[1], *ARRAYS[2:])))
    with pytest.raises(ValueError, match=r"labels must be int32 \[N\], got int32 \[5, 4\]"):
        load("idx", path=write(tmp_path / "labels", (ARRAYS[0], ARRAYS[0][..., 0], *ARRAYS[2:])))
    with pytest.raises(ValueError, match="allows 0 to 1"):
        load("idx", path=write(tmp_path / "classes"), num_classes=2)


def test_hidden_companion_files_do_not_count(tmp_path):
    path = write(tmp_path / "set")
    for name in idx.FILE_NAMES:
        (tmp_path / "set" / f"._{name}").write_bytes(b"\0\5\x16\7")
        (tmp_path / "set" / f".{name}.gz").touch()
    assert len(load("idx", path=path).train) == 5


def test_channels_in_front_and_masks_are_set_right(tmp_path):
    masks = [np.repeat(a[:, None], 3, 1) % 2 if a.ndim == 3 else a for a in ARRAYS]
    masks = [np.pad(a, ((0, 0), (0, 0), (0, 2), (0, 2))) if a.ndim == 4 else a for a in masks]
    dataset = load("idx", path=write(tmp_path / "set", masks))
    np.testing.assert_array_equal(dataset.train.images, 255 * masks[0].transpose(0, 2, 3, 1))


def test_missing_folders_and_files_are_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load("idx", path=str(tmp_path / "nowhere"))
    path = write(tmp_path / "set")
    (tmp_path / "set" / idx.FILE_NAMES[3]).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {idx.FILE_NAMES[3]}"):
        load("idx", path=path)
    (tmp_path / "set" / "other-train-images-idx3-ubyte").write_bytes(GOOD)
    with pytest.raises(ValueError, match="several sets"):
        load("idx", path=path)

    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="cannot be read"):
        load("idx", path=path)
