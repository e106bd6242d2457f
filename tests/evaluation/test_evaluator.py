"""The evaluator on a toy whose answers are known: features that are means, classes that are shades."""

import dataclasses
import json
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from fmd import modes
from fmd.data import ImageDataset, Split, batch_indices
from fmd.evaluation import bits, evaluator, features, pool, reference, sweep
from fmd.evaluation.distances import frechet_distance, moments
from fmd.models.registry import build_model
from fmd.sampling.sampler import Sampler
from fmd.training import setup
from fmd.utils.distributed import make_layout

SHADES = 60.0 * np.arange(toys.CLASSES) + 30.0


def means_and_shades(params, images):
    """The means of the four quarters, and how near their mean is to the shade of each class of the toy set."""
    quarters = images.reshape(-1, 2, 4, 2, 4).astype(jnp.float32).mean(axis=(2, 4)).reshape(-1, 4)
    return quarters, -jnp.abs(quarters.mean(axis=1)[:, None] - params["shades"][None])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FMD_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture(scope="module", autouse=True)
def quarters():
    features.register_features("quarters")(
        lambda dataset: features.Extractor("quarters-1", {"shades": SHADES.astype(np.float32)}, means_and_shades)
    )
    yield
    del features._BUILDERS["quarters"]


@pytest.fixture(scope="module")
def dataset():
    return toys.dataset()


@pytest.fixture(scope="module")
def sampler():
    facts = setup.make_facts(toys.config(), toys.dataset()) | {"step": 8}
    model = build_model("toy", {"num_classes": toys.CLASSES})
    x, t, y = np.zeros((1, 8, 8, 1), np.float32), np.zeros(1, np.float32), np.zeros(1, np.int32)
    return Sampler.from_facts(facts, params=jax.jit(model.init)(jax.random.key(1), x, t, y)["params"])


REQUEST = evaluator.Request(n_samples=32, features="quarters", solver="euler", steps=2, references=("test", "train"))


@pytest.fixture(scope="module")
def result(sampler, dataset, tmp_path_factory):
    return evaluator.evaluate(sampler, dataset, REQUEST, folder=tmp_path_factory.mktemp("pool"), quiet=True)


def test_every_setting_that_decides_a_figure_stands_beside_it(result):
    settings = result["settings"]
    expected = {"n_samples": 32, "seed": 0, "features": "quarters-1", "solver": "euler", "steps": 2, "weight": 2.0}
    assert {key: settings[key] for key in expected} == expected
    assert (settings["references"], settings["step"]) == (["test", "train"], 8)
    assert (settings["data"], settings["neighbours"], settings["validation_examples"]) == ("toy", 5, 40)
    assert settings["reference_images"] == settings["neighbours_among"] == {"test": 40, "train": 96}
    assert result["cost"]["evaluations_per_image"] == 4
    assert json.loads(json.dumps(result)) == result


def test_the_figures_are_those_of_the_samples(result, sampler, dataset, tmp_path):
    drawn = pool.draw(sampler, 32, seed=0, folder=tmp_path, settings=REQUEST.sampling, quiet=True)
    vectors = np.asarray(means_and_shades({"shades": SHADES}, drawn.images)[0])
    real = np.asarray(means_and_shades({"shades": SHADES}, dataset.test.images)[0])
    found = result["figures"]["test"]["fid"]
    assert found == pytest.approx(frechet_distance(moments([vectors]), moments([real])), rel=1e-5)
    assert result["figures"]["validation_loss"] > 0


def test_real_images_are_judged_perfect(sampler, dataset, tmp_path, monkeypatch):
    split = dataset.test
    count = len(split)
    real = pool.Pool(split.images, split.labels, np.full(count, 4), np.ones(count, bool), 1.0)
    monkeypatch.setattr(pool, "draw", lambda *arguments, **settings: real)
    found = evaluator.evaluate(sampler, dataset, REQUEST, folder=tmp_path, quiet=True)["figures"]
    assert found["class_accuracy"] == 1
    assert found["test"]["fid"] == pytest.approx(0, abs=1e-3)
    assert found["test"]["precision"] == found["test"]["recall"] == 1
    assert found["test"]["diversity"] == pytest.approx(found["test"]["diversity_of_real"], rel=1e-6)
    assert found["nearest_ratio"] == pytest.approx(1)
    assert found["copied"] <= 0.03


def test_a_model_that_repeats_its_training_images_is_noticed(dataset):
    found = evaluator.copies(dataset.train.images, dataset)
    assert found["copied"] == 1
    assert found["nearest_ratio"] == 0


