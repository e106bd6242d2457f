"""The evaluator on a toy whose answers are known: features that are means, classes that are shades."""

import copy
import dataclasses
import json

import numpy as np
import pytest

from fmd.blocks import as_plain
from fmd.data import ImageDataset, Split
from fmd.devices import make_layout
from fmd.evaluation import evaluate, features, real_features, sample_pool
from fmd.evaluation.evaluate import Request
from fmd.evaluation.figures import measure
from fmd.evaluation.metrics import frechet_distance, moments
from tests.helpers import judged, toys
from tests.helpers.judged import REQUEST, SHADES, means_and_shades


@pytest.fixture(scope="module")
def result(sampler, dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    trained = copy.copy(sampler)
    trained.info = sampler.info.replace(cost={"flops": 6e12, "utilisation": 0.3})
    return evaluate.evaluate(trained, dataset, REQUEST, sampler.settings, folder=folder, quiet=True)


def test_every_setting_that_decides_a_figure_stands_beside_it(result, sampler):
    settings = result["settings"]
    expected = {"n_samples": 32, "seed": 0, "features": "quarters-1", "solver": "euler", "steps": 2, "weight": 2.0}
    expected |= {"classes": "test", "average": "decay0", "step": 8, "tolerance": None, "grid": {"name": "uniform"}}
    assert {key: settings[key] for key in expected} == expected
    assert settings["sample"] == as_plain(sampler.settings)
    assert settings["method"] == {"name": "flow_matching"}
    assert settings["references"] == ["test", "train"]
    assert (settings["data"], settings["neighbours"], settings["validation_examples"]) == ("toy", 5, 40)
    assert settings["reference_images"] == settings["neighbours_among"] == {"test": 40, "train": 96}
    assert result["cost"]["evaluations_per_image"] == 4
    assert (result["cost"]["training_flops"], result["cost"]["training_utilisation"]) == (6e12, 0.3)
    assert json.loads(json.dumps(result)) == result
    assert "test.fid" in evaluate.table(result)


def test_the_figures_are_those_of_the_samples(result, sampler, dataset, settings, tmp_path):
    labels = evaluate.labels_of(REQUEST, dataset)
    drawn = sample_pool.draw(sampler, dataset.test, labels, settings, seed=0, folder=tmp_path, quiet=True)
    vectors = np.asarray(means_and_shades({"shades": SHADES}, drawn.images)[0])
    real = np.asarray(means_and_shades({"shades": SHADES}, dataset.test.images)[0])
    found = result["figures"]["test"]["fid"]
    assert found == pytest.approx(frechet_distance(moments([vectors]), moments([real])), rel=1e-5)
    assert result["figures"]["validation_loss"] > 0


def measured(images, labels, dataset, name="quarters", references=("test",)):
    extractor = features.get(name, dataset)
    real = real_features.references(dataset, references, extractor, samples=len(images), quiet=True)
    return measure(images, labels, dataset, real, extractor, make_layout())


def test_real_images_are_judged_perfect(dataset):
    found = measured(dataset.test.images, dataset.test.labels, dataset)
    assert found["class_accuracy"] == 1
    assert found["test"]["fid"] == pytest.approx(0, abs=1e-3)
    assert found["test"]["precision"] == found["test"]["recall"] == 1
    assert found["test"]["diversity"] == pytest.approx(found["test"]["diversity_of_real"], rel=1e-6)
    assert found["nearest_ratio"] == pytest.approx(1)
    assert found["copied"] == found["copied_of_real"] <= 0.03


@pytest.mark.parametrize("reference", ["test", "train"])
def test_a_perfect_model_of_unequal_classes_is_judged_perfect(reference):
    """One class is ten times as frequent. Samples are real images of the classes that are asked for."""
    whole = toys.dataset(1600)
    pools = {label: whole.train.images[whole.train.labels == label] for label in range(toys.CLASSES)}
    unequal = np.repeat(np.arange(toys.CLASSES, dtype=np.int32), [200, 20, 20, 20])

    def images_of(labels, start):
        counts = np.zeros(toys.CLASSES, int) + start
        chosen = []
        for label in labels:
            chosen.append(pools[label][counts[label]])
            counts[label] += 1
        return np.stack(chosen)

    split = Split(images_of(unequal, 200), unequal)
    train = Split(whole.train.images[:96], whole.train.labels[:96]) if reference == "test" else split
    data = ImageDataset("toy", train, split if reference == "test" else whole.test, toys.CLASSES, "unequal classes")
    fid = {}
    for which in ("reference", "balanced"):
        request = Request(n_samples=130, features="quarters", references=(reference,), classes=which)
        labels = evaluate.labels_of(request, data)
        fid[which] = measured(images_of(labels, 0), labels, data, references=(reference,))[reference]["fid"]
    assert fid["reference"] < 20
    assert fid["balanced"] > 20 * fid["reference"]


def test_the_balanced_way_asks_for_all_classes_in_turn(sampler, dataset, settings):
    balanced = dataclasses.replace(REQUEST, classes="balanced", n_samples=6)
    np.testing.assert_array_equal(evaluate.labels_of(balanced, dataset), [0, 1, 2, 3, 0, 1])
    assert evaluate.settings_of(sampler, balanced, settings)["classes"] == "balanced"
    with pytest.raises(ValueError, match="classes = 'equal'; it must be one of reference, balanced"):
        Request(classes="equal")


@pytest.mark.parametrize(("balanced", "like"), [("balanced", [1, 3]), ("reference", [1, 1, 3])])
def test_classes_without_training_images_are_not_asked_for(balanced, like):
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), np.uint8)
    train, test = Split(images, np.int32([1, 3, 1, 3, 1, 3])), Split(images, np.int32([1, 2, 3, 1, 2, 2]))
    gaps = ImageDataset("gaps", train, test, 5, "made up")
    asked = evaluate.labels_of(evaluate.Request(n_samples=6, classes=balanced), gaps)
    np.testing.assert_array_equal(np.sort(asked), np.sort(np.resize(like, 6)))


