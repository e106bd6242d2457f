"""The source `tfds`: any image set of TensorFlow Datasets by name.

A set that is prepared on disk is read without TensorFlow: formats with random access (array_record, parquet) through
TFDS's data sources, and tfrecord, which can only be read from front to back, by the small reader below. A set that is
not prepared yet is prepared in array_record format, for which TensorFlow must be installed.

Further features can be told, with the kinds that they have in the set:

    load("tfds", name="celeb_a", image_size=64, conditions=("attributes",))  # 40 truth values: several labels at once
"""

import difflib
import importlib.util
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from fmd.data import images
from fmd.data.cache import Arrays, fingerprint, kept_arrays
from fmd.data.dataset import ImageDataset
from fmd.data.parts import Asked, asked, specs
from fmd.data.reading import Example, RandomAccess
from fmd.data.sources import register_source
from fmd.data.sources.tfds_features import Builder, Features, keys
from fmd.data.split import Split, condition, split_off, spread
from fmd.data.streaming import StreamedSplit
from fmd.extras import need
from fmd.files import expand

_FORMAT = 2  # of the kept arrays; raise it when the decoding changes


@register_source("tfds")
def load_tfds(
    name: str,
    data_dir: str | None = None,
    image_size: images.Size = None,
    train_split: str = "train",
    test_split: str | None = None,
    test_fraction: float = 0.1,
    stream: bool = False,
    conditions: Asked = (),
    test_images: int = 10_000,
) -> ImageDataset:
    """The set `name` of TFDS, in memory or streamed. Decoded images are kept in the cache folder.

    Args:
        name: `cifar10`, `name:version`, `name/config`.
        data_dir: where prepared sets lie; None for TFDS_DATA_DIR or ~/tensorflow_datasets.
        image_size: as in `fmd.data.images`; None where all images have the same size already.
        train_split: its name.
        test_split: its name; the first of `test` and `validation` that has labels by default, and without those
            `test_fraction` of each class.
        test_fraction: the part of each class that is held out where there is no test split.
        stream: leave the training split on disk; for sets that do not fit into memory. Needs a test split and a format
            with random access.
        conditions: further features that the network is told, of the kinds that `tfds_features` lists. As a mapping,
            their kinds, too, as `fmd.data.parts` describes. Of a streamed split, the range of numbers and the number of
            labels are those of the test split, unless a block says them.
        test_images: of a streamed set, how many of the test images, evenly spread, are kept in memory.

    Raises:
        KeyError: for an unknown set.
        RuntimeError: where the set is not prepared and cannot be.
        ValueError: for an unknown split or feature, a set without images or a format that cannot be read.
    """
    builder, size = _prepared(name, data_dir), images.height_width(image_size)
    told = Features(builder, asked(conditions), size)
    if test_images < 1:
        raise ValueError(f"tfds: test_images must be at least 1, got {test_images}")
    image_key, label_key = keys(builder, told.wanted)
    splits = builder.info.splits
    for split in (train_split, test_split):
        if split is not None and split not in splits:
            raise ValueError(f"TFDS set {name} has no split '{split}': choose from {', '.join(splits)}")

    def read(split: str) -> Split | None:
        """A split decoded; None where labels are missing, which TFDS marks by -1."""
        count = builder.info.splits[split].num_examples
        arrays = _read_split(builder, split, image_key, label_key, size, told, test_images if stream else count)
        if (arrays["labels"] < 0).any():
            return None
        parts = {name: arrays[f"told_{name}"] for name in told.wanted}
        return Split(arrays["images"], condition(arrays["labels"], parts, label_key is not None))

    source = random_access(name, train_split, data_dir) if stream else ()
    test = None
    for split in [test_split] if test_split else [split for split in ("test", "validation") if split in splits]:
        if test := read(split):
            break
        logging.warning("TFDS set %s: split %s has no labels and is not taken", name, split)
    train: Split | StreamedSplit | None
    if stream:
        if test is None:
            raise ValueError(f"TFDS set {name} has no test split, which streaming needs: name one as test_split")

        def decode(example: Example) -> tuple[np.ndarray, Any]:
            label = int(example.get(label_key, 0))
            return example[image_key], condition(label, told.of(example), label_key is not None)

        train = StreamedSplit(source, test.image_shape, size, decode)
    else:
        train = read(train_split)
        if train is None:
            raise ValueError(f"TFDS set {name}: split {train_split} has no labels (-1); choose another train_split")
        if test is None:
            train, test = split_off(train, test_fraction)
    names = tuple(builder.info.features[label_key].names) if label_key else None
    splits = [test.parts] if isinstance(train, StreamedSplit) else [train.parts, test.parts]
    return ImageDataset(
        name=builder.info.name,
        train=train,
        test=test,
        num_classes=len(names) if names else 0,
        provenance=f"from the TFDS set {builder.info.full_name} prepared in {builder.data_dir}",
        class_names=names,
        conditions=specs(told.wanted, splits, len(names or ())),
    )


