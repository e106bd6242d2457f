"""A data set: two splits with what is known of them.

Labels lie in [0, num_classes). A set without labels has `num_classes` 0 and all labels 0, which is then the null label,
so that it trains an unconditional model through the same path.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from fmd.data.parts import Spec, spec
from fmd.data.split import Parts, Split
from fmd.data.streaming import StreamedSplit
from fmd.files import digest

Conditions = dict[str, Spec]


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """A named set of two splits.

    The test split is in memory. The training split is there, too, or on disk and streamed.

    Attributes:
        name: of the set.
        train, test: its splits.
        num_classes: 0 for images without labels.
        provenance: one line that says where the bytes came from.
        class_names: one per class, where known.
        conditions: None where `y` is labels alone. Otherwise the kind of each part, a JSON value:
            {"label": {"kind": "label", "num_classes": 10}, "style": {"kind": "vector", "size": 16}}.
            Computed from the arrays where it is not given.

    Raises:
        ValueError: where the parts do not fit together.
    """

    name: str
    train: Split | StreamedSplit
    test: Split
    num_classes: int
    provenance: str
    class_names: tuple[str, ...] | None = None
    conditions: Conditions | None = None

    def __post_init__(self) -> None:
        train, test = self.train, self.test
        if train.image_shape != test.image_shape:
            shapes = f"train images are {train.image_shape} but test images are {test.image_shape}"
            raise ValueError(f"{self.name}: {shapes}")
        if isinstance(train, Split) and _form(train) != _form(test):
            raise ValueError(f"{self.name}: train images come with {_form(train)} but test images with {_form(test)}")
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(f"{self.name}: {len(self.class_names)} class names for {self.num_classes} classes")
        if isinstance(test.y, dict) and self.conditions is None:
            object.__setattr__(self, "conditions", self._found_conditions(test.y))
        if self.conditions is not None and self.conditions.keys() != test.parts.keys():
            raise ValueError(f"{self.name}: conditions {', '.join(self.conditions)}, but images with {_form(test)}")
        limits = self._limits()
        for part, limit in limits.items():
            for name, split in [("train", train), ("test", test)]:
                if isinstance(split, Split) and not 0 <= split.parts[part].min() <= split.parts[part].max() < limit:
                    low, high = split.parts[part].min(), split.parts[part].max()
                    count = f"num_classes={self.num_classes}" if part == "label" else "its num_classes"
                    raise ValueError(
                        f"{self.name}: {name} {part}s run from {low} to {high}, but {count} allows 0 to {limit - 1}"
                    )
        if isinstance(train, StreamedSplit):  # its labels are checked as they come
            object.__setattr__(self, "train", replace(train, limits=limits))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.train.image_shape

    def class_counts(self) -> np.ndarray | None:
        """Training images of each class, int [num_classes]; None where they are streamed and not counted."""
        if isinstance(self.train, StreamedSplit):
            return None if self.train.counts is None else self.train.counts[: self.num_classes]
        return np.bincount(self.train.labels, minlength=self.num_classes)[: self.num_classes]

    def digest(self) -> str:
        """128 bits, in hexadecimal, of class names, conditions and pixels.

        Equal for equal data, wherever they lie. Of a streamed split, its length, its identity and
        `StreamedSplit.SAMPLED` examples stand for the rest.
        """

        def pieces() -> Iterator[bytes | memoryview]:
            yield repr((self.num_classes, self.class_names, self.image_shape)).encode()
            for split in (self.train, self.test):
                yield f"{len(split)} ".encode()
                if isinstance(split, StreamedSplit):
                    yield from split.pieces()
                    continue
                yield repr(split.images.shape).encode()
                yield np.ascontiguousarray(split.images).data
                for name, part in sorted(split.parts.items()):
                    yield repr((name, part.dtype.str, part.shape)).encode()
                    yield np.ascontiguousarray(part).data

        return digest(pieces())

    def _limits(self) -> dict[str, int]:
        """The number of classes of each part of kind label. Without classes the only label is 0."""
        found = {name: c["num_classes"] for name, c in (self.conditions or {}).items() if c["kind"] == "label"}
        if self.conditions is None or "label" in found:
            found["label"] = max(self.num_classes, 1)
        return {name: int(count) for name, count in found.items()}

    def _found_conditions(self, test: Parts) -> Conditions:
        """The kind of each part, found from the arrays."""
        splits = [self.train.parts, test] if isinstance(self.train, Split) else [test]
        classes: Spec = {"kind": "label", "num_classes": self.num_classes}
        return {name: classes if name == "label" else spec(name, [parts[name] for parts in splits]) for name in test}


def _form(split: Split) -> str:
    """The parts of a condition with their types and shapes, in words."""
    if not isinstance(split.y, dict):
        return "labels"
    return ", ".join(f"{name} {part.dtype} {['N', *part.shape[1:]]}" for name, part in sorted(split.y.items()))
