"""NumPy archives of strangers: what a file says of its size is compared with itself and with the memory, then read."""

import math
import zipfile
from pathlib import Path

import numpy as np

from fmd.files import printable, refuse_larger


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz archive by name.

    Raises:
        FileNotFoundError: for a missing file.
        ValueError: for a file that is damaged, holds anything but plain arrays, or would not fit into memory.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {printable(path)}")
    try:
        with zipfile.ZipFile(path) as archive:
            refuse_larger(printable(path), sum(member.file_size for member in archive.infolist()))
            for member in archive.infolist():
                _check_member(archive, member)
        # Without pickle an archive can hold nothing but plain arrays.
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # whatever zipfile and NumPy raise on broken bytes
        why = str(error) or type(error).__name__
        raise ValueError(f"{printable(path)} is not an .npz archive of plain arrays, or is damaged: {why}") from error


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raises ValueError for an array packed as NumPy packs none, or whose header asks for other bytes than it has."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # Python unpacks others without a limit
        raise ValueError(f"array {member.filename} is packed in a way that NumPy does not write")
    with archive.open(member) as file:
        forms = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if (read_header := forms.get(np.lib.format.read_magic(file))) is None:
            raise ValueError(f"array {member.filename} is of a form that is not read")
        shape, _, dtype = read_header(file)
        size, there = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
        if size != there and not dtype.hasobject:
            raise ValueError(f"array {member.filename} of shape {shape} needs {size} bytes, the file has {there}")
