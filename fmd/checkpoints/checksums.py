"""Checksums of the files with the arrays, so that damage is noticed before anything is built on it."""

import hashlib
import json
from functools import partial
from pathlib import Path

CHECKSUMS = "checksums.json"


def digests(folder: Path) -> dict[str, str]:
    """Checksums of the arrays: the files in sub-folders. Orbax still changes what lies beside those when it is done."""
    digests = {}
    for path in sorted(p for p in folder.glob("*/**/*") if p.is_file()):
        name = str(path.relative_to(folder)).replace(".orbax-checkpoint-tmp", "")
        with open(path, "rb") as file:  # in pieces: a file may be larger than the memory
            digests[name] = hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()
    return digests


def verify(folder: Path) -> None:
    """Raises ValueError when the files differ from the list."""
    listed = folder / CHECKSUMS
    if not listed.is_file():
        raise ValueError(f"{listed} is missing")
    want, have = json.loads(listed.read_text()), digests(folder)
    if not isinstance(want, dict) or not want:
        raise ValueError(f"{listed} lists no files")
    wrong = [name for name in want if have.get(name) != want[name]]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(want)} files in {folder} are missing or changed, the first is {wrong[0]}"
        )


def damage(folder: Path) -> str:
    """What is wrong with a step, in one line; empty for a good one."""
    try:
        verify(folder)
    except (ValueError, OSError) as error:
        return first_line(error)
    return ""


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
