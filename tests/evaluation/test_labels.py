"""The classes that are asked for: as often as they occur, whatever the number of samples."""

import numpy as np
import pytest

from fmd.evaluation.labels import choose_labels


def test_all_classes_in_turn():
    np.testing.assert_array_equal(choose_labels(7, 3), [0, 1, 2, 0, 1, 2, 0])
    np.testing.assert_array_equal(choose_labels(3, 0), [0, 0, 0])
    assert choose_labels(3, 3).dtype == np.int32


@pytest.mark.parametrize(
    "counts",
    [
        [100, 10, 10, 10],  # one class ten times as frequent
        [3, 0, 1],  # a class without images
        [5],
        [1, 1, 1, 997],
        list(np.random.default_rng(0).integers(1, 1000, 50)),
    ],
)
def test_classes_are_asked_for_as_often_as_they_occur(counts):
    counts = np.array(counts)
    like = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts), dtype=np.int32), counts))
    total = int(counts.sum())
    whole = choose_labels(2 * total, len(counts), like)
    np.testing.assert_array_equal(np.bincount(whole, minlength=len(counts)), 2 * counts)
    for count in (1, 7, total // 3 + 1):
        asked = choose_labels(count, len(counts), like)
        np.testing.assert_array_equal(asked, whole[:count])  # a smaller request is the beginning of a larger one
        assert (np.bincount(asked, minlength=len(counts)) < count * counts / total + 1).all()


def test_equal_frequencies_are_all_classes_in_turn():
    like = np.repeat(np.arange(5, dtype=np.int32), 8)
    np.testing.assert_array_equal(choose_labels(17, 5, like), choose_labels(17, 5))
