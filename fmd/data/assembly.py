"""Image files that were found, with all that is told of them, made a data set.

Images and what lies beside them are decoded, and a file that cannot be read costs the whole example.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from absl import logging

from fmd.data import decoding, images
from fmd.data.arrays import full_range
from fmd.data.columns import Values
from fmd.data.dataset import ImageDataset
from fmd.data.layout import Found
from fmd.data.parts import Spec, as_kind, own_size, specs
from fmd.data.split import Parts, Split, split_off
from fmd.files import printable


@dataclass(frozen=True)
class Told:
    """The parts beside the label, a value for each file in the order of `Found.files`.

    Attributes:
        wanted: the specs, as far as they are known.
        values: the parts that are numbers, labels or vectors.
        files: the parts that are images or masks.
        size: (height, width) of these; None where all have one size. A spec may say another.
    """

    wanted: dict[str, Spec] = field(default_factory=dict)
    values: dict[str, Values] = field(default_factory=dict)
    files: dict[str, Sequence[Path]] = field(default_factory=dict)
    size: tuple[int, int] | None = None

    def meanings(self) -> str:
        """The texts that labels stand for, as a part of a sentence."""
        return "".join(f", {name}: {column.meaning()}" for name, column in self.values.items() if column.names)

    def take(self, rows: Sequence[int]) -> "Told":
        """The parts of some of the files."""
        values = {name: replace(column, array=column.array[np.array(rows)]) for name, column in self.values.items()}
        files: dict[str, Sequence[Path]] = {name: [paths[r] for r in rows] for name, paths in self.files.items()}
        return replace(self, values=values, files=files)


def assemble(
    folder: Path, found: Found, size: images.Size, channels: int | None, test_fraction: float, told: Told
) -> ImageDataset:
    """The data set of the files of a folder.

    Args:
        folder: where they were found.
        found: the files by split and class.
        size, channels, test_fraction: as in the source `folder`.
        told: the parts beside the label; without parts `y` is labels alone.

    Raises ValueError for mixed channel counts or sizes, and where no image of a class can be read.
    """
    found_examples = examples(folder, found, size, channels, told)
    whole, good = found_examples.split, found_examples.good
    if found.test is None:
        train, test = split_off(whole, test_fraction)
    else:
        count = int(good[: len(found.train)].sum())
        train, test = whole.take(np.arange(count)), whole.take(np.arange(count, len(whole)))
    left_out = f", {bad} unreadable files left out" if (bad := int((~good).sum())) else ""
    names = class_names(found.classes)
    return ImageDataset(
        printable(folder.name or folder.resolve().name),
        train,
        test,
        len(names or ()),
        f"from the image files in {printable(folder)}{left_out}{told.meanings()}",
        names,
        specs(told.wanted, [train.parts, test.parts], len(names or ())),
    )


@dataclass(frozen=True, eq=False)
class Examples:
    """Files as examples.

    Attributes:
        split: those that can be read.
        good: mask bool [N] of the files that are in it.
        reading: how the files of the images were read, and by name those of each part.
    """

    split: Split
    good: np.ndarray
    reading: dict[str | None, "FileReader"]


@dataclass(frozen=True)
class FileReader:
    """A function from the path of an image file to uint8 [height, width, channels]; 16-bit grey uses `bits`.

    The values are multiplied by `factor`: 255 for masks of 0 and 1.
    """

    size: tuple[int, int]
    channels: int
    bits: int
    factor: int

    def __call__(self, path: Path) -> np.ndarray:
        image = images.read(path, self.size, self.channels, self.bits)
        return image if self.factor == 1 else image * np.uint8(self.factor)

    @classmethod
    def of(cls, decoded: decoding.Decoded, pixels: np.ndarray) -> "FileReader":
        """The reader of files that were decoded, and whose arrays became `pixels`."""
        height, width, channels = decoded.images.shape[1:]
        factor = 255 if int(decoded.images.max()) == 1 and int(pixels.max()) == 255 else 1
        return cls((height, width), channels, decoded.bits or 16, factor)


def examples(folder: Path, found: Found, size: images.Size, channels: int | None, told: Told) -> Examples:
    """The files of a folder as examples, in the order of `Found.files`. Arguments and errors as of `assemble`."""
    shown, files, code = printable(folder), found.files, folder.resolve().name or "root"
    decoded = decoding.decode(files, images.height_width(size), channels, code)
    _say(decoded, files, folder)
    reasons, beside = decoded.reasons, {}
    for name, paths in told.files.items():
        beside[name] = _beside(name, paths, told, channels, code)
        _say(beside[name], paths, folder, f" of {name}")
        reasons = [one or other for one, other in zip(reasons, beside[name].reasons, strict=True)]
    good = np.array([not reason for reason in reasons])
    labels = np.array([label for _, label in found.listing], np.int32)
    _need_all_classes(found, labels, good, reasons, folder)

    (pixels,) = full_range([_kept(decoded, good)], shown)
    reading: dict[str | None, FileReader] = {None: FileReader.of(decoded, pixels)}
    parts: Parts = {name: column.array[good] for name, column in told.values.items()}
    for name, pictures in beside.items():
        (planes,) = full_range([_kept(pictures, good)], f"{shown}, {name}")
        parts[name] = as_kind(planes, name, told.wanted[name])
        reading[name] = FileReader.of(pictures, planes)
    label = {"label": labels[good]} if found.classes else {}
    whole = Split(pixels, {**label, **{name: parts[name] for name in told.wanted}} if told.wanted else labels[good])
    return Examples(whole, good, reading)


def class_names(found: Sequence[str]) -> tuple[str, ...] | None:
    """The names of the class folders as they are shown; None without classes."""
    return tuple(map(printable, found)) or None


def say_not_taken(folder: Path, found: Found) -> None:
    """Says in the log which files are not taken, and that one class is none."""
    shown = printable(folder)
    if not_taken := found.not_taken():
        logging.warning("folder %s: not taken: %s", shown, not_taken)
    if len(found.classes) == 1:
        only = printable(found.classes[0])
        logging.info("folder %s has one class only, '%s': labels will carry no information", shown, only)


def _beside(name: str, paths: Sequence[Path], told: Told, channels: int | None, code: str) -> decoding.Decoded:
    """The images of a part, of the size and channels that its spec says, else of those of the set."""
    given = told.wanted[name]
    depth = 1 if given.get("kind") == "mask" else given.get("channels", channels)
    try:
        return decoding.decode(
            paths, own_size(given, told.size), None if depth is None else int(depth), f"{code}-{name}"
        )
    except ValueError as error:
        raise ValueError(f"condition {name!r}: {error}") from None


def _kept(decoded: decoding.Decoded, good: np.ndarray) -> np.ndarray:
    """The images of the examples that are taken; not copied where that is all of them."""
    kept = good[decoded.good]
    return decoded.images if kept.all() else decoded.images[kept]


def _say(decoded: decoding.Decoded, files: Sequence[Path], folder: Path, what: str = "") -> None:
    """Says in the log which files cannot be read, and what was taken of others."""
    shown, bad = printable(folder) + what, len(files) - len(decoded.images)
    if bad:
        why = decoding.by_reason(files, decoded.reasons, folder)
        logging.warning("folder %s: %d of %d files cannot be read and are left out: %s", shown, bad, len(files), why)
    if (decoded.pages > 1).any():
        stacks, pages = int((decoded.pages > 1).sum()), int(decoded.pages[decoded.pages > 1].sum())
        logging.warning("folder %s: %d files hold %d pages; the first of each is taken", shown, stacks, pages)
    if decoded.bits:
        top = 2**decoded.bits - 1
        logging.info("folder %s: 16-bit grey uses %d bits: 0 to %d become 0 to 255", shown, decoded.bits, top)


def _need_all_classes(found: Found, labels: np.ndarray, good: np.ndarray, reasons: Sequence[str], folder: Path) -> None:
    """Raises ValueError where no training image of a class is left."""
    count, shown = len(found.train), printable(folder)
    for label, name in enumerate(found.classes):
        of_class = labels[:count] == label
        if of_class.any() and not good[:count][of_class].any():
            lost = [reason if same else "" for reason, same in zip(reasons, of_class, strict=False)]
            why = decoding.by_reason(found.files[:count], lost, folder)
            raise ValueError(
                f"no image of class '{printable(name)}' in {shown} can be read: {why}; repair its files or remove it"
            )
