"""Files that are never half written: write under a temporary name, then rename."""

import contextlib
import fcntl
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import logging


@contextlib.contextmanager
def atomic_path(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Gives a temporary name beside `path`; on success the file or folder made there becomes `path`.

    Raises FileExistsError when `path` exists and `overwrite` is False. Nothing is left behind after an error.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists and is not overwritten; choose another name or remove it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield folder / path.name
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_json(path: Path, value: Any, *, overwrite: bool = True) -> None:
    """Writes `value` as indented JSON, atomically."""
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Holds `folder` for one process; raises FileExistsError naming the process that has it.

    The kernel frees the lock when its holder dies, however it dies, so a stale lock cannot exist. Where the file
    system knows no locks, a warning is all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read().strip() or "another process"
            raise FileExistsError(
                f"{folder} is in use by {holder}; wait for it, or give this run another --workdir"
            ) from None
        except OSError as error:
            logging.warning("%s cannot be locked (%s): start no second run in it meanwhile", folder, error.strerror)
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        yield
