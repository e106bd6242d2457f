"""A state dict that `torch.save` wrote before PyTorch 1.6, read without PyTorch: parameter name -> array.

The published weights of the FID network are such a file: five pickles one after the other (a magic number, a version,
facts of the machine, the dict, a list of keys), then for each key of the list the number of elements as int64 and the
elements. Each tensor of the dict names its numbers, a "storage", by a key.

A pickle can run any code. This one is read by an unpickler that knows a few names only, and for those it puts in
strings and functions of this file.
"""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from fmd.checkpoints.checksums import first_line

MAGIC = 0x1950A86A20F9469CFC6C


class Storage(NamedTuple):
    """The numbers of tensors: their type, and the key by which the file has them."""

    dtype: str
    key: str


class Tensor(NamedTuple):
    """A tensor; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def view(self, storages: dict[str, np.ndarray]) -> np.ndarray:
        """The array, which shares memory with its storage."""
        flat = storages[self.storage.key]
        steps = [stride * flat.itemsize for stride in self.strides]
        return np.ndarray(self.shape, flat.dtype, flat.data, self.offset * flat.itemsize, steps)


def _tensor(storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object) -> Tensor:
    return Tensor(storage, offset, shape, strides)


KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    ("torch", "FloatStorage"): "<f4",
    ("torch", "LongStorage"): "<i8",
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not part of a tensor")
        return KNOWN[module, name]

    def persistent_load(self, pid: tuple[Any, ...]) -> Storage:
        _, dtype, key, *_ = pid
        return Storage(dtype, key)


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays in the file `path` in its order, read-only; arrays share memory where the file's tensors do.

    Numbers are float32 or int64.

    Raises OSError for a file that cannot be opened, ValueError for one that is damaged or holds anything but tensors.
    """
    with open(path, "rb") as file:
        try:
            return _read(file)
        except Exception as error:  # whatever unpickling raises on broken bytes
            raise ValueError(f"{path} is no state dict of plain tensors, or is damaged: {first_line(error)}") from error


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    magic, _, _, state, keys = (_Unpickler(file).load() for _ in range(5))
    if magic != MAGIC:
        raise ValueError("it does not begin as a file of torch.save")
    types = {tensor.storage.key: tensor.storage.dtype for tensor in state.values()}
    storages = {}
    for key in keys:
        count = int.from_bytes(file.read(8), "little")
        dtype = np.dtype(types[key])
        storages[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
    return {name: tensor.view(storages) for name, tensor in state.items()}
