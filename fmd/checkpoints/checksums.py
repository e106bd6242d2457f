"""Checksums of the files of a checkpoint or an export, so that damage is noticed before anything is built on it."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from fmd.files import digest

CHECKSUMS = "checksums.json"
ARRAYS = "*/**/*"  # the files in sub-folders: all that Orbax no longer changes when a step is about to be done
ALL = "**/*"
NOT_READ = re.compile(r"^\.|^eval\.json$|^sweep_\w+\.(json|png)$|^checksums\.json$|(^|/)(\.DS_Store|\._[^/]*)$")


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


def refuse_unlisted(folder: Path, read: Sequence[str] = ()) -> None:
    """Raises ValueError for a file beside listed ones in a sub-folder: a library would read it. Others are told.

    `read` names sub-folders that are read even where no file in them is listed.

    Hidden files at the top, those of a file manager, and what evaluations write are not spoken of.
    """
    listed = json.loads((folder / CHECKSUMS).read_text())
    found = sorted(str(file.relative_to(folder)) for file in folder.glob(ALL) if file.is_file() or file.is_symlink())
    strange = [name for name in found if name not in listed and not NOT_READ.search(name)]
    libraries = {*read, *(name.split("/")[0] for name in listed if "/" in name)}
    if inside := [name for name in strange if name.split("/")[0] in libraries]:
        raise ValueError(
            f"{len(inside)} files in {folder} are not among those that it was exported with, the first is {inside[0]}; "
            f"remove them, or fetch a good copy"
        )
    if strange:
        logging.warning("%s holds %d files that it was not exported with: %s", folder, len(strange), strange[0])


def damage(folder: Path) -> str:
    """The damage of a step in one line; empty for a good one."""
    try:
        verify(folder)
    except (ValueError, OSError) as error:
        return first_line(error)
    return ""


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
