"""The sampler: an image is a function of (key, label, index), guidance is what it says, wrong wishes are refused."""

import jax
import numpy as np
import pytest

from fmd.checkpoints.store import Store
from fmd.devices import make_layout
from fmd.files import write_json
from fmd.models.registry import build_model
from fmd.randomness import example_normal
from fmd.sampling import checks
from fmd.sampling.sampler import Sampler, load
from fmd.training import recipe
from tests.helpers import half_trained, toys

KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def images(sampler):
    return sampler([0, 1, 2, 3, 4], KEY)


def test_images_are_uint8_one_per_label_and_repeatable(sampler, images):
    assert (images.dtype, images.shape) == (np.uint8, (5, 8, 8, 1))
    np.testing.assert_array_equal(sampler([0, 1, 2, 3, 4], KEY), images)
    assert (sampler([0, 1, 2, 3, 4], jax.random.key(8)) != images).any()


def test_an_image_does_not_depend_on_how_many_are_drawn_with_it(sampler, images):
    np.testing.assert_array_equal(sampler([0, 1, 2], KEY), images[:3])
    np.testing.assert_array_equal(sampler([0, 1, 2, 3, 4], KEY, batch_size=2), images)


def test_noise_may_be_given_in_place_of_a_key(sampler, images):
    labels = [0, 1, 2, 3, 4]
    noise = np.asarray(example_normal(KEY, jax.numpy.arange(5), (8, 8, 1)))
    drawn = sampler(labels, noise=noise)
    assert np.abs(drawn.astype(int) - images).max() <= 1  # the key's noise is drawn inside of another program
    np.testing.assert_array_equal(sampler(labels, noise=noise, batch_size=2), drawn)
    for wrong in ({}, {"key": KEY, "noise": noise}):
        with pytest.raises(ValueError, match="give one of the two"):
            sampler(labels, **wrong)
    for wrong in (noise[:4], noise[..., 0], np.zeros((5, 8, 8, 1), np.int32), [[1.0]]):
        with pytest.raises(ValueError, match=r"floats of shape \(5, 8, 8, 1\)"):
            sampler(labels, noise=wrong)


@pytest.mark.parametrize(("mode", "fsdp"), [("mesh", 1), ("mesh", 4), ("pmap", 1)])
def test_eight_devices_draw_what_one_draws(info, params, images, mode, fsdp):
    many = Sampler.from_info(info, params=params, layout=make_layout(mode, fsdp=fsdp))
    difference = many([0, 1, 2, 3, 4], KEY).astype(int) - images
    assert np.abs(difference).max() <= 1  # rounding to uint8 may fall either way
    assert (difference != 0).mean() < 0.01


@pytest.mark.parametrize(
    ("grid", "knots"), [(None, [0, 1 / 3, 2 / 3, 1]), ({"name": "shifted", "factor": 2.0}, [0, 0.2, 0.5, 1])]
)
def test_the_result_is_the_solution_of_the_guided_equation_written_out(info, params, sampler, grid, knots):
    """Three steps of the midpoint rule by hand."""
    model = build_model("toy", {"num_classes": toys.CLASSES})

    def velocity(x, t, weight=2.0):
        time, labels = np.full(5, t, np.float32), np.arange(5, dtype=np.int32)
        conditional = model.apply({"params": params}, x, time, labels)
        unconditional = model.apply({"params": params}, x, time, np.full(5, toys.CLASSES, np.int32))
        return unconditional + weight * (conditional - unconditional)

    x = np.stack([jax.random.normal(jax.random.fold_in(KEY, i), (8, 8, 1)) for i in range(5)])
    for t, step in zip(knots[:-1], np.diff(knots), strict=True):
        x = x + velocity(x + velocity(x, t) * step / 2, t + step / 2) * step
    images = sampler(np.arange(5), KEY, grid=grid).astype(int)
    by_hand = np.clip(np.round((np.asarray(x) + 1) * 127.5), 0, 255).astype(int)
    assert np.abs(by_hand - images).max() <= 1


def test_weight_one_ignores_the_null_label_and_weight_zero_the_label(sampler, params):
    changed = jax.tree.map(np.array, params)
    changed["Embed_0"]["embedding"][toys.CLASSES] += 3.0
    labels = [0, 1, 2, 3]
    plain = sampler(labels, KEY, weight=1.0)
    np.testing.assert_array_equal(sampler(labels, KEY, weight=1.0, params=changed), plain)
    assert (sampler(labels, KEY, weight=2.0, params=changed) != sampler(labels, KEY, weight=2.0)).any()
    null = sampler([toys.CLASSES] * 4, KEY, weight=1.0)
    np.testing.assert_array_equal(sampler(labels, KEY, weight=0.0), null)


def test_costs_are_counted_per_image_with_both_halves_of_guidance(sampler):
    assert (sampler.sample([0, 1], KEY).evaluations == 3 * 2 * 2).all()  # the midpoint rule asks twice a step
    assert (sampler.sample([0, 1], KEY, weight=1.0).evaluations == 3 * 2).all()
    assert (sampler.sample([0, 1], KEY, weight=1.0, solver="euler", steps=5).evaluations == 5).all()
    adaptive = sampler.sample([0, 1], KEY, weight=1.0, solver="tsit5", rtol=1e-4, atol=1e-4)
    assert adaptive.success.all()
    assert (adaptive.evaluations > 6).all()