def test_an_interrupted_pool_goes_on(sampler, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "CHUNK", 8)
    asked = dict(seed=3, folder=tmp_path, settings=REQUEST.sampling, quiet=True)
    whole = pool.draw(sampler, 24, **asked)
    files = sorted(tmp_path.glob("*/*.npz"))
    assert len(files) == 3
    files[1].unlink()
    files[2].write_bytes(files[2].read_bytes()[:100])  # damaged
    with mock.patch.object(Sampler, "sample", autospec=True, side_effect=Sampler.sample) as drawing:
        again = pool.draw(sampler, 24, **asked)
    assert drawing.call_count == 2
    np.testing.assert_array_equal(again.images, whole.images)
    np.testing.assert_array_equal(pool.draw(sampler, 16, **asked).images, whole.images[:16])
    other = pool.draw(sampler, 8, **(asked | {"seed": 4}))
    assert (other.images != whole.images[:8]).any()


def test_features_do_not_depend_on_batches_or_devices(dataset):
    extractor = features.get("quarters", dataset)
    images = dataset.train.images
    uneven = [images[:1], images[1:14], images[14:]]
    for layout in (make_layout("jit"), make_layout("mesh")):
        parts = list(features.compute(extractor, iter(uneven), layout))
        exact = means_and_shades(extractor.params, images)
        for column in (0, 1):
            np.testing.assert_allclose(np.concatenate([p[column] for p in parts]), exact[column], rtol=1e-6)


def test_reference_features_are_kept_and_belong_to_their_images(dataset, monkeypatch):
    extractor = features.get("quarters", dataset)
    first = reference.get(dataset, "test", extractor, quiet=True)
    np.testing.assert_allclose(first.moments.mean, first.cloud.mean(axis=0), rtol=1e-6)
    with monkeypatch.context() as patch:
        patch.setattr(features, "compute", None)  # nothing is computed again
        again = reference.get(dataset, "test", extractor, quiet=True)
        np.testing.assert_array_equal(again.cloud, first.cloud)
    changed = ImageDataset("toy", dataset.train, dataset.train, toys.CLASSES, "other images")
    other = reference.get(changed, "test", extractor, quiet=True)
    assert other.moments.count == len(dataset.train)


def test_bits_per_dimension_of_a_model_that_does_nothing(sampler, dataset, monkeypatch):
    """Velocity 0: the density is the noise's own, a normal one, whose bits per dimension are known."""
    monkeypatch.setattr(type(sampler.model), "apply", lambda self, variables, x, t, y, train: jnp.zeros_like(x))
    found = bits.measure(sampler, dataset.test, examples=12, seed=0, quiet=True)
    rows = batch_indices(0, 0, 12, len(dataset.test))
    x = dataset.test.images[rows] / 127.5 - 1
    exact = np.mean(0.5 * x**2 + 0.5 * np.log(2 * np.pi)) / np.log(2) - np.log2(2 / 255)
    assert found["bits_per_dim"] == pytest.approx(exact, abs=1e-3)
    assert (found["examples"], found["unsolved"]) == (12, 0)


def test_bits_per_dimension_do_not_depend_on_batches_or_devices(sampler, dataset, monkeypatch):
    small = Sampler(sampler.model, jax.device_get(sampler.params), sampler.facts, make_layout("jit"))
    one = bits.measure(small, dataset.test, examples=11, seed=0, quiet=True)
    monkeypatch.setattr(bits, "BATCH", 5)  # 8 on eight devices
    found = bits.measure(sampler, dataset.test, examples=11, seed=0, quiet=True)
    assert found["bits_per_dim"] == pytest.approx(one["bits_per_dim"], rel=1e-4)
    assert found["standard_error"] == pytest.approx(one["standard_error"], rel=1e-3)


def test_features_of_other_classes_do_not_say_which_class_it_is(dataset, tmp_path, monkeypatch):
    thousand = features.Extractor("thousand-1", {"shades": np.zeros(1000, np.float32)}, means_and_shades)
    monkeypatch.setitem(features._BUILDERS, "thousand", lambda dataset: thousand)
    path = tmp_path / "real.npz"
    np.savez(path, images=dataset.test.images, labels=dataset.test.labels)
    figures = evaluator.judge_file(path, dataset, evaluator.Request(features="thousand"), quiet=True)["figures"]
    assert "class_accuracy" not in figures
    assert "class_score" in figures


def test_samples_in_the_order_of_their_classes_are_searched_for_copies_all_over(dataset, monkeypatch):
    monkeypatch.setattr(evaluator, "COPIES_AMONG", 20)
    monkeypatch.setattr(evaluator, "COPIES_AT_ONCE", 7)
    images = np.concatenate([np.zeros_like(dataset.train.images), dataset.train.images])  # the first half are none
    assert 0.2 < evaluator.copies(images, dataset)["copied"] < 0.8


