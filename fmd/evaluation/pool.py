"""A pool of samples that survives a kill: drawn in chunks, each kept on disk as soon as it is there.

The noise of sample i is a function of (seed, i) alone, so pools of different weights, solvers or averages start from
the same noise, and a smaller pool is the beginning of a larger one.
"""

import hashlib
import json
import time
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm.auto import tqdm

from fmd.data.cache import write_atomically
from fmd.sampling.sampler import Sampler
from fmd.utils.seed import stream

CHUNK = 500


class Pool(NamedTuple):
    """Samples, what was asked for, and what they cost."""

    images: np.ndarray  # uint8 [N, H, W, C]
    labels: np.ndarray  # int32 [N]
    evaluations: np.ndarray  # int32 [N]: calls of the model on one example, both halves of guidance counted
    success: np.ndarray  # bool [N]
    seconds: float  # spent on drawing, compilation included


def draw(sampler: Sampler, count: int, *, seed: int, folder: Path, settings: Mapping[str, Any], quiet: bool) -> Pool:
    """Draws `count` samples, all classes in turn, or goes on with those that `folder` already holds.

    Args:
        sampler: the model.
        count: how many.
        seed: of the noise.
        folder: where the chunks are kept, in a sub-folder named after everything that decides the samples.
        settings: weight, rule, solver, steps, ... as `Sampler.sample` takes them.
        quiet: without a progress bar.
    """
    labels = balanced_labels(count, sampler.num_classes)
    kept = folder / _name(sampler, seed, settings)
    base = stream(seed, "eval")
    chunks = []
    with tqdm(total=count, unit="image", desc="sampling", disable=quiet) as bar:
        for first in range(0, count, CHUNK):
            part = labels[first : first + CHUNK]
            path = kept / f"{first // CHUNK:06d}-{len(part)}.npz"
            chunk = _read(path)
            if chunk is None:
                started = time.perf_counter()
                drawn = sampler.sample(part, jax.random.fold_in(base, first // CHUNK), batch_size=CHUNK, **settings)
                chunk = {**drawn._asdict(), "seconds": np.array(time.perf_counter() - started)}
                write_atomically(path, partial(np.savez, **chunk))  # type: ignore[arg-type]
            chunks.append(chunk)
            bar.update(len(part))
    columns = {key: np.concatenate([c[key] for c in chunks]) for key in ("images", "evaluations", "success")}
    return Pool(labels=labels, seconds=float(sum(c["seconds"] for c in chunks)), **columns)


def balanced_labels(count: int, num_classes: int) -> np.ndarray:
    """All classes in turn, int32 [count]; the null label of an unconditional model."""
    return np.arange(count, dtype=np.int32) % max(num_classes, 1)


def _name(sampler: Sampler, seed: int, settings: Mapping[str, Any]) -> str:
    """A hash of the weights, the config that turns them into images, the seed and the settings."""
    code = hashlib.blake2b(digest_size=12)
    for leaf in jax.tree.leaves(sampler.params):
        code.update(np.asarray(leaf).tobytes())
    config = {key: sampler.facts["config"][key] for key in ("model", "path", "sample")}
    code.update(json.dumps([config, seed, CHUNK, settings], sort_keys=True, default=str).encode())
    return code.hexdigest()


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """A chunk kept before; None where there is none, or a damaged one, which is then drawn again."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
