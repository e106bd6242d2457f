"""The source `folder`: your own image files, of any size.

    PATH/cats/a.jpg  PATH/dogs/b.png        one sub-folder per class, numbered in the order of their sorted names
    PATH/a.jpg  PATH/b.png                  no labels: num_classes is 0, for an unconditional model
    PATH/train/...  PATH/test/...           either of these in each split; test may be called val or validation

Without a test folder a part of each class is held out. Files that cannot be read are left out, counted and named.
Hidden files and folders without images do not count. One class alone is allowed, and the log says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from absl import logging

from fmd.data import images
from fmd.data.cache import kept_arrays
from fmd.data.datasets import ImageDataset, Split, register_source, split_off

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_TEST_NAMES = ("test", "val", "validation")
_FORMAT = 1  # of the kept arrays; raise it when the decoding changes

T = TypeVar("T")
Listing = list[tuple[Path, int]]  # image files with their labels


@register_source("folder")
def load_folder(
    path: str, image_size: images.Size = None, channels: int | None = None, test_fraction: float = 0.1
) -> ImageDataset:
    """Images under `path`, cropped at the centre and resized to `image_size` (see `fmd.data.images`).

    Args:
      path: the folder, laid out as this module's docstring shows.
      image_size: one number for squares, or (height, width); None where all files have the same size already.
      channels: 1 or 3 to convert every image; None takes what the files have, which must then agree.
      test_fraction: the part of each class that is held out where there is no test folder.
    Raises:
      FileNotFoundError for a missing folder or one without images, ValueError for mixed channel counts or sizes, for
      classes that differ between train and test, and where no image of a class can be read.
    """
    folder = Path(path).expanduser()
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1 or 3, or None to take what the files have, got {channels}")
    parts = _parts(folder)
    class_names = _class_names(parts[0])
    for part in parts[1:]:
        if _class_names(part) != class_names:
            raise ValueError(f"the class folders in {part} differ from those in {parts[0]}: both need the same ones")
    listings = [_list(part, class_names) for part in parts]
    if len(class_names) == 1:
        logging.info("folder %s has one class only, '%s': labels will carry no information", folder, class_names[0])

    files = [file for listing in listings for file, _ in listing]
    # Name, length and time of last change of every file stand for their content.
    contents = [(str(f.relative_to(folder)), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    size = images.height_width(image_size)
    arrays = kept_arrays(
        folder.resolve().name or "root", [_FORMAT, size, channels, contents], lambda: _decode(files, size, channels)
    )
    good, pixels = arrays["good"], arrays["images"]
    if not good.all():
        bad = [str(file.relative_to(folder)) for file, ok in zip(files, good, strict=True) if not ok]
        shown = ", ".join(bad[:3]) + (", ..." if len(bad) > 3 else "")
        logging.warning(
            "folder %s: %d of %d files cannot be read and are left out: %s", folder, len(bad), len(files), shown
        )

    labels = np.array([label for listing in listings for _, label in listing], np.int32)[good]
    part_of = np.repeat(np.arange(len(listings)), [len(listing) for listing in listings])[good]
    for label, name in enumerate(class_names):
        if not (labels[part_of == 0] == label).any():
            raise ValueError(f"no image of class '{name}' in {parts[0]} can be read: repair its files or remove it")
    if len(parts) == 2:
        train, test = (Split(pixels[part_of == k], labels[part_of == k]) for k in (0, 1))
    else:
        train, test = split_off(pixels, labels, test_fraction)
    left_out = f", {int((~good).sum())} unreadable files left out" if not good.all() else ""
    provenance = f"from the image files in {folder}{left_out}"
    return ImageDataset(folder.name, train, test, len(class_names), provenance, class_names or None)


def _parts(folder: Path) -> list[Path]:
    """The folders of the splits: [train, test], or one folder to split."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    # A class may be called "train" (beside "bus"), so the names must all be those of splits.
    names = _class_names(folder)
    if "train" not in names or not set(names) <= {"train", *_TEST_NAMES}:
        return [folder]
    return [folder / "train", *[folder / name for name in _TEST_NAMES if name in names][:1]]


def _class_names(folder: Path) -> tuple[str, ...]:
    """Sorted names of the sub-folders that hold images; empty for a flat folder."""
    entries = sorted(_visible(folder, _list_folder(folder)))
    classes = tuple(path.name for path in entries if path.is_dir() and _images(path))
    if classes and any(_is_image(path) for path in entries):
        raise ValueError(
            f"{folder} holds images beside class folders ({classes[0]}, ...): move them into class folders"
        )
    return classes


def _list(folder: Path, class_names: tuple[str, ...]) -> Listing:
    if class_names:
        return [(file, label) for label, name in enumerate(class_names) for file in _images(folder / name)]
    listing = [(path, 0) for path in sorted(_visible(folder, _list_folder(folder))) if _is_image(path)]
    if not listing:
        raise FileNotFoundError(f"no images in {folder}: it needs files ending in {', '.join(SUFFIXES)}")
    return listing


def _list_folder(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except PermissionError:
        raise PermissionError(f"folder {folder} cannot be read: check its permissions") from None


def _visible(folder: Path, names: list[str]) -> list[Path]:
    return [folder / name for name in names if not name.startswith(".")]


def _images(folder: Path) -> list[Path]:
    """All image files at any depth below a class folder, sorted."""
    paths = _visible(folder, _list_folder(folder))
    below = [file for path in paths if path.is_dir() for file in _images(path)]
    return sorted(below + [path for path in paths if _is_image(path)])


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _decode(files: list[Path], size: tuple[int, int] | None, channels: int | None) -> dict[str, np.ndarray]:
    """`images` uint8 [M, H, W, C] of the M readable files and `good` bool [N], which of the N files those are."""
    headers = _each(images.probe, files, "reading headers")
    shapes = [(file, header) for file, header in zip(files, headers, strict=True) if header is not None]
    if not shapes:
        raise ValueError(f"none of the {len(files)} image files can be read, the first is {files[0]}")
    first, (height, width, depth) = shapes[0]
    for file, header in shapes:
        if channels is None and header[2] != depth:
            raise ValueError(
                f"mixed channel counts: {first} has {depth}, {file} has {header[2]}; set channels to 1 or 3 to convert"
            )
        if size is None and header[:2] != (height, width):
            raise ValueError(
                f"images of different sizes: {first} is {height}x{width}, {file} is {header[0]}x{header[1]}; "
                f"set image_size to resize them"
            )
    target, depth = size or (height, width), channels or depth
    decoded = _each(lambda file: images.read(file, target, depth), files, "decoding images")
    good = np.array([image is not None for image in decoded])
    if not good.any():
        raise ValueError(f"none of the {len(files)} image files can be read, the first is {files[0]}")
    return {"images": np.stack([image for image in decoded if image is not None]), "good": good}


def _each(function: Callable[[Path], T], files: list[Path], what: str) -> list[T | None]:
    """`function` of every file on all cores with a progress bar; None for a file that cannot be read."""
    from PIL import Image
    from tqdm import tqdm

    def attempt(file: Path) -> T | None:
        try:
            return function(file)
        # Pillow's plugins raise more than OSError on damaged files.
        except (
            OSError,
            ValueError,
            SyntaxError,
            EOFError,
            IndexError,
            TypeError,
            Image.DecompressionBombError,
        ) as error:
            logging.debug("%s cannot be read: %s", file, error)
            return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(tqdm(pool.map(attempt, files), total=len(files), desc=what, unit="file", leave=False, disable=None))
