"""Arrays kept on disk, so that they are made once."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from absl import logging

from fmd.data.archives import read_npz
from fmd.files import atomic_path, data_cache, digest

Arrays = dict[str, np.ndarray]


def kept_arrays(
    name: str, identity: object, build: Callable[[], Arrays], fresh: Callable[[Arrays], bool] | None = None
) -> Arrays:
    """The arrays that `build` returns, kept in the cache folder as `decoded/NAME-HASH.npz`, as `kept` does.

    NAME is for people who look into the folder. HASH is the digest of `identity`, a JSON value that must change
    whenever the result of `build` would.
    """
    code = digest(json.dumps(identity).encode())[:24]
    return kept(data_cache() / "decoded" / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)[:80]}-{code}.npz", build, fresh)


def kept(path: Path, build: Callable[[], Arrays], fresh: Callable[[Arrays], bool] | None = None) -> Arrays:
    """The arrays in the .npz file `path`, or those that `build` returns, kept there.

    A damaged file is made again, and one that `fresh` says no longer holds. Where it cannot be written the arrays are
    returned all the same, with a warning.
    """
    if path.is_file():
        try:
            arrays = read_npz(path)
            if fresh is None or fresh(arrays):
                return arrays
        except (OSError, ValueError, KeyError) as error:
            logging.warning("the kept copy %s is made again: %s", path.name, error)
    arrays = build()
    try:
        with atomic_path(path, overwrite=True) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        logging.warning("the arrays are not kept: %s cannot be written (%s)", path, error)
    return arrays


def fingerprint(files: Iterable[Path]) -> list[list[str | int]]:
    """Place, length, times and number on the disk of each file.

    They change when a file is changed or replaced. Equal listings in two places have different ones; so has a file
    whose time of change was set back.
    """
    found: list[list[str | int]] = []
    for file in files:
        try:
            stat = file.stat()
            found.append(
                [str(file.absolute()), stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            )
        except OSError:
            found.append([str(file.absolute())])
    return found
