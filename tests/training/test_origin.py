"""Runs that begin with the weights of others, or learn from them: by hand, by a first run, by a frozen teacher."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fmd import commands
from fmd import config as configs
from fmd.checkpoints.weights import load_weights
from fmd.sampling.sampler import make_model
from fmd.training import callbacks, optimizers, origin, trainer
from fmd.training import recipe as recipes
from tests.helpers import toys

ROOT = Path(__file__).parents[2]
SMALL = {
    "parallel": {"mode": "jit"},
    "train": {"num_steps": 2},
    "optimizer": {"warmup_steps": 0},
    "checkpoint": {"every": 2},
    "log": {"every": 1, "eval_every": 0, "samples_every": 0},
}
FLOW = {"model": {"name": "toy_jumps"}}
JUMPS = FLOW | {
    "method": {"name": "mean_flow", "tangent": "teacher", "target": "teacher", "equal": 0.5},
    "sample": {"guidance": {"name": "cfg", "weight": 1.0}, "solver": "jump", "steps": 1},
}
FIRST = {"method": {"name": "flow_matching"}, "train": {"num_steps": 4}, "sample": {"solver": "midpoint"}}


class Begins(callbacks.Callback):
    """Keeps the state that a run begins with."""

    def on_train_start(self, run):
        self.state = jax.device_get(run.state)


def train(workdir, **overrides):
    begins = Begins()
    run = trainer.train(
        toys.config(**{**SMALL, **overrides}), workdir, toys.dataset(), (begins, callbacks.Checkpoints())
    )
    return run, begins.state


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    """A finished run of flow matching, and its averaged weights."""
    run, _ = train(tmp_path_factory.mktemp("flow") / "run", **FLOW)
    return run.workdir, load_weights(run.workdir)[0]


def test_parameters_and_averages_begin_with_the_averaged_weights(flow, tmp_path, caplog):
    workdir, weights = flow
    with caplog.at_level("INFO"):
        run, state = train(tmp_path / "run", **FLOW, init_from=str(workdir))
    assert equal(state.params, weights)
    assert all(equal(average, weights) for average in state.ema.values())
    assert int(state.step) == 0
    assert "beginning with 100.0% of the parameters" in caplog.text
    _, state = train(tmp_path / "run", **FLOW, init_from=str(workdir))  # a resumed run does not begin again
    assert equal(state.params, jax.device_get(run.state.params))


def test_a_network_with_a_second_time_goes_on_from_one_without(flow, tmp_path, caplog):
    """At h = 0 its velocity is that of the flow, bit for bit."""
    workdir, weights = flow
    with caplog.at_level("INFO"):
        run, state = train(tmp_path / "run", **JUMPS, init_from=str(workdir))
    assert "new: step/kernel" in caplog.text
    x, t, y = jnp.ones((3, 8, 8, 1)), jnp.array([0.0, 0.3, 1.0]), jnp.arange(3)
    flows = make_model(toys.config(**FLOW), toys.CLASSES)
    expected = flows.apply({"params": weights}, x, t, y)
    np.testing.assert_array_equal(run.model.apply({"params": state.params}, x, t, y, r=t), expected)


@pytest.mark.slow
def test_a_first_run_is_trained_first_and_both_go_on_from_where_they_were(tmp_path):
    config = toys.config(**SMALL, **JUMPS, first=FIRST)
    begins = Begins()
    run = commands.train_config(config, tmp_path / "run", [begins])
    weights, info = load_weights(tmp_path / "run" / "first")
    assert (info.step, info.config.method.name, info.config.first) == (4, "flow_matching", None)
    taken = {name: leaf for name, leaf in begins.state.params.items() if name != "step"}
    assert equal(taken, weights)
    assert run.finished
    again = commands.train_config(config, tmp_path / "run")
    assert equal(again.state, run.state)


def test_a_wrong_last_run_is_refused_before_the_first_one(tmp_path):
    for wrong, refused in [
        ({"sample": {"solver": "jmup"}}, "unknown solver 'jmup'"),
        ({"train": {"num_steps": 2, "batch_size": 12}, "parallel": {"mode": "mesh"}}, "cannot be split over 8 devices"),
    ]:
        first = FIRST | {"train": {"num_steps": 4, "batch_size": 16}}
        with pytest.raises(ValueError, match=refused):
            commands.train_config(toys.config(**SMALL | JUMPS | {"first": first} | wrong), tmp_path / "run")
    assert not list(tmp_path.iterdir())


CRITIC = {"name": "distribution_matching", "critic_rate": 3.0}


@pytest.mark.slow
def test_a_critic_begins_as_the_teacher_and_is_in_no_average(tmp_path):
    """Three runs by one command: the flow, its jumps, their images; the teacher is the first of them."""
    first = {"method": JUMPS["method"], "first": FIRST}
    config = toys.config(**SMALL, **JUMPS | {"method": CRITIC, "teacher": "first/first", "first": first})
    begins = Begins()
    run = commands.train_config(config, tmp_path / "run", [begins])
    (jumps, info), (flow, _) = (load_weights(tmp_path / "run" / folder) for folder in ("first", "first/first"))
    assert info.config.method.name == "mean_flow"
    state = begins.state
    assert equal(state.params["network"], jumps)
    assert equal({name: leaf for name, leaf in state.params["critic"].items() if name != "step"}, flow)
    assert equal(state.ema["decay0"], jumps)
    assert not equal(run.state.params["critic"], state.params["critic"])
    assert jax.tree.structure(load_weights(run.workdir)[0]) == jax.tree.structure(jumps)
    again = commands.train_config(config, tmp_path / "run")
    assert equal(again.state, run.state)


@pytest.mark.parametrize("name", ["mnist_one_step", "fashion_mnist_one_step", "cifar10_one_step"])
@pytest.mark.parametrize("cpu", [False, True])
def test_one_step_recipes_train_a_flow_then_its_jumps_then_their_images(name, cpu):
    loaded = configs.load_file(ROOT / "configs" / f"{name}.py")
    runs = [configs.resolve(configs.apply_on_cpu(loaded) if cpu else loaded)]
    while runs[0].first is not None:
        runs.insert(0, origin.first_config(runs[0]))
    flow, guided, jumps, config = runs
    assert [c.method.name for c in runs] == ["flow_matching", "mean_flow", "mean_flow", "distribution_matching"]
    assert [c.sample.solver for c in runs] == ["midpoint", "midpoint", "jump", "jump"]
    assert [c.teacher for c in runs] == [None, None, None, "first/first/first"]
    assert all(c.model == config.model for c in runs)
    assert flow.train.label_dropout > 0  # the teacher is guided; the others learn its guided flow
    small = {key: flow.sample.guidance[key] for key in ("name", "weight")}
    assert guided.method["guidance"] == small
    last = {"fashion_mnist_one_step": 1.6}.get(name, small["weight"])
    assert config.method["guidance"] == small | {"weight": last}
    # A network that is guided by itself is solved without guidance, and teaches so.
    assert (guided.method["equal"], guided.method["steps"], guided.sample.weight) == (1.0, 0, 1.0)
    assert (jumps.method["guidance"]["weight"], jumps.method["steps"]) == (1.0, 4)


def test_the_critic_takes_longer_steps():
    optimizer = optimizers.with_critic(optax.sgd(1.0), 3.0)
    params = {"network": jnp.ones(2), "critic": jnp.ones(2)}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    np.testing.assert_array_equal(updates["network"], -1)
    np.testing.assert_array_equal(updates["critic"], -3)


def test_the_teacher_may_be_another_model(flow, tmp_path):
    """An own network, told nothing by the run but what is in its folder."""
    workdir, weights = flow
    run, state = train(tmp_path / "run", **JUMPS, teacher=str(workdir))
    assert not equal(state.params["time"], weights["time"])  # taught, but not begun with its weights
    assert np.isfinite(run.report.window.loss)


@pytest.mark.slow
def test_another_teacher_in_the_same_place_is_another_run(flow, tmp_path):
    taught = {**JUMPS, "teacher": str(tmp_path / "teacher")}
    train(tmp_path / "teacher", **FLOW, seed=1)
    train(tmp_path / "run", **taught)
    train(tmp_path / "run", **taught)
    shutil.rmtree(tmp_path / "teacher")
    shutil.copytree(flow[0], tmp_path / "teacher")
    with pytest.raises(ValueError, match=r"holds a run with another config .*teacher: '"):
        train(tmp_path / "run", **taught)


def test_what_does_not_fit_is_one_line(flow, tmp_path):
    workdir, _ = flow
    wrong = [
        ({"init_from": str(tmp_path / "nothing")}, "no checkpoint at"),
        ({"init_from": str(workdir), "model": {"name": "toy"}}, "only 18% of the parameters fit this model"),
        ({"teacher": str(workdir)}, "has no effect with method 'flow_matching'"),
        (JUMPS, "learns from a frozen teacher: name a run, an export or a shipped model"),
        (JUMPS | {"teacher": str(workdir), "path": {"schedule": {"name": "cosine"}}}, "this run along .*cosine"),
        ({"init_from": str(workdir), "first": {}}, "choose one"),
    ]
    for number, (overrides, message) in enumerate(wrong):
        with pytest.raises(ValueError, match=message):
            train(tmp_path / str(number), **{**FLOW, **overrides})


def test_a_teacher_of_other_images_is_refused(flow):
    info = recipes.make_info(toys.config(**JUMPS), toys.dataset())
    config = toys.config(**JUMPS, teacher=str(flow[0]))
    with pytest.raises(ValueError, match=r"teacher=.*: its image_shape is \(8, 8, 1\), this model's \(8, 8, 3\)"):
        origin.teacher_of(config, flow[0], info.replace(image_shape=(8, 8, 3)))


def test_a_teacher_of_other_classes_is_refused_and_of_other_data_told_of(flow, tmp_path, caplog):
    """Clothes are as large as digits, and as many."""
    info = recipes.make_info(toys.config(**JUMPS), toys.dataset())
    config = toys.config(**JUMPS, teacher=str(tmp_path / "clothes"))
    shutil.copytree(flow[0], tmp_path / "clothes")
    written = tmp_path / "clothes" / "config.json"
    theirs = json.loads(written.read_text())

    def teach(names, **changes):
        written.write_text(json.dumps(theirs | changes | {"class_names": names}))
        with caplog.at_level("WARNING"):
            caplog.clear()
            origin.teacher_of(config, flow[0], info.replace(class_names=tuple("0123")))
        return caplog.text

    with pytest.raises(ValueError, match=r"its classes are not this model's: Shirt -> 2, Coat -> 3; give a model of"):
        teach(["0", "1", "Shirt", "Coat"])
    assert teach(list("0123")) == ""
    assert "other data" in teach(list("0123"), data_digest="another")
    assert "other data" in teach(None, data_digest="another")  # no names: no more can be known
    assert teach(None, data_digest=None) == ""  # older than digests
