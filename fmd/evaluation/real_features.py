"""Features of the real images, kept on disk so that a second evaluation need not compute them.

The key is made of the images themselves, the split and the name of the features, so nothing stale is ever used.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float32, Int32, UInt8
from tqdm.auto import tqdm

from fmd.data import ImageDataset, Split, StreamedSplit, batch_indices
from fmd.data.cache import kept_arrays
from fmd.devices import make_layout
from fmd.evaluation import features
from fmd.evaluation.features import Extractor
from fmd.evaluation.metrics import Moments, moments
from fmd.files import digest

CLOUD = 10_000  # feature vectors kept beside the moments, for the distances that need them one by one


class Reference(NamedTuple):
    """A split of real images as its features.

    moments   of all images of the split
    cloud     features of up to CLOUD of them in a fixed shuffle, with their labels
    """

    moments: Moments
    cloud: Float32[np.ndarray, "N D"]
    labels: Int32[np.ndarray, " N"]


def split_of(dataset: ImageDataset, name: str) -> Split | StreamedSplit:
    """The split called "train" or "test". Raises ValueError for another name."""
    if name not in ("train", "test"):
        raise ValueError(f"reference {name!r}; choose train or test, or both as train,test")
    return dataset.train if name == "train" else dataset.test


def labels_of(dataset: ImageDataset, name: str) -> Int32[np.ndarray, " N"]:
    """The labels of a split; of a streamed one in some order, or each class once where it is not counted."""
    split = split_of(dataset, name)
    if isinstance(split, Split):
        return split.labels
    classes = np.arange(max(dataset.num_classes, 1), dtype=np.int32)
    return classes if split.counts is None else np.repeat(classes, split.counts)


def references(
    dataset: ImageDataset,
    names: Sequence[str],
    extractor: Extractor,
    *,
    samples: int,
    named: str = "n_samples",
    quiet: bool,
) -> dict[str, Reference]:
    """The features of the splits called "train", "test", or both.

    So many `samples` are going to be compared with them, as the setting `named` says, which a message names.

    Raises:
        ValueError: where the samples or the images of a split are too few for the covariance of the features.
    """
    image = jax.ShapeDtypeStruct((1, *dataset.image_shape), np.uint8)
    size = jax.eval_shape(extractor.apply, extractor.params, image)[0].shape[1]
    if samples <= size:
        raise ValueError(f"{named}={samples} is too few for {size} features; draw more than {size}")
    for name in names:
        if (count := len(split_of(dataset, name))) <= size:
            raise ValueError(
                f"the {name} split's {count} images are too few for {size} features; "
                f"compare with a larger split, or by smaller features"
            )
    return {name: get(dataset, name, extractor, quiet=quiet) for name in names}


def get(dataset: ImageDataset, name: str, extractor: Extractor, *, quiet: bool) -> Reference:
    """The features of one split of `dataset`, from the cache folder or computed and put there.

    Of several processes each uses its own devices only: one may find in its cache what another has to compute.
    """
    split = split_of(dataset, name)
    layout = make_layout("mesh", devices=jax.local_devices())

    def build() -> dict[str, np.ndarray]:
        chunks: list[np.ndarray] = []
        labels: list[np.ndarray] = []

        def batches() -> Iterator[UInt8[np.ndarray, "B H W C"]]:
            total = -(-len(split) // features.BATCH)
            bar = {"desc": f"features of the {name} split", "unit": "batch", "disable": quiet}
            for images, told in tqdm(_shuffled(split), total=total, **bar):
                labels.append(told)
                yield images

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
            "labels": np.concatenate(labels)[: len(cloud)],
        }

    identity = ["reference-1", dataset.name, name, extractor.name, CLOUD, _digest(split)]
    kept = kept_arrays(f"features-{dataset.name}-{name}", identity, build)
    whole = Moments(int(kept["count"]), kept["mean"], kept["covariance"])
    return Reference(whole, kept["cloud"], kept["labels"])


def _shuffled(split: Split | StreamedSplit) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All images of a split once with their labels, in batches, in the same order wherever they lie."""
    count = len(split)
    if isinstance(split, Split):
        order = batch_indices(0, 0, count, count)
        for first in range(0, count, features.BATCH):
            rows = order[first : first + features.BATCH]
            yield split.images[rows], split.labels[rows]
        return
    with contextlib.closing(split.stream(batch_size=min(features.BATCH, count), seed=0)) as batches:
        for first in range(0, count, features.BATCH):
            images, y = next(batches)
            left = min(count - first, len(images))
            labels = y.get("label", np.zeros(len(images), np.int32)) if isinstance(y, dict) else y
            yield images[:left], labels[:left]


def _digest(split: Split | StreamedSplit) -> str:
    """The digest of a split: of all images and labels, or of what stands for them where they are streamed."""
    if isinstance(split, StreamedSplit):
        return digest([str(len(split)).encode(), *split.pieces()])
    return digest(np.ascontiguousarray(array).data for array in (split.images, split.labels))
