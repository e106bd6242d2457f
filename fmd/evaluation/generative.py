"""A model judged as a classifier and as a judge of anomalies; the formulas are in `fmd.math`."""

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

Figures = dict[str, float | int | str]


def classification(sampler: Sampler, split: Split, *, examples: int, seed: int, quiet: bool = False) -> Figures:
    """Accuracy of the generative classifier on `examples` images of a split, with its draws and its speed."""
    chosen = split.take(batch_indices(0, 0, min(examples, len(split)), len(split)))
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


def anomalies(
    sampler: Sampler, dataset: ImageDataset, against: str, *, examples: int, seed: int, quiet: bool = False
) -> Figures:
    """AUROC of test images against those of the data source `against`, a figure for each score.

    `bits`, `simple` (the same turned round), `typicality` and `profile` about the training images (the test images
    where those are streamed), and `reconstruction`: see `fmd.math.anomaly`. ValueError for images of another shape.
    """
    other = data.load(against)
    if other.image_shape != sampler.image_shape:
        raise ValueError(
            f"--against={against}: its images are {other.image_shape}; the model's are {sampler.image_shape}"
        )
    known = dataset.train if isinstance(dataset.train, Split) else dataset.test  # a streamed split has no order
    kinds = known, dataset.test, other.test
    images = [split.take(batch_indices(0, 0, min(examples, len(split)), len(split))).images for split in kinds]
    key = stream(seed, "eval")
    bits = [sampler.bits_per_dim(each, None, key, quiet=quiet) for each in images]
    bits = [each[np.isfinite(each)].astype(np.float64) for each in bits]
    distance = [np.abs(each - bits[0].mean()) for each in bits[1:]]
    lost = [judging.reconstruction(sampler, each, None, key, quiet=quiet).astype(np.float64) for each in images[1:]]
    residuals = [judging.residuals(sampler, each, None, key, quiet=quiet) for each in images]
    profiles = [profile(each, residuals[0]) for each in residuals[1:]]
    return {
        "against": against,
        "examples": len(images[1]),
        "bits": auroc(bits[1], bits[2]),
        "simple": auroc(-bits[1], -bits[2]),
        "typicality": auroc(distance[0], distance[1]),
        "reconstruction": auroc(lost[0], lost[1]),
        "profile": auroc(profiles[0], profiles[1]),
    }