def test_a_model_that_is_told_more_than_labels_is_judged(dataset, tmp_path):
    def told(split):
        style = split.images.reshape(len(split), -1)[:, :2].astype(np.float32)
        return Split(split.images, {"label": split.labels, "style": style})

    data = ImageDataset("toy", told(dataset.train), told(dataset.test), toys.CLASSES, "told more")
    info = judged.make_info(data, model=toys.UNET, sample={"steps": 1})
    request = dataclasses.replace(REQUEST, likelihood_examples=4)
    sampler = judged.make_sampler(info, make_layout("jit"))
    found = evaluate.evaluate(sampler, data, request, sampler.settings, folder=tmp_path, quiet=True)["figures"]
    assert found["validation_loss"] > 0
    assert found["likelihood"]["bits_per_dim"] > 0
    assert found["test"]["fid"] > 0


def test_features_of_other_classes_do_not_say_which_class_it_is(dataset):
    figures = measured(dataset.test.images, dataset.test.labels, dataset, "thousand")
    assert "class_accuracy" not in figures
    assert "class_score" in figures


def test_samples_that_did_not_arrive_are_told(sampler, dataset, settings, tmp_path, monkeypatch, caplog):
    split, count = dataset.test, len(dataset.test)
    request = dataclasses.replace(REQUEST, n_samples=count)
    lost = sample_pool.Pool(split.images, split.labels, np.full(count, 4, np.int32), np.arange(count) > 2, 1.0)
    monkeypatch.setattr(sample_pool, "draw", lambda *arguments, **options: lost)
    result = evaluate.judge_samples(sampler, dataset, request, settings, folder=tmp_path, quiet=True)
    assert result["cost"]["failed"] == 3
    assert "3 of 40 samples did not reach t = 1" in caplog.text


def test_what_an_adaptive_solver_is_told(sampler, settings):
    adaptive = evaluate.settings_of(sampler, REQUEST, settings.replace(solver="tsit5"))
    assert [adaptive[key] for key in ("steps", "grid", "tolerance")] == [None, None, 1e-5]
    tolerant = evaluate.settings_of(sampler, REQUEST, settings.replace(solver="tsit5", tolerance=0.01))
    assert tolerant["tolerance"] == tolerant["sample"]["rtol"] == 0.01


@pytest.mark.parametrize(
    ("asked", "changes", "message"),
    [
        ({"n_samples": 4}, {}, "n_samples=4 is too few for 4 features"),
        ({"references": ("validation",)}, {}, "reference 'validation'; choose train or test"),
        ({}, {"weight": float("nan")}, "nan"),
        ({}, {"rtol": 1e-3}, "for adaptive solvers, tsit5, .*; 'euler' takes steps"),
        ({"likelihood_draws": 0, "likelihood_examples": 4}, {}, "likelihood_draws = 0; it must be 1 or more"),
    ],
)
def test_bad_requests(sampler, dataset, settings, tmp_path, asked, changes, message):
    with pytest.raises(ValueError, match=message):
        evaluate.evaluate(
            sampler,
            dataset,
            dataclasses.replace(REQUEST, **asked),
            settings.replace(**changes),
            folder=tmp_path,
            quiet=True,
        )


