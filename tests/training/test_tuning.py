"""Parameters that are trained or not: frozen parameters, low-rank factors, and other numbers of classes."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.checkpoints.fitting import names
from fmd.checkpoints.weights import load_weights, save_weights
from fmd.export import exporter
from fmd.sampling.sampler import load, make_model
from fmd.training import callbacks, origin, trainer
from fmd.training import recipe as recipes
from fmd.training.tuning import LowRank, Tuning, tuning_of
from tests.helpers import toys

FREEZE = ("Conv_0/*", "*/embedding")
LORA = {"lora": {"rank": 2, "alpha": 3.0, "train": ["*/embedding"]}, "init_from": "RUN"}
QUIET = {"parallel": {"mode": "jit"}, "log": {"every": 3, "eval_every": 0, "samples_every": 0}}


def by_name(tree):
    return dict(zip(names(tree), jax.tree.leaves(tree), strict=True))


def bits(tree):
    return {name: np.asarray(leaf).tobytes() for name, leaf in by_name(tree).items()}


def lab(layout=("jit", 1, 1), **overrides):
    return toys.Lab(toys.config(**overrides), toys.layout(*layout), smallest=10)


# -- frozen parameters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "overrides"), [
    (("jit", 1, 1), {}),
    (("jit", 1, 1), {"optimizer": {"name": "muon"}}),
    (("jit", 1, 1), {"train": {"grad_accumulation": 2, "on_nonfinite": "skip"}}),
    (("pmap", 2, 1), {}),
    (("mesh", 4, 2), {}),
], ids=str)  # fmt: skip
def test_frozen_parameters_keep_their_bits_and_have_no_moments(layout, overrides):
    made = lab(layout, **overrides | {"train": {"freeze": FREEZE, **overrides.get("train", {})}})
    start = jax.device_get(made.start())
    start.params["Conv_0"]["bias"] = np.full(8, -0.0, np.float32)  # which an update of zero would change
    before = bits(start.params)
    state, report = made.run(3, jax.jit(lambda state: state, out_shardings=made.shardings)(start))
    after = bits(jax.device_get(state.params))
    frozen = {"Conv_0/bias", "Conv_0/kernel", "Embed_0/embedding"}
    assert {name for name in before if before[name] == after[name]} == frozen
    assert not {name for name in names(state.opt_state) if any(name.endswith(part) for part in frozen)}
    assert by_name(state.ema["decay0"])["Conv_0/kernel"].shape == (3, 3, 1, 8)
    assert np.isfinite(report.window.loss)


def test_the_norm_of_the_gradient_is_that_of_what_is_trained():
    everything, some = (lab(train={"freeze": frozen}).run(1)[1].window.grad_norm for frozen in ((), ("Conv_1/*",)))
    assert some < 0.9 * everything


def test_splitting_and_joining_with_a_critic_and_factors():
    network = {"conv": {"kernel": jnp.ones((3, 4)), "bias": jnp.zeros(4)}}
    tuning = Tuning(
        frozenset({"conv/kernel", "conv/bias"}), LowRank(frozenset({"conv/kernel"}), 2, 1.0, 0), critic=True
    )
    params = tuning.begin(network, network)
    trained, rest = tuning.split(params)
    assert set(names(trained)) == {"network/a/conv/kernel", "network/b/conv/kernel", *names({"critic": network})}
    assert set(names(rest)) == {"network/base/conv/kernel", "network/base/conv/bias"}
    assert bits(tuning.join(trained, rest)) == bits(params)
    assert jax.tree.structure(tuning.join(trained, rest)) == jax.tree.structure(params)
    assert tuning.count(params) == 2 * 3 + 2 * 4


# -- low-rank factors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "factored"),
    [
        (nn.Dense(5), lambda a, b: [nn.Dense(2, use_bias=False), nn.Dense(5, use_bias=False)]),
        (nn.Conv(5, (3, 3)), lambda a, b: [nn.Conv(2, (3, 3), use_bias=False), nn.Dense(5, use_bias=False)]),
        (nn.Conv(5, (1, 1)), lambda a, b: [nn.Conv(2, (1, 1), use_bias=False), nn.Dense(5, use_bias=False)]),
    ],
    ids=["dense", "3x3", "1x1"],
)
def test_a_merged_layer_is_the_layer_plus_its_factors(module, factored):
    """At the start it is the layer itself, bit for bit."""
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
    network = module.init(jax.random.key(1), x)["params"]
    low_rank = LowRank(frozenset({"kernel"}), rank=2, scale=1.5, seed=0)
    params = low_rank.begin(network)
    assert bits(low_rank.merged(params)) == bits(network)
    assert params["a"]["kernel"].std() == pytest.approx(np.prod(network["kernel"].shape[:-1]) ** -0.5, rel=0.5)
    b = params["b"]["kernel"] = jax.random.normal(jax.random.key(2), (2, 5))
    found = module.apply({"params": low_rank.merged(params)}, x)
    down, up = factored(params["a"]["kernel"], b)
    added = up.apply({"params": {"kernel": b}}, down.apply({"params": {"kernel": params["a"]["kernel"]}}, x))
    np.testing.assert_allclose(found, module.apply({"params": network}, x) + 1.5 * added, rtol=1e-5, atol=1e-5)


def test_gradients_of_the_factors_of_a_dense_layer():
    """Of |x (W + s A B) - y|^2 / 2 with D = x^T (x (W + s A B) - y): s D B^T and s A^T D."""
    x, y, w, a, b = (np.random.default_rng(0).normal(size=shape) for shape in [(7, 4), (7, 3), (4, 3), (4, 2), (2, 3)])
    low_rank = LowRank(frozenset({"kernel"}), rank=2, scale=0.5, seed=0)
    params = {"base": {"kernel": w}, "a": {"kernel": a}, "b": {"kernel": b}}

    def loss(params):
        return jnp.sum((x @ low_rank.merged(params)["kernel"] - y) ** 2) / 2

    found = jax.grad(loss)(jax.tree.map(jnp.float32, params))
    d = x.T @ (x @ (w + 0.5 * a @ b) - y)
    np.testing.assert_allclose(found["a"]["kernel"], 0.5 * d @ b.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["b"]["kernel"], 0.5 * a.T @ d, rtol=1e-4, atol=1e-4)


def test_a_kernel_of_low_rank_has_factors_of_its_rank():
    params = LowRank(frozenset({"kernel"}), rank=8, scale=1.0, seed=0).begin({"kernel": jnp.ones((3, 3, 2, 5))})
    assert params["a"]["kernel"].shape == (3, 3, 2, 5)
    assert params["b"]["kernel"].shape == (5, 5)


def test_each_block_of_a_stack_has_factors_of_its_own():
    rng = np.random.default_rng(0)
    dense, conv = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 4, 5), (3, 3, 3, 4, 5)))
    network = {"blocks": {"dense": {"kernel": dense}, "conv": {"kernel": conv}}, "out": {"kernel": dense[0]}}
    network = jax.tree.map(jnp.asarray, network)
    tuning = tuning_of(toys.config(**{**LORA, "lora": {"rank": 2, "alpha": 3.0}}), lambda: network, stacked=("blocks",))
    params = tuning.begin(network)
    assert bits(tuning.network(params)) == bits(network)
    parts = {name: params[name]["blocks"] for name in "ab"}
    assert {key: leaf.shape for key, leaf in by_name(parts).items()} == {
        "a/conv/kernel": (3, 3, 3, 4, 2),
        "a/dense/kernel": (3, 4, 2),
        "b/conv/kernel": (3, 2, 5),
        "b/dense/kernel": (3, 2, 5),
    }
    assert params["a"]["blocks"]["conv"]["kernel"].std() == pytest.approx((3 * 3 * 4) ** -0.5, rel=0.2)
    params["b"] = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), params["b"])
    merged = tuning.network(params)
    for kind, whole in (("dense", dense), ("conv", conv)):
        for block in range(3):
            a, b = (params[name]["blocks"][kind]["kernel"][block] for name in "ab")
            expected = whole[block] + 1.5 * a @ b
            np.testing.assert_allclose(merged["blocks"][kind]["kernel"][block], expected, rtol=1e-4, atol=1e-5)


def test_the_stacks_of_a_model_are_known(monkeypatch):
    monkeypatch.setattr(type(TOY), "stacked", ("Conv_0",), raising=False)
    assert recipe_of(toys.config(**LORA)).tuning.low_rank.stacked == ("Conv_0",)


@pytest.mark.parametrize(("layout", "overrides"), [
    (("pmap", 2, 1), {}),
    (("mesh", 4, 2), {"train": {"grad_accumulation": 2}}),
    (("jit", 1, 1), {"optimizer": {"name": "muon"}}),
], ids=str)  # fmt: skip
def test_factors_are_trained_under_any_layout_and_optimiser(layout, overrides):
    made = lab(layout, **LORA | overrides)
    start = jax.device_get(made.start())
    state, _ = made.run(3)
    before, after = bits(start.params), bits(jax.device_get(state.params))
    same = {name for name in before if before[name] == after[name]}
    assert same == {name for name in before if name.startswith("base/") and not name.endswith("embedding")}
    if not overrides:  # one device does the same
        alone, _ = lab(**LORA).run(3)
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


class Stops(callbacks.Callback):
    def on_train_start(self, run):
        self.state = jax.device_get(run.state)

    def on_step_end(self, run):
        if run.step == 3:
            run.stop()


def train(workdir, *hooks, **overrides):
    config = toys.config(**{**QUIET, **overrides, "train": {"num_steps": 6, **overrides.get("train", {})}})
    return trainer.train(config, workdir, toys.dataset(), (*hooks, callbacks.Checkpoints()))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run, a run of factors on it that was stopped and went on, and the state with which that began."""
    folder = tmp_path_factory.mktemp("lora")
    train(folder / "base", ema={"decays": [0.9]})
    lora = {**LORA, "init_from": str(folder / "base")}
    whole = train(folder / "whole", **lora)
    stops = Stops()
    assert not train(folder / "parts", stops, **lora).finished
    (folder / "base").rename(folder / "gone")  # a run that goes on does not need it
    return folder, whole, train(folder / "parts", **lora), stops.state