def test_one_program_serves_all_weights_but_exactly_none_and_one(info, params):
    fresh = Sampler.from_info(info, params=params, layout=make_layout("jit"))
    for weight in (1.5, 3.0, -0.5):
        fresh([0, 1], KEY, weight=weight)
    assert len(fresh.programs) == 1
    (program,) = fresh.programs.values()
    assert program._cache_size() == 1


@pytest.mark.parametrize(("labels", "settings", "message"), [
    ([], {}, "one or more whole numbers"),
    ([[1]], {}, "one or more whole numbers"),
    ([0.5], {}, "one or more whole numbers"),
    ([-1], {}, "this model knows 0 to 3"),
    ([5], {}, "and 4 for an unconditional image"),
    ([0], {"weight": float("nan")}, "weight"),
    ([0], {"solver": "eulr"}, "solver"),
    ([0], {"steps": 0}, "steps"),
    ([0], {"rule": {"name": "cgf"}}, "cgf"),
    ([0], {"rule": {"name": "cfg", "intervall": (0, 1)}}, "intervall"),
    ([0], {"rtol": 1e-3}, "rtol"),
    ([0], {"grid": {"name": "log"}}, "unknown time grid 'log'"),
    ([0], {"grid": {"name": "shifted", "factor": -1.0}}, "factor = -1.0; it must be above 0"),
    ([0], {"solver": "tsit5", "grid": {"name": "cosine"}}, "'tsit5' chooses its own"),
])  # fmt: skip
def test_wrong_wishes_are_refused(sampler, labels, settings, message):
    with pytest.raises((ValueError, KeyError), match=message):
        sampler(labels, KEY, **settings)


def test_a_seed_is_no_key():
    with pytest.raises(ValueError, match=r"key=0; give a key of JAX, jax.random.key\(seed\)"):
        checks.noise(None, 0, (1, 8, 8, 1))


def test_guidance_on_a_model_trained_without_label_dropout_is_refused(params):
    info = recipe.make_info(
        toys.config(train={"label_dropout": 0.0}, sample={"guidance": {"name": "cfg", "weight": 1.0}}), toys.dataset()
    )
    sampler = Sampler.from_info(info, params=params, layout=make_layout("jit"))
    with pytest.raises(ValueError, match="needs a model trained with labels and"):
        sampler([0], KEY, weight=2.0)


def test_the_averages_of_a_run_draw_their_own_images(info, params, images, tmp_path):
    write_json(tmp_path / "run" / "config.json", info.to_json())
    store = Store(tmp_path / "run" / "checkpoints")
    ema = {name: params for name in info.averages}
    ema["decay1"] = jax.tree.map(lambda x: x * 1.5, params)
    store.save(3, ema=ema, train={"step": np.int32(3)})
    store.close()
    labels, layout = [0, 1, 2, 3, 4], make_layout("jit")
    np.testing.assert_array_equal(load(tmp_path / "run", layout=layout)(labels, KEY), images)
    assert (load(tmp_path / "run", average="decay1", layout=layout)(labels, KEY) != images).any()


@pytest.mark.parametrize("solver", ["tsit5", "bosh3"])
def test_steps_given_to_a_solver_that_chooses_its_own_are_refused(sampler, solver):
    with pytest.raises(ValueError, match=f"steps = 7 has no effect with '{solver}'"):
        sampler([0, 1], KEY, solver=solver, steps=7)
    assert sampler([0, 1], KEY, sampler.settings.replace(solver=solver, tolerance=0.1)).shape == (2, 8, 8, 1)


@pytest.mark.parametrize("named", [("label",), ("style", "label")])
def test_a_null_label_that_was_never_seen_is_refused_in_any_part(sampler, info, named):
    told = {name: {"kind": "label", "num_classes": 3} for name in named}
    config = toys.config(train={"label_dropout": 0.0}, sample={"guidance": {"name": "cfg", "weight": 1.0}})
    never = Sampler.from_info(info.replace(config=config, conditions=told, num_classes=3), model=sampler.model)
    for name in named:
        with pytest.raises(ValueError, match="label 3 asks for an unconditional image"):
            never({other: np.full(4, 3 * (other == name), np.int32) for other in named}, KEY)


def test_the_error_of_an_adaptive_solver_is_seen_in_float32():
    """A network of bfloat16 rounds by more than a usual tolerance."""
    drawn = {}
    for dtype in ("float32", "bfloat16"):
        model = {**half_trained.UNET, "dtype": dtype}
        narrow = half_trained.make_info(model=model, sample={"guidance": {"name": "cfg", "weight": 1.0}})
        sampler = Sampler.from_info(narrow, params=half_trained.make_params(narrow), layout=make_layout("jit"))
        ways = ({"solver": "dopri5", "tolerance": 0.1}, {"steps": 2})
        drawn[dtype] = [sampler.sample([0, 1], KEY, **way) for way in ways]
    for wide, narrow, same in zip(*drawn.values(), (True, False), strict=True):
        assert np.array_equal(wide.images, narrow.images) == same
    np.testing.assert_array_equal(*(adaptive.evaluations for adaptive, _ in drawn.values()))
