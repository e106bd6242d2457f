"""Features of real images: a streamed split gives those of the one in memory, batch by batch."""

import dataclasses

import numpy as np

from fmd.data import StreamedSplit
from fmd.evaluation import features, real_features


def arrays(reference):
    return reference.moments.mean, reference.moments.covariance, reference.cloud, reference.labels


def test_a_streamed_reference_is_the_one_in_memory(dataset, monkeypatch):
    monkeypatch.setattr(features, "BATCH", 36)  # does not divide 96
    split = dataset.train
    streamed = dataclasses.replace(
        dataset, train=StreamedSplit(split, split.image_shape, counts=np.bincount(split.labels))
    )
    extractor = features.get("pixels", dataset)
    whole, other = (real_features.get(each, "train", extractor, quiet=True) for each in (dataset, streamed))
    assert whole.moments.count == other.moments.count == len(split)
    for one, two in zip(*map(arrays, (whole, other)), strict=True):
        np.testing.assert_array_equal(one, two)
    found = [real_features.labels_of(each, "train") for each in (dataset, streamed)]
    np.testing.assert_array_equal(*map(np.sort, found))
