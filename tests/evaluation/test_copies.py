"""Copies of training images are told from images that are merely as good as real ones."""

import copy

import numpy as np
import pytest

from fmd.data import ImageDataset, Split, StreamedSplit
from fmd.evaluation.copies import copies, nearest_squares


def random_set(train=300, test=200, twins=0, shape=(8, 8, 1), seed=0):
    """Noise; the first `twins` test images are training images."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (train + test, *shape)).astype(np.uint8)
    images[train : train + twins] = images[:twins]
    labels = np.zeros(train + test, np.int32)
    splits = Split(images[:train], labels[:train]), Split(images[train:], labels[train:])
    return ImageDataset("noise", *splits, 1, "made up by the tests")


def test_a_model_that_repeats_its_training_images_is_noticed(dataset):
    found = copies(dataset.train.images, dataset)
    assert found["copied"] == 1
    assert found["nearest_ratio"] == 0


@pytest.mark.parametrize("twins", [0, 1, 2, 3, 20, 120])
def test_twins_of_training_images_in_the_test_split_hide_no_copies(twins):
    """As soon as 1 % of the test images had a twin, nothing counted as a copy any more."""
    data = random_set(twins=twins)
    assert copies(data.train.images, data)["copied"] == 1
    as_good = copies(data.test.images, data)
    assert as_good["copied"] == as_good["copied_of_real"] >= max(0.01, twins / 200)
    unseen = np.random.default_rng(9).integers(0, 256, (200, 8, 8, 1)).astype(np.uint8)
    assert copies(unseen, data)["copied"] <= 0.05
    assert (as_good["nearest_ratio"] is None) == (twins == 120)


def test_equal_images_have_distance_zero_and_all_distances_are_exact():
    data = random_set(shape=(28, 28, 3))
    some, among = data.test.images[:50], data.train.images
    flat = [images.reshape(len(images), -1).astype(np.int64) for images in (some, among)]
    exact = np.square(flat[0][:, None] - flat[1][None]).sum(axis=2).min(axis=1)
    np.testing.assert_array_equal(nearest_squares(some, among), exact)
    np.testing.assert_array_equal(nearest_squares(among[:9], among), 0)
    few = nearest_squares(some, among, at_once=7 * 4 * 28 * 28 * 3)  # seven images at a time
    np.testing.assert_array_equal(few, exact)


def test_large_images_are_never_held_as_float32_all_at_once(monkeypatch):
    """10,000 training images of 256 x 256 pixels would be 8 GB."""
    held = []
    squares = np.zeros((1, 1), np.float32)

    def watched(x, y):
        held.append(x.nbytes + y.nbytes)
        yield slice(0, len(x)), squares

    monkeypatch.setattr("fmd.evaluation.copies.squared_distances", watched)
    images = np.zeros((400, 256, 256, 3), np.uint8)
    nearest_squares(images[:1], images)
    assert max(held) <= 2**26 + 4 * 256 * 256 * 3


def test_samples_in_the_order_of_their_classes_are_searched_all_over(dataset):
    images = np.concatenate([np.zeros_like(dataset.train.images), dataset.train.images])  # the first half are none
    assert 0.2 < copies(images, dataset, among=20)["copied"] < 0.8


def test_nothing_is_said_of_a_streamed_set(dataset):
    streamed = copy.copy(dataset)
    object.__setattr__(streamed, "train", object.__new__(StreamedSplit))
    assert copies(dataset.test.images, streamed) == {}
