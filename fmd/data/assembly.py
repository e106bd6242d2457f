"""Image files that were found, with all that is told of them, made a data set.

Images and what lies beside them are decoded, and a file that cannot be read costs the whole example.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from absl import logging

from fmd.data import decoding, images
from fmd.data.arrays import full_range
from fmd.data.columns import Values
from fmd.data.dataset import ImageDataset
from fmd.data.layout import Found
from fmd.data.parts import Spec, as_kind, own_size, specs
from fmd.data.split import Parts, Split, condition, split_off
from fmd.data.streaming import StreamedSplit
from fmd.files import printable

Reader = Callable[[Path], np.ndarray]  # from an image file to uint8 [height, width, channels]


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
    whole, good, _ = examples(folder, found, size, channels, told)
    if found.test is None:
        train, test = split_off(whole, test_fraction)
    else:
        count = int(good[: len(found.train)].sum())
        train, test = whole.take(slice(count)), whole.take(slice(count, None))
    left_out = f", {bad} unreadable files left out" if (bad := int((~good).sum())) else ""
    provenance = f"from the image files in {printable(folder)}{left_out}"
    return as_dataset(folder, found.classes, train, test, train.parts, provenance, told)


def as_dataset(
    folder: Path,
    classes: Sequence[str],
    train: Split | StreamedSplit,
    test: Split,
    train_parts: Parts,
    provenance: str,
    told: Told,
) -> ImageDataset:
    """The data set of two splits of a folder. The provenance says the texts that labels stand for, too."""
    meanings = [f", {name}: {column.meaning()}" for name, column in told.values.items() if column.names]
    return ImageDataset(
        printable(folder.name or folder.resolve().name),
        train,
        test,
        len(classes),
        "".join([provenance, *meanings]),
        tuple(map(printable, classes)) or None,
        specs(told.wanted, [train_parts, test.parts], len(classes)),
    )


def examples(
    folder: Path, found: Found, size: images.Size, channels: int | None, told: Told
) -> tuple[Split, np.ndarray, dict[str | None, Reader]]:
    """The files of a folder that can be read, in the order of `Found.files`. Arguments and errors as of `assemble`.

    With them a mask bool [N] of the files that are among them, and how the images (None) and each part were read.
    """
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
    reading: dict[str | None, Reader] = {None: _reader(decoded, pixels)}
    parts: Parts = {name: column.array[good] for name, column in told.values.items()}
    for name, pictures in beside.items():
        (planes,) = full_range([_kept(pictures, good)], f"{shown}, {name}")
        parts[name] = as_kind(planes, name, told.wanted[name])
        reading[name] = _reader(pictures, planes)
    y = condition(labels[good], {name: parts[name] for name in told.wanted}, bool(found.classes))
    return Split(pixels, y), good, reading


def _reader(decoded: decoding.Decoded, pixels: np.ndarray) -> Reader:
    """How files like these are read, which were decoded and whose arrays became `pixels`."""
    height, width, channels = pixels.shape[1:]
    factor = 255 if int(decoded.images.max()) == 1 and int(pixels.max()) == 255 else 1
    return partial(images.read, size=(height, width), channels=channels, bits=decoded.bits or 16, factor=factor)


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
    depth = None if depth is None else int(depth)
    try:
        return decoding.decode(paths, own_size(given, told.size), depth, f"{code}-{name}")
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
