"""Features by name, and the same numbers however they are computed."""

import jax.numpy as jnp
import numpy as np
import pytest

from fmd.data import ImageDataset, Split
from fmd.devices import make_layout
from fmd.evaluation import features, real_features
from fmd.evaluation.features import domain
from tests.helpers import judged, toys


def test_features_do_not_depend_on_batches_or_devices(dataset):
    extractor = features.get("quarters", dataset)
    images = dataset.train.images
    uneven = [images[:1], images[1:14], images[14:]]
    for layout in (make_layout("jit"), make_layout("mesh")):
        parts = list(features.compute(extractor, iter(uneven), layout))
        exact = judged.means_and_shades(extractor.params, images)
        for column in (0, 1):
            np.testing.assert_allclose(np.concatenate([p[column] for p in parts]), exact[column], rtol=1e-6)


def test_reference_features_are_kept_and_belong_to_their_images(dataset, monkeypatch):
    extractor = features.get("quarters", dataset)
    first = real_features.get(dataset, "test", extractor, quiet=True)
    np.testing.assert_allclose(first.moments.mean, first.cloud.mean(axis=0), rtol=1e-6)
    with monkeypatch.context() as patch:
        patch.setattr(features, "compute", None)  # nothing is computed again
        again = real_features.get(dataset, "test", extractor, quiet=True)
        np.testing.assert_array_equal(again.cloud, first.cloud)
    changed = ImageDataset("toy", dataset.train, dataset.train, toys.CLASSES, "other images")
    other = real_features.get(changed, "test", extractor, quiet=True)
    assert other.moments.count == len(dataset.train)


def test_which_features_are_chosen():
    def chosen(name, shape):
        split = Split(np.zeros((1, *shape), np.uint8), np.zeros(1, np.int32))
        return features.name_for(ImageDataset(name, split, split, 10, "made up by the tests"))

    assert chosen("mnist", (32, 32, 1)) == "inception"
    assert chosen("digits", (8, 8, 1)) == "pixels"
    assert chosen("cifar10", (32, 32, 3)) == "inception"


@pytest.mark.parametrize("name", domain.FILES)
def test_a_classifier_judges_only_the_images_that_it_knows(name):
    """A folder may be called mnist and hold other images, or the same classes in another order."""
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28, 1)).astype(np.uint8)
    known = domain.classify(domain.load(name), images).astype(np.int32)

    def named(labels):
        split = Split(images, labels.astype(np.int32))
        return ImageDataset(name, split, split, 10, "made up by the tests")

    assert features.name_for(named(known)) == "domain"
    assert features.get("auto", named(known)).name == f"domain-1 {name}"
    for others in ((known + 1) % 10, 9 - known):
        assert features.name_for(named(others)) == "inception"
        with pytest.raises(ValueError, match=f"the classifier of {name} is right on .* of these test images"):
            features.get("domain", named(others))


def test_automatic_features_are_recorded_by_their_own_name(dataset):
    assert features.get("auto", dataset).name == features.get("pixels", dataset).name == "pixels-1"


def test_blocks_are_means_of_equal_parts():
    def found(images):
        split = Split(images, np.zeros(len(images), np.int32))
        extractor = features.get("blocks", ImageDataset("made", split, split, 1, "made up by the tests"))
        return np.asarray(extractor.apply({}, jnp.asarray(images))[0])

    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, 16, 32, 2), np.uint8)
    means = (images / 127.5 - 1).reshape(3, 8, 2, 8, 4, 2).mean((2, 4))
    np.testing.assert_allclose(found(images), means.reshape(3, -1), atol=1e-6)
    small = random.integers(0, 256, (3, 8, 5, 1), np.uint8)  # all of its pixels
    np.testing.assert_allclose(found(small), (small / 127.5 - 1).reshape(3, -1), atol=1e-6)
    thirds = np.array([0, 90, 255], np.uint8).repeat(4)[None, :, None, None].repeat(9, 2)  # 12 rows in parts of 1.5
    rows = np.array([0, 0, 30, 90, 90, 200, 255, 255]) / 127.5 - 1
    np.testing.assert_allclose(found(thirds).reshape(8, 8)[:, 3], rows, atol=1e-6)


def test_bad_names(dataset):
    with pytest.raises(KeyError, match=r"unknown features 'fid'; .*known: .*auto.* domain.* inception"):
        features.get("fid", dataset)
    with pytest.raises(ValueError, match="domain features are for"):
        features.get("domain", dataset)
    for name in ("auto", "pixels"):
        with pytest.raises(ValueError, match="is already registered"):
            features.register_features(name)(lambda dataset: None)
