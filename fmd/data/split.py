"""A split: images in memory with their conditions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Parts = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 [N, H, W, C] with their conditions `y`; N >= 1.

    `y` is int32 labels [N], or a dictionary of named parts [N, ...]: int32 [N] for labels (the part "label" has the
    classes of the set), float32 or uint8 [N, ...] for others.

    Raises ValueError for other types and shapes, and for values that are not finite.
    """

    images: np.ndarray
    y: np.ndarray | Parts

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(f"images must be uint8 [N, H, W, C], got {_describe(self.images)}")
        if 0 in self.images.shape:
            raise ValueError(f"a split needs at least one image and one pixel, got shape {self.images.shape}")
        if not self.parts:
            raise ValueError("a condition of named parts needs at least one part")
        for name, part in self.parts.items():
            name = "labels" if name == "label" else name
            label = part.dtype == np.int32 and part.ndim == 1
            other = part.dtype in (np.float32, np.uint8) and part.ndim > 1 and name != "labels"
            if not (label or other):
                allowed = "int32 [N]" if name == "labels" else "int32 [N], float32 [N, ...] or uint8 [N, ...]"
                raise ValueError(f"{name} must be {allowed}, got {_describe(part)}")
            if len(part) != len(self.images):
                raise ValueError(f"{len(self.images)} images but {len(part)} {name}: each image needs one")
            if not np.isfinite(part).all():
                raise ValueError(f"{name} must be finite, but row {int(np.argwhere(~np.isfinite(part))[0][0])} is not")

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {_describe(part)}" for name, part in self.parts.items())
        return f"Split(images {_describe(self.images)}, {told})"

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    @property
    def parts(self) -> Parts:
        """The condition as named parts; labels alone are the part "label"."""
        return named(self.y)

    @property
    def labels(self) -> np.ndarray:
        """Labels int32 [N]; zeros where the condition has no part "label"."""
        return self.parts["label"] if "label" in self.parts else np.zeros(len(self), np.int32)

    def __getitem__(self, rows: int | slice | np.ndarray) -> tuple[np.ndarray, Any]:
        """(image, y) of one example or of several. With it a split in memory can be streamed like one on disk."""
        y = {name: part[rows] for name, part in self.y.items()} if isinstance(self.y, dict) else self.y[rows]
        return self.images[rows], y

    def take(self, rows: slice | np.ndarray) -> "Split":
        """The split of some rows: indices, a mask [N], or a slice of them."""
        return Split(*self[rows])


def named(y: Any) -> dict[str, Any]:
    """The parts of a condition by name; labels alone are the part "label"."""
    return y if isinstance(y, dict) else {"label": y}


def condition(label: Any, parts: Mapping[str, Any], labelled: bool) -> Any:
    """The condition `y` of labels and named parts: labels alone where there are no parts.

    The labels are among the parts where the set is labelled.
    """
    return {**({"label": label} if labelled else {}), **parts} if parts else label


def hold_out(labels: np.ndarray, count: Callable[[int], int]) -> np.ndarray:
    """Mask bool [N] of the examples that make a test split.

    Of the n examples of a class, `count(n)` are taken, spread evenly over the order in which they come.
    """
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        taken = count(len(members))
        # The middle of each of `taken` equal stretches.
        mask[members[(2 * np.arange(taken) + 1) * len(members) // max(2 * taken, 1)]] = True
    return mask


def share_of_each(labels: np.ndarray, share: float) -> np.ndarray:
    """Mask bool [N] of a share of each class, and at least one of two or more, as `hold_out` takes them.

    Raises ValueError where no class has two.
    """
    mask = hold_out(labels, lambda n: min(max(1, round(share * n)), n - 1))
    if not mask.any():
        raise ValueError(f"no test split can be taken from {len(labels)} images: some class needs at least two")
    return mask


def spread(count: int, size: int) -> np.ndarray:
    """`count` of the indices below `size`, evenly spread; all where there are no more."""
    count = min(count, size)
    return np.arange(count) * size // count


def split_off(whole: Split, test_fraction: float) -> tuple[Split, Split]:
    """A set as a training and a test split, which has `test_fraction` of each class as `share_of_each` takes it.

    Raises ValueError for a fraction outside (0, 1), and as `share_of_each` does.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must lie between 0 and 1, got {test_fraction}")
    mask = share_of_each(whole.labels, test_fraction)
    return whole.take(~mask), whole.take(mask)


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"
