"""The image files of a folder in a few arrays, kept on disk: a million of them are found once.

The kept index holds as long as no folder was changed: adding, removing or renaming a file changes its folder's time.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int32, UInt8

from fmd.data.assembly import say_not_taken
from fmd.data.cache import Arrays, kept_arrays
from fmd.data.layout import Finder, Found, Listing
from fmd.files import digest

FORMAT = 2  # of the kept arrays; raise it when `fmd.data.layout` changes


@dataclass(frozen=True, eq=False)
class FileIndex:
    """The files of a folder with their labels, those of the training split first.

    Attributes:
        folder: where they lie.
        names: their paths in it, one after the other.
        starts: [N + 1]; where each begins in `names`, and the end of the last.
        labels: of each.
        train: how many are of the training split; all where a part of them has to be held out.
        classes: names of the classes; empty without classes.
    """

    folder: Path
    names: UInt8[np.ndarray, " B"]
    starts: Int[np.ndarray, " ends"]
    labels: Int32[np.ndarray, " N"]
    train: int
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, row: int) -> Path:
        """The path of a file."""
        return self.folder / os.fsdecode(self.names[self.starts[row] : self.starts[row + 1]].tobytes())

    def listing(self, rows: Sequence[int]) -> Listing:
        """Some files with their labels."""
        return [(self.path(row), int(self.labels[row])) for row in rows]

    def digest(self, rows: np.ndarray) -> str:
        """The digest of the names, the labels and the choice of some rows."""
        return digest([self.names.data, self.starts.data, self.labels.data, np.ascontiguousarray(rows).data])


def index(folder: Path) -> FileIndex:
    """The files of a folder as `fmd.data.layout.find` finds them, from the cache folder where they were found before.

    Raises as `find` does.
    """

    def build() -> Arrays:
        finder = Finder(folder)
        root = folder.stat().st_mtime_ns if folder.is_dir() else 0
        found = finder.find(folder)
        say_not_taken(folder, found)
        folders = {folder: root} | dict(finder.seen.values())
        flat = of(folder, found)
        return {
            "names": flat.names,
            "starts": flat.starts,
            "labels": flat.labels,
            "train": np.array(flat.train),
            "classes": np.array([os.fsencode(name) for name in flat.classes], np.bytes_),
            "folders": np.array([os.fsencode(name) for name in folders]),
            "changed": np.array(list(folders.values())),
        }

    kept = kept_arrays(folder.name or "root", ["index", FORMAT, str(folder.absolute())], build, _unchanged)
    classes = tuple(map(os.fsdecode, kept["classes"].tolist()))
    return FileIndex(folder, kept["names"], kept["starts"], kept["labels"], int(kept["train"]), classes)


def of(folder: Path, found: Found) -> FileIndex:
    """The index of files that were found."""
    beginning = os.path.join(folder, "")
    names = [os.fsencode(os.fspath(file).removeprefix(beginning)) for file in found.files]
    starts = np.cumsum([0, *map(len, names)])
    labels = np.array([label for _, label in found.listing], np.int32)
    return FileIndex(folder, np.frombuffer(b"".join(names), np.uint8), starts, labels, len(found.train), found.classes)


def _unchanged(kept: Arrays) -> bool:
    try:
        return bool(kept["changed"].tolist() == [os.stat(folder).st_mtime_ns for folder in kept["folders"].tolist()])
    except OSError:
        return False
