"""The source `tfds`: any image set of TensorFlow Datasets by name.

A set that is prepared on disk is read without TensorFlow: formats with random access (array_record, parquet) through
TFDS's data sources, and tfrecord, which can only be read from front to back, by the small reader below. A set that is
not prepared yet is prepared in array_record format, for which TensorFlow must be installed.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fmd.data import images
from fmd.data.cache import kept_arrays
from fmd.data.datasets import ImageDataset, Split, register_source, split_off
from fmd.data.streaming import StreamedSplit

_FORMAT = 1  # of the kept arrays; raise it when the decoding changes


@register_source("tfds")
def load_tfds(
    name: str,
    data_dir: str | None = None,
    image_size: images.Size = None,
    train_split: str = "train",
    test_split: str | None = None,
    test_fraction: float = 0.1,
    stream: bool = False,
) -> ImageDataset:
    """The set `name` of TFDS in memory, its decoded images kept in the cache folder; or streamed from disk.

    Args:
      name: `cifar10`, `name:version`, `name/config`.
      data_dir: where prepared sets lie; None for TFDS_DATA_DIR or ~/tensorflow_datasets.
      image_size: as in `fmd.data.images`; None where all images have the same size already.
      train_split, test_split: names of splits. Without `test_split` the first of `test` and `validation` that the set
        has, and if it has neither, `test_fraction` of each class.
      stream: leave the training split on disk; for sets that do not fit into memory. Needs a test split and a format
        with random access.
    Raises:
      KeyError for an unknown set, RuntimeError where it is not prepared and cannot be, ValueError for an unknown split,
      a set without images or a format that cannot be read.
    """
    builder = _prepared(name, data_dir)
    image_key, label_key = _keys(builder)
    splits = builder.info.splits
    if test_split is None:
        test_split = next((s for s in ("test", "validation") if s in splits), None)
    wanted = [split for split in (train_split, test_split) if split is not None]
    for split in wanted:
        if split not in splits:
            raise ValueError(f"TFDS set {name} has no split '{split}': choose from {', '.join(splits)}")

    size = images.height_width(image_size)
    if stream and len(wanted) == 1:
        raise ValueError(f"TFDS set {name} has no test split, which streaming needs: name one as test_split")
    train: Split | StreamedSplit
    if stream:
        test = _read_split(builder, wanted[1], image_key, label_key, size)
        source = random_access(name, train_split, data_dir)
        train = StreamedSplit(source, test.image_shape, size, lambda e: (e[image_key], int(e.get(label_key, 0))))
    else:
        parts = [_read_split(builder, split, image_key, label_key, size) for split in wanted]
        train, test = parts if len(parts) == 2 else split_off(parts[0].images, parts[0].labels, test_fraction)
    names = tuple(builder.info.features[label_key].names) if label_key else None
    return ImageDataset(
        name=builder.info.name,
        train=train,
        test=test,
        num_classes=len(names) if names else 0,
        provenance=f"from the TFDS set {builder.info.full_name} prepared in {builder.data_dir}",
        class_names=names,
    )


def random_access(name: str, split: str = "train", data_dir: str | None = None) -> Any:
    """A prepared split as a sequence of examples by index, for `fmd.data.streaming.ImageStream`.

    Raises as `load_tfds` does, and RuntimeError where the set is prepared in a format without random access.
    """
    builder = _prepared(name, data_dir)
    if not _has_random_access(builder):
        raise RuntimeError(
            f"TFDS set {name} is prepared in {builder.info.file_format.value} format, which cannot be streamed in any "
            f"order; where TensorFlow is installed, prepare it again in another folder: tfds.builder('{name}', "
            f"data_dir='FOLDER', file_format='array_record').download_and_prepare()"
        )
    return builder.as_data_source(split)


def prepared_here(name: str) -> list[str]:
    """`name:version` of each version of the set in TFDS's usual folder, the latest first; TFDS is not loaded."""
    folder = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    return sorted((f"{name}:{info.parent.name}" for info in folder.glob(f"{name}/*/dataset_info.json")), reverse=True)


def published_order(split: str, size: int) -> np.ndarray:
    """Position in the published files of each example of a prepared split whose keys were numbers, [size].

    TFDS sorts the examples of a split by the md5 sum of the split's name and the example's key.
    """
    return np.array(
        sorted(range(size), key=lambda i: hashlib.md5(f"{split}{i}".encode(), usedforsecurity=False).digest())
    )


