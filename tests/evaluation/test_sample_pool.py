"""Pools of samples: kept on disk, gone on with, and never mistaken for others."""

from unittest import mock

import numpy as np
import pytest

from fmd.data import Split
from fmd.evaluation import sample_pool
from fmd.evaluation.labels import choose_labels
from fmd.sampling.sampler import Sampler, Samples
from tests.helpers import judged, toys


@pytest.fixture
def draw(sampler, dataset, settings, tmp_path):
    def draw(count, like=None, settings=settings, **changes):
        asked = {"seed": 3, "folder": tmp_path, "quiet": True, "chunk": 8, **changes}
        return sample_pool.draw(sampler, dataset.test, choose_labels(count, toys.CLASSES, like), settings, **asked)

    return draw


def test_an_interrupted_pool_goes_on(draw, tmp_path):
    whole = draw(24)
    files = sorted(tmp_path.glob("*/*.npz"))
    assert len(files) == 3
    files[1].unlink()
    files[2].write_bytes(files[2].read_bytes()[:100])  # damaged
    with mock.patch.object(Sampler, "sample", autospec=True, side_effect=Sampler.sample) as drawing:
        again = draw(24)
    assert drawing.call_count == 2
    np.testing.assert_array_equal(again.images, whole.images)


def test_a_smaller_pool_is_the_beginning_of_a_larger_one(draw):
    whole = draw(24)
    with mock.patch.object(Sampler, "sample", side_effect=AssertionError("drawn again")):
        np.testing.assert_array_equal(draw(16).images, whole.images[:16])


def test_what_decides_the_samples_decides_the_pool(draw, settings):
    first = draw(8).images
    for other in (draw(8, seed=4), draw(8, settings=settings.replace(weight=1.0)), draw(8, np.int32([1, 2]))):
        assert (other.images != first).any()
    np.testing.assert_array_equal(draw(8).images, first)


def test_more_than_labels_is_told_as_real_images_have_it(dataset, settings, tmp_path):
    styles = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    split = Split(dataset.test.images, {"label": dataset.test.labels, "style": styles})
    seen = []

    class Told(Sampler):
        """A sampler that notes what it is told."""

        def __init__(self):
            spec = {"label": {"kind": "label", "num_classes": 4}, "style": {"kind": "vector", "size": 2}}
            self.info, self.params = judged.make_info().replace(conditions=spec), {}

        def sample(self, y, key, settings, *, batch_size):
            seen.append(y)
            count = len(y["label"])
            return Samples(np.zeros((count, 8, 8, 1), np.uint8), np.ones(count, np.int32), np.ones(count, bool))

    labels = np.int32([3, 1, 3, 0])
    drawn = sample_pool.draw(Told(), split, labels, settings, seed=0, folder=tmp_path, quiet=True)
    np.testing.assert_array_equal(drawn.labels, labels)
    (y,) = seen
    np.testing.assert_array_equal(y["label"], labels)
    for label, style in zip(labels, y["style"], strict=True):
        assert (styles[dataset.test.labels == label] == style).all(axis=1).any()
    assert (y["style"][0] != y["style"][2]).any()  # another image of the class