def test_a_sweep_is_a_row_per_point(sampler, dataset, tmp_path, capsys):
    kind, values = sweep.parse("weight=1,2")
    rows = sweep.run(tmp_path, sampler, dataset, REQUEST, kind, values, folder=tmp_path)
    assert [row["weight"] for row in rows] == ["1", "2"]
    assert [row["evaluations"] for row in rows] == [2, 4]
    assert len(capsys.readouterr().out.splitlines()) == 3
    found = json.loads((tmp_path / "sweep_weight.json").read_text())
    assert found["rows"] == rows
    assert "weight" not in found["settings"] | found["settings"]["rule"]
    assert found["rows"][0]["failed"] == 0
    assert found["settings"]["features"] == "quarters-1"  # with its version, as of a single evaluation


def test_a_sweep_that_is_stopped_leaves_what_it_found(sampler, dataset, tmp_path, monkeypatch):
    judged = mock.Mock(side_effect=[evaluator.judge_samples(sampler, dataset, REQUEST, folder=tmp_path, quiet=True)])
    monkeypatch.setattr(sweep, "judge_samples", judged)
    with pytest.raises(StopIteration):  # in place of a kill
        sweep.run(tmp_path, sampler, dataset, REQUEST, "weight", ("1", "2"), folder=tmp_path)
    assert [row["weight"] for row in json.loads((tmp_path / "sweep_weight.json").read_text())["rows"]] == ["1"]


def test_the_settings_of_a_sweep_are_those_that_its_points_share(sampler):
    shifted = dataclasses.replace(REQUEST, solver=None, steps=None, grid={"name": "shifted", "factor": 2.0})
    asked = [request for _, request, _ in sweep.points("steps", ("5",), shifted, ())]
    shared = sweep.common_settings([evaluator.settings_of(sampler, request) for request in asked])
    assert shared["grid"]["factor"] == 2  # though the adaptive solvers have none
    assert not {"solver", "tolerance"} & set(shared)
    assert (shared["weight"], shared["rule"]) == (2, {"name": "cfg"})


def test_a_wrong_point_is_refused_before_the_first_is_drawn(sampler, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "judge_samples", None)
    with pytest.raises(ValueError, match="steps = 0"):
        sweep.run(
            tmp_path, sampler, dataset, dataclasses.replace(REQUEST, steps=None), "steps", ("5", "0"), folder=tmp_path
        )
    with pytest.raises(ValueError, match="there is no 'decy1', only"):
        sweep.run(tmp_path, sampler, dataset, REQUEST, "average", ("decay0", "decy1"), folder=tmp_path)


def test_samples_that_did_not_arrive_are_told(sampler, dataset, tmp_path, monkeypatch, caplog):
    split, count = dataset.test, len(dataset.test)
    lost = pool.Pool(split.images, split.labels, np.full(count, 4), np.arange(count) > 2, 1.0)
    monkeypatch.setattr(pool, "draw", lambda *arguments, **settings: lost)
    result = evaluator.judge_samples(sampler, dataset, REQUEST, folder=tmp_path, quiet=True)
    assert result["cost"]["failed"] == 3
    assert "3 of 40 samples did not reach t = 1" in caplog.text


def test_what_an_adaptive_solver_is_told(sampler):
    adaptive = dataclasses.replace(REQUEST, solver="tsit5", steps=None)
    assert [evaluator.settings_of(sampler, adaptive)[key] for key in ("steps", "tolerance")] == [None, 1e-5]


def test_the_points_of_a_sweep():
    averages = ("decay0", "power0")
    assert [name for name, _, _ in sweep.points("average", (), REQUEST, averages)] == list(averages)
    any_solver = dataclasses.replace(REQUEST, solver=None, steps=None)
    euler = dataclasses.replace(any_solver, solver="euler")
    steps = sweep.points("steps", ("5",), any_solver, averages)
    assert [(r.solver, r.steps) for _, r, _ in steps[:3]] == [("euler", 5), ("midpoint", 5), ("heun", 5)]
    assert [(name, r.sampling["rtol"]) for name, r, _ in steps[3:]] == [("tsit5 0.01", 0.01), ("tsit5 0.001", 0.001)]
    asked = sweep.points("steps", ("5",), dataclasses.replace(any_solver, tolerance=0.1), averages)
    assert [r.tolerance for _, r, _ in asked] == [None, None, None, 0.1]
    ((name, request, _),) = sweep.points("shift", ("2",), REQUEST, averages)
    assert (name, request.sampling["grid"]) == ("2", {"name": "shifted", "factor": 2.0})
    tsit5 = dataclasses.replace(euler, solver="tsit5", grid=request.grid)
    steps = sweep.points("steps", (), tsit5, averages)
    assert [(name, r.grid) for name, r, _ in steps] == [("tsit5 0.01", None), ("tsit5 0.001", None)]  # refuses a grid
    assert [name for name, _, _ in sweep.points("steps", ("2", "4"), euler, averages)] == ["euler 2", "euler 4"]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"n_samples": 4}, "n_samples=4 is too few for 4 features"),
        ({"references": ("validation",)}, "reference 'validation'; choose train or test"),
        ({"weight": float("nan")}, "nan"),
        ({"tolerance": 1e-3}, "for adaptive solvers, tsit5, .*; 'euler' takes steps"),
    ],
)
def test_bad_requests(sampler, dataset, tmp_path, request_, message):
    with pytest.raises(ValueError, match=message):
        evaluator.evaluate(sampler, dataset, dataclasses.replace(REQUEST, **request_), folder=tmp_path, quiet=True)