def test_a_run_of_factors_goes_on_to_the_same_bits(trained):
    folder, whole, parts, start = trained
    begun = load_weights(folder / "gone")[0]
    assert bits(whole.recipe.tuning.network(jax.tree.map(jnp.asarray, start.params))) == bits(begun)
    assert bits(start.ema["decay0"]) == bits(begun)
    assert bits(jax.device_get(whole.state)) == bits(jax.device_get(parts.state))


def test_averages_are_of_ordinary_weights_that_a_sampler_and_an_export_take(trained, tmp_path):
    folder, run, _, start = trained
    weights, info = load_weights(folder / "whole")
    assert jax.tree.structure(weights) == jax.tree.structure(start.params["base"])
    moved = {name for name in names(weights) if bits(weights)[name] != bits(start.params["base"])[name]}
    assert moved == {name for name in names(weights) if not name.endswith("bias")}
    save_weights(tmp_path, weights, exporter.exported_info(info, info.config.sample))
    labels = np.arange(4)
    drawn, again = (load(path)(labels, jax.random.key(0)) for path in (folder / "whole", tmp_path))
    np.testing.assert_array_equal(drawn, again)
    # The newest average after six steps that keep (10 - 9) / (9 + n) is near the merged parameters.
    merged = run.recipe.tuning.network(run.state.params)
    for average, newest in zip(jax.tree.leaves(weights), jax.tree.leaves(merged), strict=True):
        np.testing.assert_allclose(average, newest, atol=0.05)


