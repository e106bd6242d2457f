"""Images made from images: conditions from three places, figures against the truth, and the picture."""

import dataclasses

import jax
import numpy as np
import pytest

from fmd.devices import make_layout
from fmd.evaluation import evaluate, paired, verify
from fmd.pictures.grids import as_image
from fmd.sampling import checks, inputs
from fmd.sampling.sampler import Sampler, Samples
from tests.helpers import judged, toys

LOW = {"name": "block_average", "factor": 2}
COUNT = 6


def make_sampler(**data):
    info = judged.make_info(
        model=toys.UNET, data={"derive": {"low": LOW}, **data}, sample={"steps": 1, "guidance": {"weight": 1.0}},
        train={"part_dropout": {"low": 0.1}},
    )  # fmt: skip
    return judged.make_sampler(info, make_layout("jit"))


@pytest.fixture(scope="module")
def sampler():
    return make_sampler(told=["low"])


@pytest.fixture(scope="module")
def dataset():
    return toys.dataset()


def test_the_condition_of_a_test_image_is_made_of_it(sampler, dataset):
    asked = inputs.of_test_images(sampler.info, dataset, COUNT)
    means = asked.truth.reshape(COUNT, 4, 2, 4, 2, 1).astype(np.float32).mean(axis=(2, 4)) / 127.5 - 1
    np.testing.assert_allclose(asked.y["low"], means, atol=1e-6)
    assert asked.y.keys() == {"low"}
    np.testing.assert_array_equal(asked.labels, dataset.test.labels[: len(dataset.test)][_rows(asked, dataset)])


def _rows(asked, dataset):
    return [int(np.flatnonzero((dataset.test.images == image).all(axis=(1, 2, 3)))[0]) for image in asked.truth]


def test_images_and_conditions_of_ones_own(sampler, dataset, tmp_path):
    images = dataset.test.images[:3]
    np.savez(tmp_path / "images.npz", images=images)
    made = inputs.of_images(sampler.info, tmp_path / "images.npz", 2)
    assert len(made) == 2
    np.testing.assert_array_equal(made.truth, images[:2])
    np.savez(tmp_path / "low.npz", low=made.y["low"])
    given = inputs.of_conditions(sampler.info, tmp_path / "low.npz", 5)
    assert given.truth is None
    np.testing.assert_array_equal(given.y["low"], made.y["low"])
    for i in range(3):
        as_image(images[i, :4, :4]).save(tmp_path / f"{i}.png")
    folder = inputs.of_conditions(sampler.info, tmp_path, 3)
    np.testing.assert_array_equal(folder.y["low"], images[:, :4, :4])
    with pytest.raises(ValueError, match="has no array 'low'; the model is told low"):
        inputs.of_conditions(sampler.info, tmp_path / "images.npz", 5)


def test_a_label_is_told_only_to_who_hears_it(sampler, dataset):
    def threes(count):
        return np.full(count, 3, np.int32)

    with pytest.raises(ValueError, match="this model is not told a label"):
        inputs.of_test_images(sampler.info, dataset, COUNT, threes)
    both = make_sampler()
    np.testing.assert_array_equal(inputs.of_test_images(both.info, dataset, COUNT, threes).y["label"], [3] * COUNT)
    own = inputs.of_test_images(both.info, dataset, COUNT)
    np.testing.assert_array_equal(own.y["label"], own.labels)


def test_pairs_are_judged_without_features_that_do_not_know_their_classes(sampler, dataset, monkeypatch):
    """Inception's weights are a download, and it does not know the classes of one's own pairs."""
    monkeypatch.setattr(paired.features, "name_for", lambda dataset: "inception")
    monkeypatch.setattr(paired.features, "get", lambda *_: pytest.fail("features were asked for"))
    found = paired.measure(sampler, dataset, sampler.settings, examples=COUNT, draws=3, seed=0, quiet=True)
    assert found["psnr_of_draw"] > 0
    assert not any(name.startswith("accuracy") for name in found)


