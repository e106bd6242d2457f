"""IDX files, the format of MNIST, and the source `idx`.

An IDX file is a header, two zero bytes, one byte for the type (0x08: unsigned bytes, the only one used for images), one
byte for the number of dimensions, each dimension as a big-endian uint32, and then the values. It may be gzipped.
"""

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from fmd.data.arrays import as_images, as_labels, full_range
from fmd.data.dataset import ImageDataset
from fmd.data.file_names import visible_names
from fmd.data.sources import register_source
from fmd.data.split import Split
from fmd.files import expand, printable, refuse_larger

# Where Debian's package dataset-fashion-mnist puts its four files.
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")

# The customary names of train images, train labels, test images, test labels.
FILE_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def decode(data: bytes, name: str) -> np.ndarray:
    """The uint8 array in the bytes of an unpacked IDX file. `name` is for the message of the ValueError."""
    shape, there = _shape(data, name), len(data) - _start(data)
    if there != (needed := math.prod(shape)):
        raise ValueError(f"{name} is damaged: shape {shape} needs {needed} values, the file has {there}")
    return np.frombuffer(data, np.uint8, offset=_start(data)).reshape(shape)


def _start(data: bytes) -> int:
    return 4 + 4 * data[3]


def _shape(data: bytes, name: str) -> tuple[int, ...]:
    """The shape in the header of an IDX file; ValueError where it is none."""
    if len(data) < 4 or data[:2] != b"\0\0":
        raise ValueError(f"{name} is not an IDX file: it begins with {data[:4].hex() or 'nothing'}, not with 0000")
    if data[2] != 0x08:
        raise ValueError(f"{name}: IDX type 0x{data[2]:02x} is not supported, only unsigned bytes (0x08)")
    if data[3] == 0 or len(data) < _start(data):
        raise ValueError(f"{name} is damaged: the IDX header says {data[3]} dimensions, the file has {len(data)} bytes")
    return struct.unpack(f">{data[3]}I", data[4 : _start(data)])


def encode(array: np.ndarray) -> bytes:
    """The bytes of the unpacked IDX file of a uint8 array."""
    return struct.pack(f">HBB{array.ndim}I", 0, 0x08, array.ndim, *array.shape) + np.ascontiguousarray(array).tobytes()


def unpack(data: bytes, name: str) -> bytes:
    """`data` without its gzip layer, if it has one: as much as its header says, and one byte more if there is.

    Raises ValueError for a truncated or damaged gzip stream, and for a header that asks for more than the memory.
    """
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            head = file.read(4)
            head += file.read(4 * head[3]) if len(head) == 4 else b""
            size = math.prod(_shape(head, name))
            refuse_larger(name, size)
            return head + file.read(size + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{name} is a damaged gzip file ({error}): fetch it again") from error


def make_split(images: np.ndarray, labels: np.ndarray, name: str) -> Split:
    """A split from the arrays of two IDX files. Raises ValueError where they do not fit."""
    try:
        return Split(as_images(images, name), as_labels(labels))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def find_files(folder: Path) -> list[Path]:
    """Train images, train labels, test images, test labels in a folder. Each may be gzipped; hidden ones do not count.

    Raises:
        FileNotFoundError: for a missing folder or file.
        PermissionError: for a folder that cannot be read.
        ValueError: where several files could be meant.
    """
    names = visible_names(folder)
    train = [name for name in names if "train" in name]
    test = [name for name in names if "t10k" in name or "test" in name]
    wanted = zip((train, train, test, test), ("images", "labels", "images", "labels"), FILE_NAMES, strict=True)
    return [folder / _pick(folder, [name for name in some if kind in name], example) for some, kind, example in wanted]


def _pick(folder: Path, names: list[str], example: str) -> str:
    """The one file among `names`. Of a file and its gzipped copy it is the plain one."""
    names = [name for name in names if name.removesuffix(".gz").endswith("ubyte")]
    if not names:
        raise FileNotFoundError(f"folder {printable(folder)} has no {example} or {example}.gz")
    if len({name.removesuffix(".gz") for name in names}) > 1:
        several = ", ".join(map(printable, names))
        raise ValueError(f"folder {printable(folder)} holds several sets ({several}): give each its own folder")
    return names[0]


@register_source("idx")
def load_idx(
    path: str = str(DEBIAN_FASHION_MNIST), num_classes: int | None = None, name: str | None = None
) -> ImageDataset:
    """Four IDX files of the customary names, EMNIST's prefixes included, in the folder `path`, gzipped or not.

    Without `path`, the place of Debian's package dataset-fashion-mnist. `num_classes` defaults to the largest label
    plus one.
    """
    folder = expand(path)
    shown = printable(folder)
    train_x, train_y, test_x, test_y = (
        decode(unpack(f.read_bytes(), printable(f)), printable(f)) for f in find_files(folder)
    )
    train_x, test_x = full_range([train_x, test_x], shown)
    train, test = make_split(train_x, train_y, f"{shown} train"), make_split(test_x, test_y, f"{shown} test")
    if num_classes is None:
        num_classes = int(max(train.labels.max(), test.labels.max())) + 1
    return ImageDataset(name or printable(folder.name), train, test, num_classes, f"from the IDX files in {shown}")
