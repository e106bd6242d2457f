"""The source `npz`: one NumPy archive of `images` and, if there are any, `labels`, as sampling writes it.

Further arrays of any names can be told:

    np.savez("told.npz", images=photos, low=small_photos, age=years)
    load("npz", path="told.npz", conditions={"low": "image", "age": "number"})
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fmd.data.archives import read_npz
from fmd.data.arrays import as_images, as_labels, full_range
from fmd.data.dataset import ImageDataset
from fmd.data.parts import Asked, Spec, as_kind, asked, specs
from fmd.data.sources import register_source
from fmd.data.split import Split, condition, split_off
from fmd.files import expand, printable

UNNAMED = {"arr_0": "images", "arr_1": "labels"}  # as `np.savez(file, images, labels)` calls them


@register_source("npz")
def load_npz(
    path: str,
    test_path: str | None = None,
    num_classes: int | None = None,
    test_fraction: float = 0.1,
    conditions: Asked = (),
) -> ImageDataset:
    """Images, and labels if there are any, of the archive `path`.

    Images are uint8 [N, H, W, C] or [N, H, W], labels are whole numbers [N]. Arrays without names, `arr_0` and `arr_1`,
    are taken in this order. Channels in front, [N, C, H, W], and images of the values 0 and 1 alone are set right, with
    a warning.

    Args:
        path: the archive.
        test_path: an archive of the same form with the test split.
        num_classes: the largest label plus one where it is not given; 0 without labels.
        test_fraction: the part of each class that makes the test split where there is no `test_path`.
        conditions: names of further arrays [N, ...] of the archive that the network is told beside the label, as
            `fmd.data.arrays.as_part` takes them. As a mapping, their kinds, too, as `fmd.data.parts` describes.

    Raises:
        FileNotFoundError: for a missing file.
        ValueError: for a file that is damaged or of another form, and for conditions that its arrays cannot be.
    """
    wanted = asked(conditions)
    paths = [expand(p) for p in (path, test_path) if p is not None]
    read = [_read_split(p, wanted) for p in paths]
    shown = " and ".join(map(printable, paths))
    if len({labelled for _, labelled in read}) > 1:
        raise ValueError(f"of {shown} only one has labels: give both or neither labels")
    images = full_range([split.images for split, _ in read], shown)
    splits = [Split(pixels, split.y) for pixels, (split, _) in zip(images, read, strict=True)]
    train, test = splits if test_path is not None else split_off(splits[0], test_fraction)
    if num_classes is None:
        num_classes = 1 + int(max(train.labels.max(), test.labels.max())) if read[0][1] else 0
    told = specs(wanted, [train.parts, test.parts], num_classes)
    return ImageDataset(printable(paths[0].stem), train, test, num_classes, f"from {shown}", conditions=told)


def read_archive(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Images uint8 [N, H, W, C] and labels int32 [N], or None, of an archive. Raises as `load_npz` does."""
    split, labelled = _read_split(path, {})
    return split.images, split.labels if labelled else None


def _read_split(path: Path, wanted: Mapping[str, Spec]) -> tuple[Split, bool]:
    """The archive as a split, and whether it has labels."""
    arrays, shown = read_npz(path), printable(path)
    if "images" not in arrays:
        arrays = {UNNAMED.get(name, name): array for name, array in arrays.items()}
    if missing := [name for name in ("images", *wanted) if name not in arrays]:
        raise ValueError(f"{shown} has no array '{missing[0]}', only: {', '.join(sorted(arrays)) or 'nothing'}")
    try:
        labelled = "labels" in arrays
        labels = as_labels(arrays["labels"] if labelled else np.zeros(arrays["images"].shape[:1], np.int32))
        images = as_images(arrays["images"], shown, len(labels) if labels.ndim else None)
        parts = {name: as_kind(arrays[name], name, given) for name, given in wanted.items()}
        for name in (name for name, given in wanted.items() if given.get("kind") == "mask"):
            (parts[name],) = full_range([parts[name]], f"{shown}, {name}")
        return Split(images, condition(labels, parts, labelled)), labelled
    except ValueError as error:
        raise ValueError(f"{shown}: {error}") from None
