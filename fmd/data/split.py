"""A split: images in memory with their conditions.

`y` is int32 labels [N], or a dictionary of named parts [N, ...]: int32 [N] for labels (the part "label" has the
classes of the set), float32 [N, D] for vectors.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Parts = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 [N, H, W, C] with their conditions `y`; N >= 1.

    `y` is int32 [N], or a dictionary of named parts [N, ...].

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
        return self.y if isinstance(self.y, dict) else {"label": self.y}

    @property
    def labels(self) -> np.ndarray:
        """Labels int32 [N]; zeros where the condition has no part "label"."""
        return self.parts["label"] if "label" in self.parts else np.zeros(len(self), np.int32)

    def __getitem__(self, index: int) -> tuple[np.ndarray, object]:
        """(image, y) of one example. With it a split in memory can be streamed like one on disk."""
        y: object = {name: part[index] for name, part in self.y.items()} if isinstance(self.y, dict) else self.y[index]
        return self.images[index], y

    def take(self, rows: np.ndarray) -> "Split":
        """The split of some rows: indices, or a mask [N]."""
        y = {name: part[rows] for name, part in self.y.items()} if isinstance(self.y, dict) else self.y[rows]
        return Split(self.images[rows], y)


def hold_out(labels: np.ndarray, count: Callable[[int], int]) -> np.ndarray:
    """Mask bool [N] of the examples that make a test split.

    There is no randomness. Of the n examples of a class, `count(n)` are taken, spread evenly over the order in which
    they come.
    """
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        taken = count(len(members))
        # The middle of each of `taken` equal stretches.
        mask[members[(2 * np.arange(taken) + 1) * len(members) // max(2 * taken, 1)]] = True
    return mask


def split_off(whole: Split, test_fraction: float) -> tuple[Split, Split]:
    """A set as a training and a test split.

    The test split is `test_fraction` of each class, and at least one of two or more.

    Raises ValueError for a fraction outside (0, 1) and where no class has two images.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must lie between 0 and 1, got {test_fraction}")
    mask = hold_out(whole.labels, lambda n: min(max(1, round(test_fraction * n)), n - 1))
    if not mask.any():
        raise ValueError(f"no test split can be taken from {len(whole)} images: some class needs at least two")
    return whole.take(~mask), whole.take(mask)


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"
