"""Where downloaded and decoded data is kept, and how files get there without ever being seen half written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from absl import logging


def cache_dir() -> Path:
    """The folder for data of this user (not created here).

    FMD_DATA_DIR where it is set; otherwise `fmd/data` in XDG_CACHE_HOME or ~/.cache, beside the compiled programs.
    """
    if os.environ.get("FMD_DATA_DIR"):
        return Path(os.environ["FMD_DATA_DIR"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fmd" / "data"


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file in the folder of `path`, then rename it to `path`.

    A reader sees the old file or the new one, never a part; of several processes writing the same path at the same
    time the last one wins. Raises OSError where the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        # mkstemp makes files that only their owner can read; give them the usual rights.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


Arrays = dict[str, np.ndarray]


def kept_arrays(name: str, identity: object, build: Callable[[], Arrays]) -> Arrays:
    """What `build` returns, kept in the cache folder as `decoded/NAME-HASH.npz` for the next start.

    HASH is that of `identity`, a JSON value that must change whenever the result of `build` would. A damaged file is
    built again; where the folder cannot be written the arrays are returned all the same, with a warning.
    """
    code = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]
    path = cache_dir() / "decoded" / f"{name}-{code}.npz"
    if path.is_file():
        try:
            # The archive's check sums are compared on reading; no pickle is ever admitted.
            with np.load(path, allow_pickle=False) as file:
                return {key: file[key] for key in file.files}
        except (OSError, ValueError, EOFError, KeyError, zlib.error, zipfile.BadZipFile) as error:
            logging.warning("decoding again: the kept copy %s is damaged (%s)", path, error)
    arrays = build()
    try:
        write_atomically(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
    except OSError as error:
        logging.warning("the decoded images are not kept: %s cannot be written (%s)", path, error)
    return arrays
