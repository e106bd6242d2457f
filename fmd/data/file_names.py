"""Names of files and folders: images, splits, hidden ones, and their order."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from fmd.files import printable

SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff", ".avif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".j2k", ".ico", ".pcx"),
)
# Beginnings of image files, for those with another suffix or none.
_MAGIC = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|....ftypavi[fs]", re.DOTALL)
_MAGIC_BARE = re.compile(rb"BM....\0\0\0\0|II\*\0|MM\0\*|P[1-6]\s", re.DOTALL)  # raw photographs begin so, too

_REST = r"(?:[ ._-]?(?:set|split|data|dataset|images?|imgs|pictures|photos))?[ ._-]?\d*"
_NAMES = ("train|training|trn", "test|testing|tst", "val|valid|validation|dev|eval|holdout")
_ROLES = [re.compile(rf"(?:\d+[ ._-]+)?(?:{names}){_REST}") for names in _NAMES]
_IGNORED = {"thumbs.db", "desktop.ini", "__macosx", "@eadir"}


def natural(name: str) -> list[tuple[int, int | str]]:
    """A sorting key that puts 2 before 10. Runs of digits count as numbers."""
    parts = [part for part in re.split(r"(\d+)", name) if part]
    return [*((0, int(part)) if part.isdecimal() else (1, part) for part in parts), (2, name)]


def role(name: str) -> int | None:
    """0 for training folders, 1 for test, 2 for validation, else None. The usual names count, in any case."""
    plain = name.strip().casefold()
    return next((number for number, pattern in enumerate(_ROLES) if pattern.fullmatch(plain)), None)


def roles(names: Sequence[str]) -> dict[str, int]:
    """The role of each name that has one, as `role` numbers them.

    Where no folder is called a training folder, "seg_train" is one beside "seg_test": both begin alike.
    """
    found = {name: number for name in names if (number := role(name)) is not None}
    if 0 in found.values():
        return found
    ends = ((name, place + 1) for name in names for place, letter in enumerate(name) if letter in " ._-")
    for beginning in sorted({name[:end] for name, end in ends}):
        rest = {name: role(name.removeprefix(beginning)) for name in names if name.startswith(beginning)}
        if 0 in rest.values() and {1, 2} & set(rest.values()):
            return {name: number for name, number in rest.items() if number is not None}
    return found


def is_image(path: Path) -> bool:
    """True for an image, by its suffix or its first bytes."""
    if not path.is_file():
        return False
    if named_image(path.name):
        return True
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError:
        return False
    return bool(_MAGIC.match(start) or (not path.suffix and _MAGIC_BARE.match(start)))


def named_image(name: str) -> bool:
    """True for the name of an image, by its suffix."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def visible(folder: Path) -> list["os.DirEntry[str]"]:
    """The visible entries of a folder, sorted by name."""
    try:
        with os.scandir(folder) as found:
            entries = [one for one in found if not one.name.startswith(".") and one.name.casefold() not in _IGNORED]
    except PermissionError:
        raise PermissionError(f"folder {printable(folder)} cannot be read: check its permissions") from None
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"there is no folder {printable(folder)}") from None
    return sorted(entries, key=lambda entry: entry.name)


def visible_names(folder: Path) -> list[str]:
    """Names of the visible entries."""
    return [entry.name for entry in visible(folder)]


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """True for a folder, or a link to one. The listing says it of all but links, without a look at the disk."""
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()
