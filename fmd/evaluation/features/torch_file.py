"""A state dict that `torch.save` wrote, read without PyTorch: parameter name -> array.

There are two forms of such files. In both a pickle holds the dict, and each tensor in it names its numbers, a
"storage", by a key:

- zip, since PyTorch 1.6: the members NAME/data.pkl and, for each storage, NAME/data/KEY;
- legacy: five pickles one after the other (a magic number, a version, facts of the machine, the dict, a list of keys),
  then for each key of the list the number of elements as int64 and the elements.

A pickle can run any code. This one is read by an unpickler that knows a few names only, and for those it puts in
strings and classes of this file that can do nothing but hold what they were given.
"""

import io
import math
import pickle
import struct
import zipfile
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np

from fmd.checkpoints.checksums import first_line

_ZIP_START = b"PK\x03\x04"
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001  # of the legacy form
_ELEMENTS = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
Arrays = dict[str, np.ndarray]
Numbers = tuple[Any, ...]  # whole numbers, until they are checked


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays in the file `path` in its order, read-only; arrays share memory where the file's tensors do.

    Raises OSError for a file that cannot be opened, ValueError for one that is damaged or holds anything but tensors.
    """
    with open(path, "rb") as file:
        try:
            zipped = file.read(len(_ZIP_START)) == _ZIP_START
            file.seek(0)
            tensors, flat = (_read_zip if zipped else _read_legacy)(file)
            return {name: tensor.view(flat) for name, tensor in tensors.items()}
        except Exception as error:  # whatever unpickling raises on broken bytes
            raise ValueError(f"{path} is no state dict of plain tensors, or is damaged: {first_line(error)}") from error


class _Storage(NamedTuple):
    elements: str
    key: str
    length: int

    def array(self, data: bytes) -> np.ndarray:
        array = np.frombuffer(data, self.elements)
        if len(array) != self.length:
            raise ValueError(f"storage {self.key} has {len(array)} elements of {self.length}")
        return array


class _Unchangeable:
    """A pickle can give an object new attributes; not these."""

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError(f"it changes a {type(self).__name__.strip('_').lower()}")


class _Tensor(_Unchangeable):
    """Stands in for the function that makes a tensor. Offset and strides count elements."""

    def __init__(self, storage: _Storage, offset: int, shape: Numbers, strides: Numbers, *_: object) -> None:
        self.parts = storage, offset, shape, strides

    def view(self, storages: Arrays) -> np.ndarray:
        storage, offset, shape, strides = self.parts
        if storage.key not in storages:
            raise ValueError(f"storage {storage.key} is missing")
        flat = storages[storage.key]
        numbers = (offset, *shape, *strides)
        if len(shape) != len(strides) or not all(isinstance(n, int) and n >= 0 for n in numbers):
            raise ValueError(f"a tensor of shape {shape}, strides {strides}, offset {offset}")
        # Checked here, since as_strided itself would read beyond the end.
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        size = math.prod(shape)
        if size > flat.size or (size and last >= flat.size):
            raise ValueError(f"a tensor of shape {shape}, strides {strides}, offset {offset} in {flat.size} elements")
        steps = [stride * flat.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(flat[offset:], shape, steps, writeable=False)


class _Parameter(_Tensor):
    """Stands in for the function that makes a parameter of a tensor."""

    def __init__(self, tensor: _Tensor, *_: object) -> None:
        super().__init__(*tensor.parts)


class _Mapping(dict[str, _Tensor]):
    """Stands in for OrderedDict; attributes, as the `_metadata` of a state dict, are dropped."""

    def __setstate__(self, state: object) -> None:
        pass


_ADMITTED: dict[tuple[str, str], type | str] = {
    ("collections", "OrderedDict"): _Mapping,
    ("torch._utils", "_rebuild_tensor"): _Tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    **{("torch", name): elements for name, elements in _ELEMENTS.items()},
}


class _StateUnpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes] | io.BufferedIOBase) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> type | str:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not part of a tensor")
        return _ADMITTED[module, name]

    def persistent_load(self, pid: Numbers) -> _Storage:
        kind, elements, key, _, length, *view = pid
        if kind != "storage" or elements not in _ELEMENTS.values() or any(part is not None for part in view):
            raise pickle.UnpicklingError(f"it asks for {pid}, which is not a whole storage of numbers")
        storage = _Storage(elements, key, length)
        if self.storages.setdefault(key, storage) != storage:
            raise pickle.UnpicklingError(f"storage {key} is both {self.storages[key]} and {storage}")
        return storage

    def tensors(self) -> dict[str, _Tensor]:
        state = self.load()
        if not isinstance(state, dict):
            raise ValueError(f"it holds a {type(state).__name__} where a dict is expected")
        for name, tensor in state.items():
            if not isinstance(name, str) or not isinstance(tensor, _Tensor) or not hasattr(tensor, "parts"):
                raise ValueError(f"{name!r} holds a {type(tensor).__name__.strip('_')} where a tensor is expected")
        return state


def _read_zip(file: BinaryIO) -> tuple[dict[str, _Tensor], Arrays]:
    """Tensors by name and storages by key."""
    with zipfile.ZipFile(file) as archive:
        size = file.seek(0, io.SEEK_END)
        if sum(member.file_size for member in archive.infolist()) > size:  # torch.save does not compress
            raise ValueError(f"its members say that they unpack to more than its {size} bytes")
        names = archive.namelist()
        roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError(f"{len(roots)} members data.pkl where one is expected")
        root = roots[0]
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("only little-endian files are read")
        with archive.open(f"{root}data.pkl") as pickled:
            unpickler = _StateUnpickler(pickled)
            tensors = unpickler.tensors()
        return tensors, {key: s.array(archive.read(f"{root}data/{key}")) for key, s in unpickler.storages.items()}


def _read_legacy(file: BinaryIO) -> tuple[dict[str, _Tensor], Arrays]:
    """Tensors by name and storages by key."""
    if _StateUnpickler(file).load() != _MAGIC or _StateUnpickler(file).load() != _VERSION:
        raise ValueError("it does not begin as a file of torch.save")
    if not _StateUnpickler(file).load()["little_endian"]:
        raise ValueError("only little-endian files are read")
    unpickler = _StateUnpickler(file)
    tensors, flat = unpickler.tensors(), {}
    for key in _StateUnpickler(file).load():
        if key not in unpickler.storages:
            raise ValueError(f"storage {key} belongs to no tensor")
        storage = unpickler.storages[key]
        if struct.unpack("<q", file.read(8)) != (storage.length,):
            raise ValueError(f"storage {key} has not the {storage.length} elements of its tensor")
        flat[key] = storage.array(file.read(storage.length * np.dtype(storage.elements).itemsize))
    return tensors, flat
