"""Conditions to make images from: of test images, of pictures of one's own, or given themselves.

Where a model is told an image, several draws of one condition show how much it leaves open.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8

from fmd import telling
from fmd.config import Settings
from fmd.data import ImageDataset, batch_indices, decoding, layout
from fmd.data.archives import read_npz
from fmd.data.file_names import natural
from fmd.data.sources.npz import read_archive
from fmd.math.pixels import to_uint8
from fmd.models import conditions
from fmd.pictures.grids import labelled_grid
from fmd.run_info import RunInfo
from fmd.sampling.sampler import Sampler, Samples
from fmd.types import Condition, Params, TypedKey


@dataclass(frozen=True)
class Inputs:
    """Conditions of N examples to make images from, and the true images where they are known."""

    y: Condition
    labels: Int[np.ndarray, " N"]  # the null label where they are not known
    truth: UInt8[np.ndarray, "N H W C"] | None = None

    def __len__(self) -> int:
        return len(self.labels)


Chosen = Callable[[int], Int[np.ndarray, " N"]] | None
"""Labels of so many examples that somebody asks for; None: those that the examples have, else none are told."""


def of_test_images(info: RunInfo, dataset: ImageDataset, count: int, chosen: Chosen = None) -> Inputs:
    """The conditions of the first `count` test images in a fixed shuffle."""
    test = dataset.test
    rows = batch_indices(0, 0, min(count, len(test)), len(test))
    labels = _labels(info, len(rows), chosen, test.labels[rows])
    return Inputs(telling.tell_rows(info, test, rows, labels), labels, test.images[rows])


def of_images(info: RunInfo, place: Path, count: int, chosen: Chosen = None) -> Inputs:
    """The conditions made of the first `count` pictures of a folder or an .npz.

    Raises ValueError where the model is told more than can be made of an image and a label.
    """
    if strange := sorted((info.conditions or {}).keys() - info.config.data.derive.keys() - {"label"}):
        raise ValueError(f"--images: the model is told {strange[0]!r}, which no image tells; give --condition instead")
    images, found = read_images(place, count, info.image_shape)
    labels = _labels(info, len(images), chosen, found)
    return Inputs(telling.derive(info, images, {"label": labels}, np.arange(len(images))), labels, images)


def of_conditions(info: RunInfo, place: Path, count: int, chosen: Chosen = None) -> Inputs:
    """The first `count` conditions that lie in an .npz by the names of their parts, or in a folder of image files.

    Raises ValueError where parts are missing, and for a folder where not one part alone is an image.
    """
    spec = info.conditions or {}
    wanted = [name for name in spec if name != "label"]
    if place.suffix == ".npz":
        arrays = read_npz(place)
        if missing := [name for name in wanted if name not in arrays]:
            raise ValueError(f"{place} has no array {missing[0]!r}; the model is told {', '.join(spec)}")
        parts = {name: np.asarray(arrays[name][:count]) for name in wanted}
        labels = arrays.get("label", arrays.get("labels"))
    else:
        if wanted != conditions.on_grid(spec) or len(wanted) != 1:
            raise ValueError(f"{place}: the model is told {', '.join(spec)}; give them by name in an .npz")
        height, width, channels = (int(spec[wanted[0]][key]) for key in ("height", "width", "channels"))
        parts, labels = {wanted[0]: read_folder(place, count, (height, width, channels))}, None
    found = _labels(info, len(next(iter(parts.values()))), chosen, labels)
    return Inputs({name: found if name == "label" else parts[name] for name in spec}, found)


def _labels(
    info: RunInfo, count: int, chosen: Chosen, found: Int[np.ndarray, " N"] | None
) -> Int[np.ndarray, " {count}"]:
    told = "label" in (info.conditions or {})
    if chosen is not None and not told:
        raise ValueError("--label has no effect here: this model is not told a label; leave it out")
    if chosen is None and found is None and told and not info.can_be_guided:
        raise ValueError("this model is told a label, too, and cannot do without: give --label")
    if chosen is not None:
        return chosen(count)
    return np.full(count, info.num_classes, np.int32) if found is None else found[:count].astype(np.int32)


def draw(
    sampler: Sampler,
    asked: Inputs,
    key: TypedKey,
    settings: Settings | None = None,
    *,
    draws: int,
    params: Params | None = None,
    quiet: bool = False,
) -> Samples:
    """`draws` images for each condition, those of one condition side by side."""
    y = asked.y if draws == 1 else jax.tree.map(lambda part: np.repeat(part, draws, axis=0), asked.y)
    return sampler.sample(y, key, settings, params=params, quiet=quiet)


def picture(info: RunInfo, asked: Inputs, images: np.ndarray, *, draws: int, scale: int) -> np.ndarray:
    """A row for each condition: the condition, its draws, and the truth where it is known."""
    rows = len(images) // draws
    columns = [enlarged(info, asked.y)[:rows]]
    columns += list(np.moveaxis(images[: rows * draws].reshape(rows, draws, *info.image_shape), 1, 0))
    names = [_image_part(info), "draws", *[""] * (draws - 1)]
    if asked.truth is not None:
        columns, names = [*columns, asked.truth[:rows]], [*names, "truth"]
    cells = np.stack(columns, axis=1).reshape(-1, *info.image_shape)
    return labelled_grid(cells, [""] * rows, column_names=names, scale=scale)


def enlarged(info: RunInfo, y: Condition, method: str = "nearest") -> UInt8[np.ndarray, "N H W C"]:
    """The told image as a picture of the size and the channels of what is made."""
    part = np.asarray(y[_image_part(info)])
    part = part if part.dtype != np.uint8 else part / np.float32(127.5) - 1
    height, width, channels = info.image_shape
    resized = jax.image.resize(jnp.asarray(part, jnp.float32), (len(part), height, width, part.shape[-1]), method)
    mean = resized if resized.shape[-1] == channels else resized.mean(axis=-1, keepdims=True)
    return np.asarray(to_uint8(jnp.broadcast_to(mean, (len(part), height, width, channels))))


def told_an_image(info: RunInfo) -> bool:
    """True where a part of the condition lies on the grid of the image."""
    return bool(conditions.on_grid(info.conditions))


def _image_part(info: RunInfo) -> str:
    return conditions.on_grid(info.conditions)[0]


def read_images(place: Path, count: int, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray | None]:
    """(the first `count` images uint8 of an .npz or a folder, their labels where an .npz has them).

    Images of a folder are cropped and resized to `shape`. ValueError where those of an .npz are of another.
    """
    if place.suffix == ".npz":
        images, labels = read_archive(place)
    else:
        images, labels = read_folder(place, count, shape), None
    if images.shape[1:] != shape:
        raise ValueError(f"{place} holds images {images.shape[1:]}; the model's are {shape}")
    return images[:count], None if labels is None else labels[:count]


def read_folder(place: Path, count: int, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "N H W C"]:
    """The first `count` images of a folder in the order of their names, cropped and resized to `shape`."""
    found = layout.find(place)
    files = sorted({file for file, _ in [*found.train, *(found.test or [])]}, key=lambda file: natural(str(file)))
    height, width, channels = shape
    return decoding.decode(files[:count], (height, width), channels, place.resolve().name or "root").images
