"""Runs and exports of the first edition are read and drawn from as they were then; see tests/fixtures/edition_1."""

import json
import shutil
import tarfile
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest

import fmd
from fmd import config as configs
from fmd import data
from fmd.checkpoints.weights import load_weights, read_arrays
from fmd.devices import make_layout
from fmd.evaluation import evaluate, generative
from fmd.export.exporter import export
from fmd.files import write_json
from fmd.randomness import key
from fmd.sampling.sampler import load
from fmd.training import trainer

FIXTURE = Path(__file__).parent / "fixtures" / "edition_1"

pytestmark = pytest.mark.usefixtures("full_compilation")


@pytest.fixture(scope="module")
def edition(tmp_path_factory):
    """The folder with `run` and `export`."""
    folder = tmp_path_factory.mktemp("edition_1")
    with tarfile.open(FIXTURE / "edition_1.tar.xz") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # not known to Python 3.11.2
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def sampler(edition):
    return load(edition / "run", layout=make_layout("jit"))


def check_same(found, expected):
    """Equal on the machine that made it; elsewhere one grey level in one of a thousand pixels may differ."""
    difference = np.asarray(found).astype(int) - expected
    assert expected.std() > 10
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() <= 1e-3


@pytest.mark.parametrize(
    ("folder", "name", "options", "settings"),
    [
        ("run", "run", {}, {}),
        ("run/checkpoints/20", "run", {}, {}),
        ("run", "decay1", {"average": "decay1"}, {"solver": "heun", "weight": 1.0}),
        ("run", "decay1", {"which": "decay1"}, {"solver": "heun", "weight": 1.0}),
        ("export", "export", {}, {}),
    ],
)
def test_the_same_images_are_drawn(edition, folder, name, options, settings):
    drawn = np.load(FIXTURE / f"{name}.npz")
    np.testing.assert_array_equal(drawn["labels"], np.arange(16, dtype=np.int32) % 10)
    found = load(edition / folder, layout=make_layout("jit"), **options)
    check_same(found(drawn["labels"], key(1), steps=3, **settings), drawn["images"])


def test_the_portable_program_of_then_runs(edition, sampler):
    program = jax.export.deserialize(bytearray((edition / "export" / "sampler.stablehlo").read_bytes()))
    noise = np.random.default_rng(0).standard_normal((64, 8, 8, 1)).astype(np.float32)
    labels = np.arange(64, dtype=np.int32) % 11
    check_same(jax.jit(program.call)(noise, labels, np.float32(2)), sampler(labels, noise=noise))


def test_the_run_is_exported_as_it_was(edition, tmp_path):
    again, then = export(edition / "run", tmp_path / "again"), edition / "export"
    for name in ("weights.safetensors", "samples.png", "weights/conv_in.kernel/0.0.0.0"):
        assert (again / name).read_bytes() == (then / name).read_bytes(), name
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (then, again))
    assert new["sampler"].items() >= {**old["sampler"], "jax": jax.__version__}.items()
    for name in ("image_shape", "num_classes", "class_names", "train_images", "averages", "step", "provenance"):
        assert new[name] == old[name]


def test_the_figures_are_those_of_then(edition, sampler, tmp_path):
    then = json.loads((edition / "run" / "eval.json").read_text())
    asked, settings = then["settings"], sampler.settings.replace(steps=2)
    request = evaluate.Request(n_samples=asked["n_samples"], classes="balanced")
    found = evaluate.evaluate(sampler, data.load("digits"), request, settings, folder=tmp_path, quiet=True)
    assert found["figures"]["validation_loss"] == pytest.approx(then["figures"]["validation_loss"], rel=1e-6)
    for name in ("fid", "kid", "recall", "diversity", "diversity_of_real"):
        assert found["figures"]["test"][name] == pytest.approx(then["figures"]["test"][name], rel=1e-4), name
    assert found["figures"]["nearest_ratio"] == pytest.approx(then["figures"]["nearest_ratio"], rel=1e-5)
    counted = {"likelihood_examples": 0, "fmd": fmd.__version__}
    assert found["settings"].items() >= {**asked, **counted}.items()


def test_the_training_goes_on_where_it_was(edition, tmp_path):
    """Also where the window of the log is not empty: its sums are those of then."""
    workdir = shutil.copytree(edition / "run", tmp_path / "run")
    values = json.loads((workdir / "config.json").read_text())
    values["config"]["train"]["num_steps"] = 24
    write_json(workdir / "config.json", values)
    config = configs.resolve({**values["config"], "log": {"every": 7}})
    run = trainer.start(config, workdir, data.load("digits"))
    saved = read_arrays(workdir / "checkpoints" / "20" / "train")
    assert run.step == 20
    assert float(run.state.window.steps) == float(saved["window"]["steps"]) > 0
    assert run.state.window.figures == {}
    for ours, theirs in [(run.state.params, saved["params"]), (run.weights, load_weights(edition / "run")[0])]:
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.slow
def test_the_bits_per_dimension_are_those_of_then(edition, sampler):
    then = json.loads((edition / "run" / "eval.json").read_text())["figures"]["likelihood"]
    found = generative.likelihood(sampler, data.load("digits").test, examples=20, seed=0, quiet=True)
    assert found["bits_per_dim"] == pytest.approx(then["bits_per_dim"], rel=1e-4)
    assert found["standard_error"] == pytest.approx(then["standard_error"], rel=1e-2)