def test_draws_are_compared_with_the_truth(sampler, dataset):
    found = paired.measure(sampler, dataset, sampler.settings, examples=COUNT, draws=3, seed=0, quiet=True)
    asked = inputs.of_test_images(sampler.info, dataset, COUNT)
    drawn = inputs.draw(sampler, asked, jax.random.key(0), sampler.settings, draws=3, quiet=True)
    assert drawn.images.shape == (3 * COUNT, 8, 8, 1)
    assert (drawn.images[0] != drawn.images[1]).any()
    assert found["images"] == COUNT
    assert found["draws"] == 3
    assert found["psnr_of_condition"] > found["psnr_of_mean"] > found["psnr_of_draw"]
    assert found["ssim_of_draw"] is None  # eight pixels are fewer than its window
    grid = inputs.picture(sampler.info, asked, drawn.images, draws=3, scale=1)
    assert grid.shape[1] == 5 * 10 + 2


def test_a_published_row_of_them_is_repeated(sampler, dataset, tmp_path):
    request = evaluate.Request(n_samples=80, references=("train",), paired_examples=COUNT, paired_draws=3)
    row = evaluate.evaluate(sampler, dataset, request, sampler.settings, folder=tmp_path, quiet=True)
    compared = verify.verify(sampler, dataset, row, folder=tmp_path, quiet=True)
    assert {each.name for each in compared} >= {"train.fid", "paired.psnr_of_draw", "paired.psnr_of_mean"}
    assert all(each.found == each.published for each in compared)


def test_draws_of_one_condition_stand_side_by_side():
    class Echo(Sampler):
        """A sampler whose images are what it is told."""

        def __init__(self):
            pass

        def sample(self, y, key, settings, *, params, quiet):
            return Samples(y["low"], np.ones(len(y["low"]), np.int32), np.ones(len(y["low"]), bool))

    low = np.arange(2, dtype=np.uint8).reshape(2, 1, 1, 1)
    asked = inputs.Inputs({"low": low}, np.zeros(2, np.int32))
    drawn = inputs.draw(Echo(), asked, jax.random.key(0), draws=3)
    np.testing.assert_array_equal(drawn.images.ravel(), [0, 0, 0, 1, 1, 1])


def test_a_model_that_is_told_no_image_is_refused_before_it_draws(dataset, tmp_path):
    sampler = judged.make_sampler(layout=make_layout("jit"))
    request = evaluate.Request(n_samples=40, paired_examples=2)
    with pytest.raises(ValueError, match="this model is told no image"):
        evaluate.evaluate(sampler, dataset, request, sampler.settings, folder=tmp_path, quiet=True)
    assert not list(tmp_path.iterdir())


def test_similarity_is_that_of_the_paper():
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 1), np.uint8)
    assert paired.ssim(images, images) == 1.0
    flat = np.full_like(images, 100)
    other = np.full_like(images, 120)
    c1 = (0.01 * 255) ** 2
    luminance = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    np.testing.assert_allclose(paired.ssim(flat, other), luminance, rtol=1e-6)


def test_weights_of_parts_are_checked(sampler):
    def with_weights(**more):
        return sampler.settings.replace(guidance={"name": "cfg", "weight": 1.0, **more})

    checks.check(sampler.method, sampler.info, with_weights(weights={"low": 2.0}))
    wrong = {
        r"guidance\.weights names 'high'; the model is told low": {"weights": {"high": 2.0}},
        r"guidance\.weights\.low = '2'; it must be a number": {"weights": {"low": "2"}},
        r"guidance weight 2\.0 beside guidance\.weights": {"weights": {"low": 2.0}, "weight": 2.0},
        r"guidance\.weights = 2\.0; name a part": {"weights": 2.0},
    }
    for message, more in wrong.items():
        with pytest.raises(ValueError, match=message):
            checks.check(sampler.method, sampler.info, with_weights(**more))
    never = dataclasses.replace(sampler.info.config.train, part_dropout={}, label_dropout=0.1)
    both = make_sampler().info
    both = both.replace(config=dataclasses.replace(both.config, train=never))
    with pytest.raises(ValueError, match=r"needs a model that was trained without 'low' at times"):
        checks.check(sampler.method, both, with_weights(weights={"low": 2.0}))


def test_weights_of_parts_are_drawn_with(sampler, dataset):
    asked = inputs.of_test_images(sampler.info, dataset, 2)
    key = jax.random.key(0)
    drawn = sampler.sample(asked.y, key, weight=1.0, guidance={"name": "cfg", "weights": {"low": 2.0}}, steps=1)
    usual = sampler.sample(asked.y, key, weight=2.0, steps=1)
    np.testing.assert_array_equal(drawn.images, usual.images)  # one part alone: the weight of all
    np.testing.assert_array_equal(drawn.evaluations, usual.evaluations)
