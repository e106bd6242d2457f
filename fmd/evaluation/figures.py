"""All figures of a set of samples: distances to real images, classes, diversity, copies."""

from collections.abc import Mapping
from typing import TypeGuard

import numpy as np
from jaxtyping import Float, Int, UInt8

from fmd.blocks import Plain
from fmd.data import ImageDataset
from fmd.devices import Layout
from fmd.evaluation import background, classes, features
from fmd.evaluation.copies import copies
from fmd.evaluation.features import Extractor
from fmd.evaluation.metrics import frechet_distance, kernel_distance, moments, neighbourhoods
from fmd.evaluation.real_features import Reference

Logits = Float[np.ndarray, "N K"]


def measure(
    images: UInt8[np.ndarray, "N H W C"],
    labels: Int[np.ndarray, " N"],
    dataset: ImageDataset,
    real: Mapping[str, Reference],
    extractor: Extractor,
    layout: Layout,
) -> Plain:
    """The figures of samples with the labels that were asked for; those of a reference split are under its name."""
    vectors, logits = next(features.compute(extractor, iter([images]), layout))
    figures: Plain = {}
    own = moments([vectors])
    for name, split in real.items():
        kernel, error = kernel_distance(vectors, split.cloud)
        figures[name] = {
            "fid": frechet_distance(own, split.moments),
            "kid": kernel,
            "kid_standard_error": error,
            **neighbourhoods(split.cloud, vectors),
            "diversity": classes.diversity(vectors, labels),
            "diversity_of_real": classes.diversity(split.cloud, split.labels),
        }
    if logits is not None:
        figures["class_score"] = classes.score(logits)
    if knows_classes(logits, dataset):
        figures |= classes.accuracy(logits, labels)
    return figures | background.measure(images, dataset.test.images) | copies(images, dataset)


def knows_classes(logits: Logits | None, dataset: ImageDataset) -> TypeGuard[Logits]:
    """True where the features classify images as the classes of the data set, as Inception's do not."""
    return logits is not None and logits.shape[1] == dataset.num_classes