def random_access(name: str, split: str = "train", data_dir: str | None = None) -> RandomAccess:
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
    source: RandomAccess = builder.as_data_source(split)
    return source


def usual_folder() -> Path:
    """The folder where TFDS keeps prepared sets."""
    return expand(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def prepared_here(name: str) -> list[str]:
    """`name:version` of each version in TFDS's usual folder, the latest first, without a look at TFDS itself."""
    try:
        found = usual_folder().glob(f"{name}/*/dataset_info.json")
    except ValueError:  # a user without a home
        return []
    return sorted((f"{name}:{info.parent.name}" for info in found), reverse=True)


def published_order(split: str, size: int) -> np.ndarray:
    """Position [size] in the published files of each example of a split whose keys were numbers.

    TFDS sorts the examples of a split by the hash of the split's name and the example's key.
    """
    return np.array(sorted(range(size), key=need("tensorflow_datasets.core.hashing", "tfds").Hasher(split).hash_key))


def read_records(path: Path) -> Iterator[bytes]:
    """The records of a tfrecord file: each is its length (uint64), a check sum, data, a check sum.

    Raises ValueError for a file that is cut off.
    """
    with open(path, "rb") as file:
        while header := file.read(12):
            length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else 0
            record = file.read(length + 4)
            if len(header) < 12 or len(record) < length + 4:
                raise ValueError(f"{path} is cut off: prepare the set again")
            yield record[:-4]


def _prepared(name: str, data_dir: str | None) -> Builder:
    """The builder of a set on disk, prepared first where possible."""
    tfds = need("tensorflow_datasets", "tfds")
    data_dir = None if data_dir is None else str(expand(data_dir))
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
            f"pip install 'flow-matching-designs[tensorflow]' and start again, or copy a prepared set there"
        )
    builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    try:
        builder.download_and_prepare()
    except Exception as error:  # whatever the network, the disk or the set's own code raises
        reason = (str(error).splitlines() or [""])[0]
        raise RuntimeError(
            f"TFDS could not prepare {name} in {builder.data_dir}: {type(error).__name__}: {reason}"
        ) from error
    return builder


def _has_random_access(builder: Builder) -> bool:
    file_adapters = need("tensorflow_datasets.core.file_adapters", "tfds")
    return bool(builder.info.available_file_formats() & file_adapters.FileFormat.with_random_access())


def _read_split(
    builder: Builder,
    split: str,
    image_key: str,
    label_key: str | None,
    size: tuple[int, int] | None,
    told: Features,
    most: int,
) -> Arrays:
    """Images, labels and what else is told, `told_NAME`, of one split, kept: to decode 60,000 PNG files takes 11 s.

    Of more than `most` examples so many are taken, evenly spread, which needs random access.
    """
    files = fingerprint(sorted(path for path in Path(builder.data_dir).iterdir() if path.is_file()))
    count = builder.info.splits[split].num_examples
    total = min(most, count)
    identity = ["tfds", _FORMAT, files, split, image_key, label_key, size, *([told.wanted] if told.wanted else [])]
    identity += [total] if total < count else []

    def build() -> Arrays:
        from tqdm import tqdm

        pixels, labels, further = [], [], []
        bar = {"total": total, "desc": f"decoding {split}", "unit": "image", "leave": False, "disable": None}
        for example in tqdm(_examples(builder, split, spread(total, count)), **bar):
            pixels.append(images.fit_array(example[image_key], size))
            labels.append(example[label_key] if label_key else 0)
            further.append(told.of(example))
        if len(pixels) != total:
            raise ValueError(f"{builder.data_dir} is damaged: split {split} has {len(pixels)} of {total} examples")
        if len({image.shape for image in pixels}) > 1:
            raise ValueError(f"TFDS set {builder.info.name} has images of different sizes: set image_size")
        return {"images": np.stack(pixels), "labels": np.array(labels, np.int32)} | told.stacked(further)

    return kept_arrays(f"{builder.info.name}-{split}", identity, build)


def _examples(builder: Builder, split: str, rows: np.ndarray) -> Iterable[dict[str, Any]]:
    """The examples of these rows; of all where there is no random access."""
    if _has_random_access(builder):
        source = builder.as_data_source(split)
        # Reading many at a time is twice as fast: neighbours share a compressed block.
        blocks = (rows[first : first + 1024].tolist() for first in range(0, len(rows), 1024))
        return (example for block in blocks for example in source.__getitems__(block))
    if builder.info.file_format.value != "tfrecord":
        raise ValueError(
            f"{builder.data_dir} is in {builder.info.file_format.value} format, which cannot be read here: "
            f"prepare the set again with file_format='array_record'"
        )
    decode = builder.info.features.deserialize_example_np
    return (decode(record) for path in builder.info.splits[split].filepaths for record in read_records(Path(path)))