def read_records(path: Path) -> Iterator[bytes]:
    """The records of a tfrecord file: length (uint64), its check sum, data, its check sum. ValueError if cut off."""
    with open(path, "rb") as file:
        while header := file.read(12):
            length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else 0
            record = file.read(length + 4)
            if len(header) < 12 or len(record) < length + 4:
                raise ValueError(f"{path} is cut off: prepare the set again")
            yield record[:-4]


def _prepared(name: str, data_dir: str | None) -> Any:
    """The builder of a set that is on disk, preparing it first where that is possible."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        near = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False), 3)
        hint = f": did you mean {', '.join(near)}?" if near else ""
        raise KeyError(f"TFDS knows no set '{name}' and none is prepared in {data_dir or 'its folder'}{hint}") from None
    if builder.is_prepared():
        return builder
    if importlib.util.find_spec("tensorflow") is None:
        raise RuntimeError(
            f"TFDS set {name} is not prepared in {builder.data_dir}, and preparing it needs TensorFlow: "
            f"pip install 'flow-matching-designs[tfds]' and start again, or copy a prepared set there"
        )
    builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    try:
        builder.download_and_prepare()
    # TFDS lets through whatever the network, the disk or the set's own code raises.
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise RuntimeError(
            f"TFDS could not prepare {name} in {builder.data_dir}: {type(error).__name__}: {reason}"
        ) from error
    return builder


def _keys(builder: Any) -> tuple[str, str | None]:
    """The keys of the image and of the class label (None where the set has no class label)."""
    from tensorflow_datasets import features

    found = builder.info.features
    image_keys = [key for key in found if isinstance(found[key], features.Image)]
    label_keys = [key for key in found if isinstance(found[key], features.ClassLabel)]
    supervised = builder.info.supervised_keys or ()
    image_keys = [key for key in image_keys if key in supervised] or image_keys
    label_keys = [key for key in label_keys if key in supervised] or label_keys
    if len(image_keys) != 1 or len(label_keys) > 1:
        raise ValueError(
            f"TFDS set {builder.info.name} is not for image classification: one image and at most one class label are "
            f"needed, its features are {', '.join(sorted(found))}"
        )
    return image_keys[0], label_keys[0] if label_keys else None


def _has_random_access(builder: Any) -> bool:
    from tensorflow_datasets.core import file_adapters

    return bool(builder.info.available_file_formats() & file_adapters.FileFormat.with_random_access())


def _read_split(builder: Any, split: str, image_key: str, label_key: str | None, size: tuple[int, int] | None) -> Split:
    """One split decoded; kept in the cache, since decoding takes seconds (60,000 small PNG files: 11 s on one core)."""
    info = os.stat(Path(builder.data_dir) / "dataset_info.json")
    identity = [_FORMAT, str(builder.data_dir), info.st_size, info.st_mtime_ns, split, image_key, label_key, size]

    def build() -> dict[str, np.ndarray]:
        from tqdm import tqdm

        total = builder.info.splits[split].num_examples
        pixels, labels = [], []
        bar = {"total": total, "desc": f"decoding {split}", "unit": "image", "leave": False, "disable": None}
        for example in tqdm(_examples(builder, split), **bar):
            image = example[image_key]
            pixels.append(image if size is None else images.fit_array(image, size))
            labels.append(example[label_key] if label_key else 0)
        if len(pixels) != total:
            raise ValueError(f"{builder.data_dir} is damaged: split {split} has {len(pixels)} of {total} examples")
        shapes = {image.shape for image in pixels}
        if len(shapes) > 1:
            raise ValueError(f"TFDS set {builder.info.name} has images of different sizes: set image_size")
        return {"images": np.stack(pixels), "labels": np.array(labels, np.int32)}

    arrays = kept_arrays(f"{builder.info.name}-{split}", identity, build)
    return Split(arrays["images"], arrays["labels"])


def _examples(builder: Any, split: str) -> Iterable[dict]:
    if _has_random_access(builder):
        source = builder.as_data_source(split)
        # Reading many at a time is twice as fast: neighbours share a compressed block.
        blocks = (range(first, min(first + 1024, len(source))) for first in range(0, len(source), 1024))
        return (example for block in blocks for example in source.__getitems__(list(block)))
    if builder.info.file_format.value != "tfrecord":
        raise ValueError(
            f"{builder.data_dir} is in {builder.info.file_format.value} format, which cannot be read here: "
            f"prepare the set again with file_format='array_record'"
        )
    decode = builder.info.features.deserialize_example_np
    return (decode(record) for path in builder.info.splits[split].filepaths for record in read_records(Path(path)))
