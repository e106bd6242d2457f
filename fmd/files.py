"""Whole files, digests, downloads, locks, and the user's cache."""

import contextlib
import fcntl
import functools
import hashlib
import http.client
import json
import os
import shutil
import socket
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from absl import logging

Algorithm = Literal["blake2b", "sha256", "md5"]

PREFIX = ".fmd-"  # of the names of unfinished files
PIECE = 2**20
DAY = 86_400.0  # seconds


@contextlib.contextmanager
def atomic_path(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Gives a temporary name beside `path`.

    On success the file or folder made there becomes `path`. Of several processes that write one path at the same time,
    the last one wins. Nothing is left behind after an error; what a killed process left is removed by the next one that
    writes there.

    Raises:
        FileExistsError: when `path` exists and `overwrite` is False.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists and is not overwritten; choose another name or remove it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_unfinished(path.parent)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=path.parent))
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # where the file system knows no locks
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield folder / path.name
        os.replace(folder / path.name, path)
    finally:
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def clear_unfinished(folder: Path, *, young: float = 1.0) -> None:
    """Removes what killed processes left unfinished in `folder`, not in the folders below it.

    A process that is alive holds a lock on its own. Where the file system knows no locks, a day must have passed.
    What changed within `young` seconds stays: its process may be about to lock it.
    """
    for path in folder.glob(PREFIX + "*"):
        with contextlib.suppress(OSError):
            age = time.time() - path.stat().st_mtime
            if age >= young and (age >= DAY or _is_free(path)):
                shutil.rmtree(path)


def _is_free(folder: Path) -> bool:
    """True where no process holds a lock on a folder. OSError where the file system knows none."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def write_json(path: Path, value: object, *, overwrite: bool = True) -> None:
    """Writes `value` as indented JSON, atomically."""
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file that holds one per line; none where there is no file.

    A last one cut short by a kill is left out.
    """
    lines = []
    for text in path.read_text().splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def digest(
    what: str | os.PathLike[str] | bytes | memoryview | Iterable[bytes | memoryview], algorithm: Algorithm = "blake2b"
) -> str:
    """The digest, in hexadecimal, of a file, bytes or several pieces.

    A file is read in pieces. "blake2b" has 128 bits. The memory of an array is `array.data`.
    """
    size = {"digest_size": 16} if algorithm == "blake2b" else {}
    make = functools.partial(getattr(hashlib, algorithm), usedforsecurity=False, **size)
    if isinstance(what, str | os.PathLike):
        with open(what, "rb") as file:
            return hashlib.file_digest(file, make).hexdigest()
    code = make()
    for piece in [what] if isinstance(what, bytes | memoryview) else what:
        code.update(piece)
    return str(code.hexdigest())


def refuse_larger(what: str, size: int) -> None:
    """Raises ValueError where `what` says that it unpacks to more bytes than this machine, or this job, may hold."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(Path(file).read_text()))
    if size > min(limits):
        raise ValueError(
            f"{what} says that it unpacks to {size / 1e9:,.1f} GB, and this machine has {min(limits) / 1e9:,.1f} GB "
            f"of memory: it is damaged, or too large"
        )


def download(url: str, path: Path, *, limit: int, timeout: float = 8.0, quiet: bool = False) -> None:
    """Fetches `url` into the file `path`, atomically, with a progress bar.

    Args:
        url: of the file.
        path: where it goes; a file there is replaced.
        limit: bytes; a larger file is refused.
        timeout: seconds that each wait for the server may take.
        quiet: without a progress bar; there is none where no terminal is.

    Raises:
        OSError: when the server cannot be reached, sends too much, or stops before the end.
    """
    from tqdm import tqdm

    with atomic_path(path, overwrite=True) as temporary, open(temporary, "wb") as file:
        try:
            with urllib.request.urlopen(url, timeout=timeout) as response:
                total = int(response.headers.get("Content-Length") or 0) or None
                bar = {"total": total, "unit": "B", "unit_scale": True, "leave": False}
                with tqdm(desc=path.name, disable=True if quiet else None, **bar) as progress:
                    done = 0
                    while done <= limit and (piece := response.read(PIECE)):
                        file.write(piece)
                        progress.update(len(piece))
                        done += len(piece)
        except http.client.HTTPException as error:
            raise OSError(f"the download broke off ({error})") from error
        if done > limit:
            raise OSError(f"{url} sends more than {limit} bytes")
        if total is not None and done < total:
            raise OSError(f"the download broke off after {done} of {total} bytes")


def expand(path: str | os.PathLike[str]) -> Path:
    """The path with a leading `~` replaced by the user's home.

    Raises ValueError where there is no such home.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"{path}: the home folder of this user is not known; give the path in full") from None


def user_cache() -> Path:
    """fmd's folder in the user's cache, not created here.

    It lies in XDG_CACHE_HOME or ~/.cache; for a user without a home, in the folder for temporary files.
    """
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "fmd"
    try:
        return Path("~/.cache").expanduser() / "fmd"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"fmd-{os.getuid()}"


def data_cache() -> Path:
    """The folder for downloaded and decoded data, not created here.

    It is FMD_DATA_DIR, or `data` in `user_cache()`.
    """
    return expand(os.environ["FMD_DATA_DIR"]) if os.environ.get("FMD_DATA_DIR") else user_cache() / "data"


def refuse_patterns(path: Path) -> None:
    """Raises ValueError for a path that libraries below would read as a pattern: they then find none of its files."""
    if strange := sorted(set(str(path)) & set("[]*?\\")):
        raise ValueError(
            f"{path} has {' and '.join(strange)} in it, which libraries that save checkpoints read as a pattern; "
            f"choose a path without any of [ ] * ? \\"
        )


def printable(name: str | os.PathLike[str]) -> str:
    r"""A file name as one line of valid Unicode.

    Other bytes and control characters become `\xe9`, `\n`, ...
    """
    valid = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in valid)


def some(names: Sequence[str], shown: int = 3) -> str:
    """The first names, with dots where there are more."""
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Holds `folder` for one process.

    Raises FileExistsError naming the process that has it.

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
