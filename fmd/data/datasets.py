"""What a data set is, and the registry of the sources it can come from.

A set is two splits of uint8 images [N, H, W, C] with int32 labels [N] in [0, num_classes). An unlabelled set has
`num_classes` 0 and all labels 0, which is then the null label, so that it trains an unconditional model through the
same path. A source is a function of keyword arguments that returns an `ImageDataset`; `load` calls it by name.
"""

from __future__ import annotations

import inspect
import os
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from absl import logging

from fmd.data.streaming import StreamedSplit


@dataclass(frozen=True, eq=False)
class Split:
    """One split: `images` uint8 [N, H, W, C] and `labels` int32 [N], N >= 1. Raises ValueError for anything else."""

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(f"images must be uint8 [N, H, W, C], got {_describe(self.images)}")
        if self.labels.dtype != np.int32 or self.labels.ndim != 1:
            raise ValueError(f"labels must be int32 [N], got {_describe(self.labels)}")
        if len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images)} images but {len(self.labels)} labels: each image needs one label")
        if 0 in self.images.shape:
            raise ValueError(f"a split needs at least one image and one pixel, got shape {self.images.shape}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """A named set: the test split in memory, the training split there, too, or on disk and streamed.

    `num_classes` is 0 for unlabelled images, `provenance` is one line that says where the bytes came from, and
    `class_names`, where known, has one name per class. Raises ValueError where the parts do not fit together.
    """

    name: str
    train: Split | StreamedSplit
    test: Split
    num_classes: int
    provenance: str
    class_names: tuple[str, ...] | None = None

    def __post_init__(self):
        shapes = self.train.image_shape, self.test.image_shape
        if shapes[0] != shapes[1]:
            raise ValueError(f"{self.name}: train images are {shapes[0]} but test images are {shapes[1]}")
        # Without classes the only label is 0, the null label of an unconditional model.
        allowed = max(self.num_classes, 1)
        in_memory = [(name, split) for name, split in vars(self).items() if isinstance(split, Split)]
        for name, split in in_memory:
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= allowed:
                raise ValueError(
                    f"{self.name}: {name} labels run from {low} to {high}, "
                    f"but num_classes={self.num_classes} allows 0 to {allowed - 1}"
                )
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(f"{self.name}: {len(self.class_names)} class names for {self.num_classes} classes")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.train.image_shape


Source = Callable[..., ImageDataset]
_SOURCES: dict[str, Source] = {}


def register_source(name: str) -> Callable[[Source], Source]:
    """Decorator that makes a function of keyword arguments available as `load(name, ...)`; ValueError if taken."""

    def register(source: Source) -> Source:
        if name in _SOURCES:
            raise ValueError(f"data source '{name}' is already registered: choose another name")
        _SOURCES[name] = source
        return source

    return register


def source_names() -> list[str]:
    """The registered names, sorted."""
    return sorted(_SOURCES)


def load(source: str, **params) -> ImageDataset:
    """The set of a registered source; `params` are the source's own keyword arguments.

    Raises KeyError for an unknown source, ValueError for a parameter that the source does not have or that is not of
    its annotated type, and whatever the source raises (FileNotFoundError, ValueError, RuntimeError), always one line.
    Logs where the images came from.
    """
    if source not in _SOURCES:
        raise KeyError(f"unknown data source '{source}': choose one of {', '.join(source_names())}")
    function = _SOURCES[source]
    try:
        given = inspect.signature(function).bind(**params).arguments
    except TypeError as error:
        known = ", ".join(inspect.signature(function).parameters) or "none"
        raise ValueError(f"data source '{source}': {error}; its parameters are: {known}") from None
    try:
        hints = typing.get_type_hints(function)
    except NameError:  # a name that exists for type checkers only
        hints = {}
    for key, value in given.items():
        if not _fits(value, hints.get(key)):
            wanted = " or ".join(getattr(arg, "__name__", str(arg)) for arg in _alternatives(hints[key]))
            raise ValueError(f"data source '{source}': {key} is {value!r}; it must be {wanted.replace('Type', '')}")
    dataset = function(**params)
    logging.info(
        "%s: %d train and %d test images, %s", source, len(dataset.train), len(dataset.test), dataset.provenance
    )
    return dataset


def hold_out(labels: np.ndarray, count: Callable[[int], int]) -> np.ndarray:
    """Mask bool [N] of the examples that make the test split where a source has none: no randomness involved.

    Of the n examples of a class, `count(n)` are taken, spread evenly over the order in which they come.
    """
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        taken = count(len(members))
        # The middle of each of `taken` equal stretches.
        mask[members[(2 * np.arange(taken) + 1) * len(members) // max(2 * taken, 1)]] = True
    return mask


def split_off(images: np.ndarray, labels: np.ndarray, test_fraction: float) -> tuple[Split, Split]:
    """Train and test splits, `test_fraction` of each class (at least one of two or more) going to the test split.

    Raises ValueError for a fraction outside (0, 1) and where no class has two images.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must lie between 0 and 1, got {test_fraction}")
    mask = hold_out(labels, lambda n: min(max(1, round(test_fraction * n)), n - 1))
    if not mask.any():
        raise ValueError(f"no test split can be taken from {len(labels)} images: some class needs at least two")
    return Split(images[~mask], labels[~mask]), Split(images[mask], labels[mask])


def _alternatives(wanted: object) -> tuple[object, ...]:
    return typing.get_args(wanted) if typing.get_origin(wanted) in (typing.Union, types.UnionType) else (wanted,)


def _fits(value: object, wanted: object) -> bool:
    """Whether a parameter is of the annotated type. The items of a tuple or a list are left to the source."""
    for kind in _alternatives(wanted):
        plain: Any = typing.get_origin(kind) or kind
        if plain is Any or not isinstance(plain, type):
            return True
        # A whole number does for a float and a path for its name, but a bool is no number to a reader of configs.
        accepted = {float: (float, int), str: (str, os.PathLike)}.get(plain, plain)
        if isinstance(value, accepted) and (plain is bool or not isinstance(value, bool)):
            return True
    return False


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"
