"""The order: every example once per epoch, a pure function of (seed, step), and the same numbers for ever."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmd.data import batch_indices, dispatch_indices
from fmd.data.order import example_indices, permutation


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**64 - 1), st.integers(1, 40), st.integers(1, 90), st.integers(0, 60))
def test_every_example_is_used_once_per_epoch_across_batch_borders(seed, size, batch_size, step):
    steps = -(-4 * size // batch_size)
    batches = [batch_indices(seed, step + k, batch_size, size) for k in range(steps)]
    flat, first = np.concatenate(batches), step * batch_size
    assert flat.dtype == np.int32
    for epoch in range(-(-first // size), (first + len(flat)) // size):
        np.testing.assert_array_equal(np.sort(flat[epoch * size - first :][:size]), np.arange(size))
    np.testing.assert_array_equal(dispatch_indices(seed, step, steps, batch_size, size), np.stack(batches))


def test_the_order_is_pinned():
    """These numbers must never change: a checkpoint of last year resumes with the order it was trained in."""
    np.testing.assert_array_equal(batch_indices(0, 0, 8, 10), [0, 2, 9, 1, 8, 5, 4, 3])
    np.testing.assert_array_equal(batch_indices(7, 3, 8, 100), [88, 80, 25, 64, 26, 78, 28, 1])


def test_the_order_follows_from_the_raw_words_of_philox():
    size, seed, epoch = 60_000, 3, 5
    words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(size)
    # Sorting by the upper bits with ties in order of index is what the implementation's trick amounts to.
    np.testing.assert_array_equal(permutation(seed, epoch, size), np.argsort(words >> np.uint64(16), kind="stable"))


def test_seeds_and_epochs_differ_and_nothing_depends_on_history():
    size = 1000
    first = example_indices(0, 0, size, size)
    assert (first == example_indices(1, 0, size, size)).mean() < 0.02
    assert (first == example_indices(0, size, size, size)).mean() < 0.02
    np.testing.assert_array_equal(first, example_indices(0, 0, size, size))


def test_positions_are_uniform():
    """Over 4000 epochs of 8 examples each position holds each example 500 times; the variance is 500 * 7/8."""
    counts = np.zeros((8, 8))
    for epoch in range(4000):
        counts[np.arange(8), permutation(11, epoch, 8)] += 1
    # 49 degrees of freedom, up to the factor 8/7: five standard deviations.
    chi2 = (((counts - 500) ** 2) / 500).sum() * 7 / 8
    assert abs(chi2 - 49) < 5 * np.sqrt(2 * 49)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 0, 1, 0), "size of a data set"),
        ((0, 0, 1, 2**31), "size of a data set"),
        ((-1, 0, 1, 5), "seed"),
        ((2**64, 0, 1, 5), "seed"),
        ((0, -1, 1, 5), "negative"),
        ((0, 0, -1, 5), "negative"),
    ],
)
def test_impossible_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        example_indices(*arguments)


def test_a_permutation_is_computed_once_per_epoch():
    permutation.cache_clear()
    batch_indices(0, 0, 256, 1_281_167)
    batch_indices(0, 1, 256, 1_281_167)
    assert permutation.cache_info().misses == 1
