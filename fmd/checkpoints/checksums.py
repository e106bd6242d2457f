"""Checksums of the files of a checkpoint or an export, so that damage is noticed before anything is built on it."""

import hashlib
import json
from functools import partial
from pathlib import Path

CHECKSUMS = "checksums.json"
ARRAYS = "*/**/*"  # the files in sub-folders: all that Orbax no longer changes when a step is about to be done
ALL = "**/*"


def digests(folder: Path, pattern: str = ARRAYS) -> dict[str, str]:
    """The checksum of each file that the pattern finds, by its path in the folder."""
    files = (path for path in sorted(folder.glob(pattern)) if path.is_file() and path != folder / CHECKSUMS)
    return {str(file.relative_to(folder)).replace(".orbax-checkpoint-tmp", ""): _digest(file) for file in files}


def verify(folder: Path) -> None:
    """Raises ValueError when a file that is listed is missing or changed."""
    listed = folder / CHECKSUMS
    if not listed.is_file():
        raise ValueError(f"{listed} is missing")
    try:
        want = json.loads(listed.read_text())
    except ValueError:
        raise ValueError(f"{listed} is damaged") from None
    if not isinstance(want, dict) or not want:
        raise ValueError(f"{listed} lists no files")
    wrong = [name for name in want if not (folder / name).is_file() or _digest(folder / name) != want[name]]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(want)} files in {folder} are missing or changed, the first is {wrong[0]}"
        )


def _digest(path: Path) -> str:
    with open(path, "rb") as file:  # in pieces: a file may be larger than the memory
        return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()


def damage(folder: Path) -> str:
    """What is wrong with a step, in one line; empty for a good one."""
    try:
        verify(folder)
    except (ValueError, OSError) as error:
        return first_line(error)
    return ""


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