# -- other classes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [3, 6])
def test_a_run_begins_with_the_rows_of_other_classes(trained, classes, caplog):
    """The toy calls its table Embed_0; by the contract of models its rows are the classes and the null label."""
    path = trained[0] / "gone"
    (old, before), kept = load_weights(path), min(classes, toys.CLASSES)
    info = dataclasses.replace(before, num_classes=classes)
    model = make_model(info.config, classes)
    fresh = jax.device_get(recipes.init_params(model, jax.random.key(7), info.image_shape))
    with caplog.at_level("INFO"):
        begun = origin.begin_with(path, info, fresh, Tuning())
    table, rows = begun["Embed_0"]["embedding"], old["Embed_0"]["embedding"]
    np.testing.assert_array_equal(table[:kept], rows[:kept])
    np.testing.assert_array_equal(table[-1], rows[-1])
    np.testing.assert_array_equal(table[kept:-1], fresh["Embed_0"]["embedding"][kept:-1])
    assert f"those that both have: Embed_0/embedding [5, 8] -> [{classes + 1}, 8]" in caplog.text
    if classes > toys.CLASSES:
        with pytest.raises(ValueError, match=r"not have all of Embed_0/embedding, .* would stay; leave it out of"):
            origin.begin_with(path, info, fresh, Tuning(frozenset({"Embed_0/embedding"})))


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train": {"freeze": ["Cnov_0/*"]}}, r"train.freeze: no parameter is called 'Cnov_0/\*'; .* are Conv_0/\*"),
        ({"train": {"freeze": ["*"]}}, r"leaves nothing to train"),
        ({**LORA, "lora": {"targets": ["*/bias"]}}, r"lora.targets: no kernel is called '\*/bias'"),
        ({**LORA, "lora": {"train": ["label"]}}, r"lora.train: no parameter is called 'label'"),
        ({**LORA, "lora": {"train": ["*/kernel"]}}, r"trains all of config.lora.targets whole; name less"),
        ({**LORA, "init_from": None}, r"name a run or an export with config.init_from"),
        ({**LORA, "train": {"freeze": ["Conv_0/*"]}}, r"leave config.train.freeze out"),
        ({**LORA, "lora": {"rank": 0}}, r"config.lora.rank = 0; it must be 1 or more"),
    ],
)
def test_wrong_keys_are_one_line(overrides, message):
    with pytest.raises(ValueError, match=message) as caught:
        recipe_of(toys.config(**overrides))
    assert "\n" not in str(caught.value)


def recipe_of(config):
    return recipes.make_recipe(config, TOY, (8, 8, 1), recipes.make_telling(config, toys.dataset()))


TOY = make_model(toys.config(), toys.CLASSES)


def test_a_first_run_trains_everything():
    config = toys.config(lora={"rank": 2}, first={"train": {"num_steps": 2}})
    assert origin.first_config(config).lora is None
    assert tuning_of(origin.first_config(config), dict) == Tuning()
    frozen = toys.config(train={"freeze": ["*/bias"]}, first={})
    assert origin.first_config(frozen).train.freeze == ()
