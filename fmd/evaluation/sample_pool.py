"""A pool of samples that survives a kill: each chunk is kept on disk as soon as it is drawn.

The noise of sample i is a function of (seed, i) alone. Pools of different weights, solvers or averages start from the
same noise, and a smaller pool is the beginning of a larger one.
"""

import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Int32, UInt8
from tqdm.auto import tqdm

from fmd.blocks import as_plain
from fmd.config import Settings
from fmd.data import Split
from fmd.data.cache import Arrays, kept
from fmd.files import digest
from fmd.randomness import stream
from fmd.sampling.sampler import Sampler
from fmd.telling import rows_like, tell_rows
from fmd.types import Condition, TypedKey

CHUNK = 500


class Pool(NamedTuple):
    """Samples, the labels that were asked for, and their cost.

    `evaluations` counts calls of the network on one example, both halves of guidance; `seconds` include compilation.
    """

    images: UInt8[np.ndarray, "N H W C"]
    labels: Int32[np.ndarray, " N"]
    evaluations: Int32[np.ndarray, " N"]
    success: Bool[np.ndarray, " N"]
    seconds: float


def draw(
    sampler: Sampler,
    split: Split,
    labels: Int32[np.ndarray, " N"],
    settings: Settings,
    *,
    seed: int,
    folder: Path,
    quiet: bool,
    chunk: int = CHUNK,
) -> Pool:
    """Draws a sample for each label, or goes on with those that `folder` already holds.

    There chunks of so many samples are kept, in a sub-folder named after everything that decides them. A model that is
    told more than a label is told what goes with an image of that label in `split`.
    """
    rows = rows_like(split, labels)
    place, base = folder / _name(sampler, settings, seed, chunk), stream(seed, "eval")
    chunks = []
    with tqdm(total=len(labels), unit="image", desc="sampling", disable=quiet) as bar:
        for number, first in enumerate(range(0, len(labels), chunk)):
            here = slice(first, first + chunk)
            part = tell_rows(sampler.info, split, rows[here], labels[here])
            path = place / f"{number:06d}-{digest(_bytes(part))[:16]}.npz"
            key = jax.random.fold_in(base, number)
            chunks.append(kept(path, partial(_draw_chunk, sampler, part, key, settings, chunk)))
            bar.update(len(chunks[-1]["images"]))
    joined = {key: np.concatenate([c[key] for c in chunks]) for key in ("images", "evaluations", "success")}
    return Pool(labels=labels, seconds=float(sum(c["seconds"] for c in chunks)), **joined)


def _draw_chunk(sampler: Sampler, y: Condition, key: TypedKey, settings: Settings, size: int) -> Arrays:
    started = time.perf_counter()
    drawn = sampler.sample(y, key, settings, batch_size=size)
    return {**drawn._asdict(), "seconds": np.array(time.perf_counter() - started)}


def _name(sampler: Sampler, settings: Settings, seed: int, chunk: int) -> str:
    """A digest of the weights, of the config that turns them into images, of the settings and the seed."""
    config = as_plain(sampler.info.config)
    said = [config["model"], config["method"], config["path"], as_plain(settings), seed, chunk]
    return digest([json.dumps(said, sort_keys=True).encode(), *_bytes(sampler.params)])[:24]


def _bytes(tree: object) -> Iterator[bytes]:
    return (np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))
