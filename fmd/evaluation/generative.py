"""A model judged by what it says of images: their likelihood, their class, how strange they are.

The density is that of the conditional model without guidance: guidance makes a density of its own, not the model's.
The formulas are in `fmd.math`, behind `fmd.sampling.judging`.
"""

import math
import time

import numpy as np

from fmd import data
from fmd.data import ImageDataset, Split, batch_indices
from fmd.math.anomaly import auroc, profile
from fmd.randomness import stream
from fmd.sampling import judging
from fmd.sampling.sampler import Sampler

DRAWS, FIRST, KEEP = 64, 16, 3  # of noise and time for each image; after FIRST of them only KEEP classes go on
WEIGHTING = "precision"  # of the errors: it needs the fewest draws, see experiments/reference/restoration.md

Figures = dict[str, float | int | str | None]


def likelihood(
    sampler: Sampler,
    split: Split,
    *,
    examples: int,
    seed: int,
    draws: int = 1,
    quiet: bool = False,
    batch_size: int = 100,
) -> Figures:
    """Bits per dimension over `examples` images of a split, or all where there are fewer.

    They are the cost of a lossless code for each number of an image. Noise and probe of an image are functions of
    (seed, its number), whatever the batches and devices; `draws` are dequantisations of each.

    Returns:
        {"bits_per_dim", "standard_error", "examples", "unsolved", "draws", "trace"}: images whose solve failed are
        left out and counted; the standard error over images includes the noise of the probes.

    Raises:
        ValueError: for a method without a velocity field.
    """
    chosen = _some(split, examples)
    values = sampler.bits_per_dim(
        chosen.images, chosen.y, stream(seed, "eval"), draws=draws, batch_size=batch_size, quiet=quiet
    )
    solved = values[np.isfinite(values)].astype(np.float64)
    return {
        "bits_per_dim": float(solved.mean()) if len(solved) else None,
        "standard_error": float(solved.std(ddof=1) / math.sqrt(len(solved))) if len(solved) > 1 else None,
        "examples": len(chosen),
        "unsolved": len(chosen) - len(solved),
        "draws": draws,
        "trace": "hutchinson" if draws == 1 else "exact",
    }


def classification(sampler: Sampler, split: Split, *, examples: int, seed: int, quiet: bool = False) -> Figures:
    """Accuracy of the generative classifier on `examples` images of a split, with its draws and its speed."""
    chosen = _some(split, examples)
    start = time.perf_counter()
    keep = min(KEEP, sampler.num_classes)
    scores = sampler.classify(
        chosen.images, stream(seed, "eval"), draws=DRAWS, first=FIRST, keep=keep, weighting=WEIGHTING, quiet=quiet
    )
    seconds = time.perf_counter() - start
    right = scores.argmax(axis=1) == chosen.labels
    return {
        "accuracy": float(right.mean()),
        "examples": len(right),
        "draws": DRAWS,
        "weighting": WEIGHTING,
        "images_per_second": len(right) / seconds,
    }


def strange(sampler: Sampler, source: str) -> ImageDataset:
    """The data set `--against` names. ValueError for an unknown source, or images of another shape than the model's."""
    other = data.load(source)
    if other.image_shape != sampler.image_shape:
        raise ValueError(
            f"--against={source}: its images are {other.image_shape}; the model's are {sampler.image_shape}"
        )
    return other


def anomalies(
    sampler: Sampler, dataset: ImageDataset, other: ImageDataset, *, examples: int, seed: int, quiet: bool = False
) -> Figures:
    """AUROC of test images against those of the data set `other`, a figure for each score.

    `bits`, `simple` (the same turned round), `typicality` and `profile` about the training images (the test images
    where those are streamed), and `reconstruction`: see `fmd.math.anomaly`.
    """
    known = dataset.train if isinstance(dataset.train, Split) else dataset.test  # a streamed split has no order
    kinds = known, dataset.test, other.test
    images = [_some(split, examples).images for split in kinds]
    key = stream(seed, "eval")
    bits = [sampler.bits_per_dim(each, None, key, quiet=quiet) for each in images]
    bits = [each[np.isfinite(each)].astype(np.float64) for each in bits]
    distance = [np.abs(each - bits[0].mean()) for each in bits[1:]]
    lost = [judging.reconstruction(sampler, each, None, key, quiet=quiet).astype(np.float64) for each in images[1:]]
    residuals = [judging.residuals(sampler, each, None, key, quiet=quiet) for each in images]
    profiles = [profile(each, residuals[0]) for each in residuals[1:]]
    return {
        "examples": len(images[1]),
        "bits": auroc(bits[1], bits[2]),
        "simple": auroc(-bits[1], -bits[2]),
        "typicality": auroc(distance[0], distance[1]),
        "reconstruction": auroc(lost[0], lost[1]),
        "profile": auroc(profiles[0], profiles[1]),
    }


def _some(split: Split, examples: int) -> Split:
    """So many images of a split in a fixed shuffle, or all where there are fewer."""
    return split.take(batch_indices(0, 0, min(examples, len(split)), len(split)))
