"""Checksums of the files of a checkpoint or an export, so that damage is noticed before anything is built on it."""

import json
from pathlib import Path

from fmd.files import digest

CHECKSUMS = "checksums.json"
ARRAYS = "*/**/*"  # the files in sub-folders: all that Orbax no longer changes when a step is about to be done
ALL = "**/*"


def digests(folder: Path, pattern: str = ARRAYS) -> dict[str, str]:
    """The checksum of each file that the pattern finds, by its path in the folder."""
    files = (path for path in sorted(folder.glob(pattern)) if path.is_file() and path != folder / CHECKSUMS)
    return {str(file.relative_to(folder)).replace(".orbax-checkpoint-tmp", ""): digest(file) for file in files}


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
    wrong = [name for name in want if not (folder / name).is_file() or digest(folder / name) != want[name]]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(want)} files in {folder} are missing or changed, the first is {wrong[0]}"
        )


def damage(folder: Path) -> str:
    """The damage of a step in one line; empty for a good one."""
    try:
        verify(folder)
    except (ValueError, OSError) as error:
        return first_line(error)
    return ""


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
