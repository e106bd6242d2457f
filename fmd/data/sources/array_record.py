"""The source `array_record`: a folder that `--mode=prepare` wrote, streamed.

    python -m fmd.main --mode=prepare --source=folder --config.data.params.path=photos \\
        --config.data.params.image_size=256 --out=photos_256
    load("array_record", path="photos_256")

The training split stays on disk; `fmd.data.records` describes the files.
"""

from pathlib import Path

import numpy as np

from fmd.data.dataset import ImageDataset
from fmd.data.reading import as_batch
from fmd.data.records import AGAIN, INDEX, UNFINISHED, Index, Records, read_index
from fmd.data.sources import register_source
from fmd.data.split import Split, spread
from fmd.data.streaming import StreamedSplit
from fmd.files import digest, expand, printable


@register_source("array_record")
def load_array_record(path: str, test_images: int = 10_000) -> ImageDataset:
    """The set prepared in `path`: its training split streamed, test images in memory.

    Args:
        path: the folder.
        test_images: how many of the test images, evenly spread, where there are more.

    Raises:
        FileNotFoundError: where nothing is prepared there, the preparation is not finished, or a shard is missing.
        ValueError: for a damaged index, and for a shard of another length than the index says.
    """
    folder = expand(path)
    index = _index(folder)
    length = index.form.dtype.itemsize
    train, test = (Records(folder, index.of(split), length) for split in ("train", "test"))
    if test_images < 1:
        raise ValueError(f"array_record: test_images must be at least 1, got {test_images}")
    taken = spread(test_images, len(test)).tolist()
    about, shards = index.about, index.of("train").values()
    height, width, channels = index.form.image_shape
    return ImageDataset(
        about["name"],
        StreamedSplit(
            train,
            (height, width, channels),
            decode=index.form.decode,
            counts=np.sum([shard.counts for shard in shards], axis=0),
            identity=digest(shard.digest.encode() for shard in shards),
        ),
        Split(*as_batch((index.form.decode(test[row]) for row in taken), len(taken))),
        about["num_classes"],
        f"{about['provenance']}, prepared in {printable(folder)}",
        None if about["class_names"] is None else tuple(about["class_names"]),
        about["conditions"],
    )


def _index(folder: Path) -> Index:
    """The index of a finished folder, all of whose shards are there."""
    shown = printable(folder)
    if (folder / UNFINISHED).is_file():
        raise FileNotFoundError(f"{shown} is not finished: run the same command with --mode=prepare again, it goes on")
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(f"{shown} has no {INDEX}: give a folder that --mode=prepare wrote")
    index = read_index(folder / INDEX)
    for name, shard in index.shards.items():
        file = folder / name
        if not file.is_file():
            raise FileNotFoundError(f"{printable(file)} is missing: {AGAIN}, or copy the whole folder")
        if (size := file.stat().st_size) != shard.bytes:
            raise ValueError(f"{printable(file)} has {size} bytes in place of {shard.bytes}: {AGAIN}")
    return index
