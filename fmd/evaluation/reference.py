"""What is known of the real images: their features, kept on disk so that a second evaluation need not compute them.

The key is made of the images themselves, the split and the name of the features, so nothing stale is ever used.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from tqdm.auto import tqdm

from fmd.data import ImageDataset, Split, StreamedSplit, batch_indices
from fmd.data.cache import kept_arrays
from fmd.evaluation import features
from fmd.evaluation.distances import Moments, moments
from fmd.evaluation.features import Extractor
from fmd.utils.distributed import make_layout

CLOUD = 10_000  # feature vectors kept beside the moments, for the distances that need them one by one


class Reference(NamedTuple):
    """A split of real images as its features.

    moments   of all images of the split
    cloud     features of up to CLOUD of them in a fixed shuffle, float32, with their labels
    """

    moments: Moments
    cloud: np.ndarray
    labels: np.ndarray


def split_of(dataset: ImageDataset, name: str) -> Split:
    """The split called "train" or "test". Raises ValueError for another name, or a set that is streamed from disk."""
    if name not in ("train", "test"):
        raise ValueError(f"reference {name!r}; choose train or test, or both as train,test")
    split = getattr(dataset, name)
    if isinstance(split, StreamedSplit):
        raise ValueError(f"the train split of {dataset.name} is streamed from disk; use the test split as reference")
    return split


def get(dataset: ImageDataset, name: str, extractor: Extractor, *, quiet: bool) -> Reference:
    """The features of one split of `dataset`, from the cache folder or computed and put there.

    Of several processes each uses its own devices only: one may find in its cache what another has to compute.
    """
    split = split_of(dataset, name)
    layout = make_layout("mesh", devices=jax.local_devices())
    order = batch_indices(0, 0, len(split), len(split))

    def build() -> dict[str, np.ndarray]:
        chunks: list[np.ndarray] = []

        def batches() -> Iterator[np.ndarray]:
            starts = range(0, len(split), features.BATCH)
            for first in tqdm(starts, desc=f"features of the {name} split", unit="batch", disable=quiet):
                yield split.images[order[first : first + features.BATCH]]

        def seen() -> Iterator[np.ndarray]:
            for vectors, _ in features.compute(extractor, batches(), layout):
                if len(chunks) * features.BATCH < CLOUD:
                    chunks.append(vectors)
                yield vectors

        whole = moments(seen())
        cloud = np.concatenate(chunks)[:CLOUD]
        return {
            "count": np.array(whole.count),
            "mean": whole.mean,
            "covariance": whole.covariance,
            "cloud": cloud,
            "labels": split.labels[order[: len(cloud)]],
        }

    identity = ["reference-1", dataset.name, name, extractor.name, CLOUD, _digest(split)]
    kept = kept_arrays(f"features-{dataset.name}-{name}", identity, build)
    whole = Moments(int(kept["count"]), kept["mean"], kept["covariance"])
    return Reference(whole, kept["cloud"], kept["labels"])


def _digest(split: Split) -> str:
    code = hashlib.blake2b(np.ascontiguousarray(split.images).data, digest_size=16)
    code.update(np.ascontiguousarray(split.labels).data)
    return code.hexdigest()
