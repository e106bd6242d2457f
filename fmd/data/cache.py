"""Where downloaded and decoded data is kept, and how files get there without ever being seen half written."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path


def cache_dir() -> Path:
    """The folder for data of this user (not created here).

    FMD_DATA_DIR where it is set; otherwise `fmd/data` in XDG_CACHE_HOME, in the platform's cache folder (Windows,
    macOS), or in ~/.cache.
    """
    if os.environ.get("FMD_DATA_DIR"):
        return Path(os.environ["FMD_DATA_DIR"]).expanduser()
    if os.environ.get("XDG_CACHE_HOME"):
        base = Path(os.environ["XDG_CACHE_HOME"])
    elif sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        base = Path(os.environ["LOCALAPPDATA"])
    elif sys.platform == "darwin":
        base = Path("~/Library/Caches")
    else:
        base = Path("~/.cache")
    return base.expanduser() / "fmd" / "data"


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to a temporary file in the folder of `path`, then rename it to `path`.

    A reader sees the old file or the new one, never a part; of several processes writing the same path at the same
    time the last one wins. Raises OSError where the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        # mkstemp makes files that only their owner can read; give them the usual rights.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
