"""Writes a set as array_record shards, which `load("array_record", path=...)` streams.

A shard appears under its name when it is whole, and the list of finished shards grows with it, so a preparation that
was ended at any point goes on after the last shard. `fmd.data.records` describes the files.
"""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

from absl import logging

from fmd.data.dataset import ImageDataset
from fmd.data.reading import Unreadable
from fmd.data.records import FORMAT, INDEX, UNFINISHED, Form, Index, Shard, read_index
from fmd.data.split import Split, named
from fmd.data.streaming import StreamedSplit
from fmd.extras import need
from fmd.files import PREFIX, atomic_path, digest, printable, write_json

SHARD_BYTES = 2**29
WRITING = "group_size:1,uncompressed"  # each record is found by itself


def prepare(dataset: ImageDataset, out: Path, *, shard_bytes: int = SHARD_BYTES, quiet: bool = False) -> Index:
    """Writes a set to the folder `out`, or goes on with it; its index.

    Where all is written already, check sums are compared, and damaged shards are written anew. Images that cannot be
    read are left out, and the log says which.

    Args:
        dataset: the set. Of a streamed one, a shard is in memory at a time, beside its test images.
        out: the folder; made where it is not there.
        shard_bytes: of a shard, about.
        quiet: without a progress bar.

    Raises:
        FileExistsError: where `out` holds something else.
        ValueError: for examples of different forms.
    """
    from tqdm import tqdm

    index = _begin(dataset, out, shard_bytes)
    per_shard, total = index.plan["per_shard"], len(dataset.train) + len(dataset.test)
    bar = tqdm(total=total, desc=f"preparing {printable(out.name)}", unit="image", disable=quiet or None)
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, split in (("train", dataset.train), ("test", dataset.test)):
            for number, first in enumerate(range(0, len(split), per_shard)):
                path, rows = out / f"{name}-{number:05d}.array_record", range(first, min(first + per_shard, len(split)))
                known = index.shards.get(path.name)
                if known is None or not path.is_file() or digest(path) != known.digest:
                    examples = pool.map(partial(_example, split, index.form), rows)
                    index.shards[path.name] = _write(path, examples, max(dataset.num_classes, 1))
                    write_json(out / UNFINISHED, asdict(index))
                bar.update(len(rows))
    for name, split in (("train", dataset.train), ("test", dataset.test)):
        if lost := len(split) - sum(shard.records for shard in index.of(name).values()):
            logging.warning("%d of %d %s images cannot be read and are left out", lost, len(split), name)
        if lost == len(split):
            raise ValueError(f"{printable(out)}: no {name} image can be read")
    if (out / UNFINISHED).is_file():
        os.replace(out / UNFINISHED, out / INDEX)
    return index


def _begin(dataset: ImageDataset, out: Path, shard_bytes: int) -> Index:
    """The index of a folder that is new or to be gone on with.

    Raises FileExistsError where it holds another preparation, or anything else.
    """
    form = Form.of(*dataset.test[0])
    plan = {
        "format": FORMAT,
        "image_shape": list(dataset.image_shape),
        "train": len(dataset.train),
        "test": len(dataset.test),
        "per_shard": max(1, shard_bytes // form.dtype.itemsize),
        "digest": dataset.digest(),
    }
    about = {key: getattr(dataset, key) for key in ("name", "num_classes", "class_names", "conditions", "provenance")}
    for file in (out / UNFINISHED, out / INDEX):
        if file.is_file():
            before = read_index(file)
            changed = [f"{k} {before.plan.get(k)}, not {v}" for k, v in plan.items() if before.plan.get(k) != v]
            if changed:
                raise FileExistsError(
                    f"{printable(out)} holds another preparation ({', '.join(changed)}): choose another --out, or "
                    f"remove it"
                )
            return before
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{printable(out)} is a file: choose another --out, the folder to make")
    if out.exists() and any(not one.name.startswith(PREFIX) for one in out.iterdir()):
        raise FileExistsError(f"{printable(out)} holds other files: choose another --out")
    index = Index(plan, about, form, {})
    write_json(out / UNFINISHED, asdict(index))
    return index


def _example(split: Split | StreamedSplit, form: Form, row: int) -> tuple[bytes, int] | None:
    """The record of an example with its label; None where it cannot be read, and the log says why."""
    try:
        image, y = split[row]
    except Unreadable as error:
        logging.warning("%s: left out", error)
        return None
    return form.encode(image, y), int(named(y).get("label", 0))


def _write(path: Path, examples: Iterable[tuple[bytes, int] | None], classes: int) -> Shard:
    """Writes a shard, which appears when it is whole."""
    counts = [0] * classes
    with atomic_path(path, overwrite=True) as temporary:
        writer = need("array_record.python.array_record_module", "stream").ArrayRecordWriter(str(temporary), WRITING)
        for record, label in filter(None, examples):
            writer.write(record)
            counts[label] += 1
        writer.close()
    return Shard(sum(counts), path.stat().st_size, digest(path), counts)