def test_a_method_without_a_density_is_refused_before_any_sample(dataset, tmp_path):
    info = judged.make_info(**judged.FIELDLESS)
    request = dataclasses.replace(REQUEST, likelihood_examples=4)
    with pytest.raises(ValueError, match="'fieldless' has none"):
        evaluate.evaluate(judged.make_sampler(info), dataset, request, info.config.sample, folder=tmp_path, quiet=True)
    assert not list(tmp_path.glob("*/*.npz"))


@pytest.mark.parametrize(
    ("asked", "message"),
    [({"against": "nowhere"}, "unknown data source 'nowhere'"), ({"n_samples": 4}, "too few for 4 features")],
)
def test_what_can_be_known_before_is_refused_before_anything_is_computed(
    sampler, dataset, tmp_path, monkeypatch, asked, message
):
    monkeypatch.setattr(real_features, "get", None)
    monkeypatch.setattr(sample_pool, "draw", None)
    request = dataclasses.replace(REQUEST, **asked)
    with pytest.raises((ValueError, KeyError), match=message):
        evaluate.evaluate(sampler, dataset, request, sampler.settings, folder=tmp_path, quiet=True)


def test_a_file_of_samples_is_judged_like_a_model(dataset, tmp_path):
    path, split = tmp_path / "real.npz", dataset.test
    np.savez(path, images=split.images, labels=split.labels)
    found = evaluate.judge_file(path, dataset, REQUEST, quiet=True)
    assert found["figures"]["class_accuracy"] == 1
    expected = {"features": "quarters-1", "references": ["test", "train"], "n_samples": len(split), "data": "toy"}
    assert found["settings"].items() >= expected.items()
    np.savez(path, images=split.images[:, :4], labels=split.labels)
    with pytest.raises(ValueError, match=r"holds images \(4, 8, 1\); those of toy are \(8, 8, 1\)"):
        evaluate.judge_file(path, dataset, REQUEST, quiet=True)
    np.savez(path, pictures=split.images)
    with pytest.raises(ValueError, match="has no array 'images', only: pictures"):
        evaluate.judge_file(path, dataset, REQUEST, quiet=True)
    np.savez(path, images=split.images)
    with pytest.raises(ValueError, match="has no array 'labels'"):
        evaluate.judge_file(path, dataset, REQUEST, quiet=True)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="or is damaged"):
        evaluate.judge_file(path, dataset, REQUEST, quiet=True)


def test_too_few_real_images_are_refused_before_any_sample(sampler, dataset, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(sample_pool, "draw", None)
    few = ImageDataset("toy", dataset.train, dataset.test.take(np.arange(4)), 4, "few")
    with pytest.raises(ValueError, match="the test split's 4 images are too few for 4 features"):
        evaluate.judge_samples(sampler, few, REQUEST, settings, folder=tmp_path, quiet=True)


def test_a_set_of_other_images_is_refused(sampler, dataset):
    split = Split(dataset.test.images[:, :4], dataset.test.labels)
    with pytest.raises(ValueError, match=r"the model is for \(8, 8, 1\) images"):
        evaluate.check_fits(sampler, ImageDataset("toy", split, split, toys.CLASSES, "smaller"))
    told = Split(dataset.test.images, {"label": dataset.test.labels, "style": np.zeros((40, 2), np.float32)})
    with pytest.raises(ValueError, match="the model is told labels, but the data set now has"):
        evaluate.check_fits(sampler, ImageDataset("toy", told, told, toys.CLASSES, "told more"))


def test_renamed_classes_are_refused_and_other_images_are_told(dataset, caplog):
    names = ("a", "b", "c", "d")
    named = dataclasses.replace(dataset, class_names=names)
    sampler = judged.make_sampler(judged.make_info(named))
    evaluate.check_fits(sampler, named)
    moved = dataclasses.replace(named, provenance="from elsewhere", name="moved")
    evaluate.check_fits(sampler, moved)
    assert not caplog.text
    with pytest.raises(ValueError, match="not those that the model was trained on: b -> c, c -> b; restore"):
        evaluate.check_fits(sampler, dataclasses.replace(dataset, class_names=("a", "c", "b", "d")))
    evaluate.check_fits(sampler, dataclasses.replace(named, test=named.test.take(np.arange(30))))
    assert "holds other data than the model was trained on" in caplog.text