def test_a_file_of_samples_is_judged_like_a_model(dataset, tmp_path):
    path, split = tmp_path / "real.npz", dataset.test
    np.savez(path, images=split.images, labels=split.labels)
    found = evaluator.judge_file(path, dataset, REQUEST, quiet=True)
    assert found["figures"]["class_accuracy"] == 1
    expected = {"features": "quarters-1", "references": ["test", "train"], "n_samples": len(split), "data": "toy"}
    assert found["settings"].items() >= expected.items()
    np.savez(path, images=split.images[:, :4], labels=split.labels)
    with pytest.raises(ValueError, match=r"holds images \(4, 8, 1\); those of toy are \(8, 8, 1\)"):
        evaluator.judge_file(path, dataset, REQUEST, quiet=True)
    np.savez(path, pictures=split.images)
    with pytest.raises(ValueError, match="has no array 'images', only: pictures"):
        evaluator.judge_file(path, dataset, REQUEST, quiet=True)
    np.savez(path, images=split.images)
    with pytest.raises(ValueError, match="has no array 'labels'"):
        evaluator.judge_file(path, dataset, REQUEST, quiet=True)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="or is damaged"):
        evaluator.judge_file(path, dataset, REQUEST, quiet=True)


def test_bad_names(dataset):
    with pytest.raises(KeyError, match="unknown features 'fid'; choose one of auto, domain"):
        features.get("fid", dataset)
    with pytest.raises(ValueError, match="domain features are for"):
        features.get("domain", dataset)
    with pytest.raises(ValueError, match="--sweep=colour=1; give weight"):
        sweep.parse("colour=1")
    with pytest.raises(ValueError, match="must be numbers"):
        sweep.points("weight", ("strong",), REQUEST, ())
    with pytest.raises(ValueError, match="tsit5 chooses its own steps; give --tolerance"):
        sweep.points("steps", ("5",), evaluator.Request(solver="tsit5"), ())
    with pytest.raises(ValueError, match="--sweep=shift tries several values and --shift asks for one"):
        sweep.points("shift", (), evaluator.Request(grid={"name": "shifted", "factor": 2.0}), ())


def test_too_few_real_images_are_refused_before_any_sample_is_drawn(sampler, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "draw", None)
    few = ImageDataset("toy", dataset.train, Split(dataset.test.images[:4], dataset.test.labels[:4]), 4, "few")
    with pytest.raises(ValueError, match="the test split's 4 images are too few for 4 features"):
        evaluator.judge_samples(sampler, few, REQUEST, folder=tmp_path, quiet=True)


def test_a_set_of_other_images_is_refused(sampler, dataset):
    split = Split(dataset.test.images[:, :4], dataset.test.labels)
    other = ImageDataset("toy", split, split, toys.CLASSES, "smaller")
    with pytest.raises(ValueError, match=r"the model is for \(8, 8, 1\) images"):
        evaluator.check_fits(sampler, other)


def test_quality_is_logged_during_training(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "_automatic", lambda dataset: "quarters")
    often = {"quality_every": 3, "quality_samples": 16, "eval_every": 0}
    config = toys.config(log=often, train={"num_steps": 6}, checkpoint={"every": 3, "keep_best": 1})
    run = modes.train_config(config, tmp_path / "run")
    assert [line["step"] for line in run.logs["quality"].lines] == [3, 6]  # step 3 has no validation loss
    line = run.logs["quality"].lines[-1]
    assert line["fid"] > 0
    assert 0 <= line["class_accuracy"] <= 1
    assert "validation_loss" in run.figures
    assert (tmp_path / "run" / "quality.csv").exists()
