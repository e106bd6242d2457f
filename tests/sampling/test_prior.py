"""Questions to a trained model: they are those of `fmd.math`, over batches and devices, and wrong ones are refused."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from fmd.devices import make_layout
from fmd.math import anomaly, classification, editing, operators, restoration
from fmd.math.pixels import to_uint8, to_unit
from fmd.math.simulators import solve_ode
from fmd.models.registry import build_model
from fmd.randomness import example_normal, stream
from fmd.sampling import judging, prior, restoring
from fmd.sampling.editing import INVERTED_FROM
from fmd.sampling.restoring import STRIDE
from fmd.sampling.sampler import Sampler
from fmd.training import recipe
from tests.helpers import half_trained, toys

KEY = jax.random.key(3)
SEEN = operators.get("mask", hidden="lower_half")
LABELS = np.asarray([0, 1, 2, 3, 1], np.int32)


@pytest.fixture(scope="module")
def images():
    return toys.dataset().test.images[:5]


@pytest.fixture(scope="module")
def field(sampler):
    return prior.field_of(sampler, sampler.params, 1)


@pytest.fixture(scope="module")
def restored(sampler, images):
    return sampler.restore(SEEN(to_unit(jnp.asarray(images))), SEEN, KEY, LABELS, steps=3, draws=2, method="flower")


def near(found, expected):
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize("method", ["tweedie", "pigdm", "flower", "projection", "d_flow"])
def test_restore_is_that_of_the_mathematics(sampler, field, images, method):
    y = SEEN(to_unit(jnp.asarray(images)))
    found = sampler.restore(y, SEEN, KEY, LABELS, steps=2, method=method, noise_std=0.1)
    options = {"shape": (5, 8, 8, 1), "noise_std": 0.1, "method": method, "steps": 2, "args": jnp.asarray(LABELS)}
    near(found, to_uint8(restoration.restore(field, y, SEEN, KEY, **options)))


def test_a_restoration_asks_for_attention_with_forward_derivatives(info, images, monkeypatch):
    """cuDNN's has none, and half of the methods take them."""
    given = {"depth": 1, "width": 16, "heads": 2, "dtype": "bfloat16", "num_classes": 4}
    model, other = (build_model("transformer", {**given, "attention": kind}) for kind in ("cudnn", "xla"))
    asked = []
    monkeypatch.setattr(restoring, "ask", lambda *given, model, **more: asked.append(model) or images)
    Sampler.from_info(info, model=model).restore(SEEN(to_unit(jnp.asarray(images))), SEEN, KEY, LABELS)
    assert asked == [other]


def test_tweedie_is_warned_of_where_training_clipped(info, images, monkeypatch, caplog):
    """Its digits were restored with 9 dB in place of 26."""
    monkeypatch.setattr(restoring, "ask", lambda *given, **more: images)
    method, y = {"name": "flow_matching", "clip_data": True}, SEEN(to_unit(jnp.asarray(images)))
    for each, way, warned in ((info, "tweedie", False), (half_trained.make_info(method=method), "flower", False),
                              (half_trained.make_info(method=method), "tweedie", True)):  # fmt: skip
        caplog.clear()
        Sampler.from_info(each).restore(y, SEEN, KEY, LABELS, method=way)
        assert ("take flower" in caplog.text) == warned


def test_draws_differ_and_depend_on_nothing_but_their_number(sampler, field, images, restored):
    assert (restored.shape, restored.dtype) == ((5, 2, 8, 8, 1), np.uint8)
    assert (restored[:, 0] != restored[:, 1]).any()
    y = SEEN(to_unit(jnp.asarray(images)))
    options = {"steps": 3, "method": "flower"}
    near(sampler.restore(y, SEEN, KEY, LABELS, batch_size=2, **options), restored[:, 0])
    second = restoration.restore(
        field, y[1:2], SEEN, KEY, shape=(1, 8, 8, 1), noise_std=0.05, indices=jnp.asarray([STRIDE + 1]),
        args=jnp.asarray(LABELS[1:2]), **options,
    )  # fmt: skip
    near(to_uint8(second), restored[1:2, 1])
    near(sampler.restore(images, SEEN, KEY, LABELS, **options), restored[:, 0])  # uint8, and what is hidden is ignored


def test_one_program_for_equal_operators(sampler, images, restored):
    before = len(sampler.programs)
    again = sampler.restore(images, operators.get("mask", hidden="lower_half"), KEY, LABELS, steps=3, method="flower")
    assert len(sampler.programs) == before
    near(again, restored[:, 0])


def test_eight_devices_answer_as_one_does(info, params, images, restored):
    many = Sampler.from_info(info, params=params, layout=make_layout("mesh", fsdp=2))
    near(many.restore(images, SEEN, KEY, LABELS, steps=3, method="flower"), restored[:, 0])


def test_black_pixels_are_inverted_to_noise_of_their_own(params, images):
    """A model trained with clip_data leads many noises to black: left as it is, it would say -1 of them all."""
    info = recipe.make_info(toys.config(method={"name": "flow_matching", "clip_data": True}), toys.dataset())
    sampler, labels = Sampler.from_info(info, params=params, layout=make_layout("jit")), jnp.asarray(LABELS)
    field = prior.field_of(sampler, params, 1)

    def noise_of(images, number):
        added = example_normal(jax.random.fold_in(stream(0, "inverting"), number), jnp.arange(5), (8, 8, 1))
        noised = INVERTED_FROM * to_unit(jnp.asarray(images)) + (1 - INVERTED_FROM) * added
        return editing.invert(field, noised, start=INVERTED_FROM, args=labels, steps=5)

    np.testing.assert_allclose(sampler.invert(images, LABELS, steps=5), noise_of(images, 0), atol=1e-4)
    black = np.zeros_like(images)
    frames = sampler.interpolate(images, black, LABELS, shares=(0, 1), steps=5)
    for frame, noise in zip(frames, (noise_of(images, 0), noise_of(black, 1)), strict=True):
        near(frame, to_uint8(solve_ode(field, noise, args=labels, solver="midpoint", steps=5, end_epsilon=0.0).x))


@pytest.mark.slow
def test_edit_invert_and_interpolate_are_those_of_the_mathematics(sampler, field, images):
    x, labels, other = to_unit(jnp.asarray(images)), jnp.asarray(LABELS), np.roll(LABELS, 1)
    flow = editing.flow_edit(field, x, KEY, source=labels, target=jnp.asarray(other), steps=4)
    near(sampler.edit(images, other, KEY, source=LABELS, steps=4), to_uint8(flow))
    sde = editing.sde_edit(field, x, KEY, args=jnp.asarray(other), start=0.6, steps=4, end_epsilon=0.0)
    near(sampler.edit(images, other, KEY, method="sde_edit", start=0.6, steps=4), to_uint8(sde))
    noise, error = sampler.round_trip(images, LABELS, steps=20)
    np.testing.assert_allclose(noise, editing.invert(field, x, args=labels, steps=20, end_epsilon=0.0), atol=1e-4)
    np.testing.assert_array_equal(sampler.invert(images, LABELS, steps=20), noise)
    assert (error < 0.01).all()
    near(sampler(LABELS, noise=noise, weight=1.0, solver="midpoint", steps=20), images)
    near(sampler.edit(images, LABELS, KEY, source=LABELS, method="invert", steps=20), images)
    frames = sampler.interpolate(images[:2], images[2:4], LABELS[:2], shares=(0, 0.5, 1), steps=20)
    near(frames[[0, 2]], np.stack([images[:2], images[2:4]]))
    assert (frames[1] != frames[0]).any()


@pytest.mark.slow
def test_classes_bits_and_reconstructions(sampler, field, images):
    found = sampler.classify(images, KEY, draws=6, first=3, keep=2)
    options = {"labels": jnp.arange(4), "draws": 6, "first": 3, "keep": 2}
    np.testing.assert_allclose(
        found, classification.by_errors(field, to_unit(jnp.asarray(images)), KEY, **options), rtol=2e-3, atol=1e-2
    )
    np.testing.assert_allclose(np.exp(sampler.classify(images, exact=True)).sum(1), 1, rtol=1e-4)
    bits = sampler.bits_per_dim(images, LABELS)
    assert bits.shape == (5,)
    np.testing.assert_allclose(sampler.bits_per_dim(images, LABELS, batch_size=2), bits, rtol=1e-4)
    assert (sampler.bits_per_dim(images) != bits).any()  # untold
    assert judging.reconstruction(sampler, images, draws=1, steps=2).shape == (5,)
    missed = judging.residuals(sampler, images, LABELS, KEY, times=(0.3, 0.7), draws=2, batch_size=2)
    options = {"times": (0.3, 0.7), "draws": 2, "args": LABELS}
    np.testing.assert_allclose(
        missed, anomaly.residuals(field, to_unit(jnp.asarray(images)), KEY, **options), rtol=1e-4
    )


def test_the_weight_makes_another_prior(sampler, images):
    one, two, none = (sampler.edit(images, LABELS, KEY, method="sde_edit", steps=2, weight=w) for w in (1, 2.0, 0))
    assert (one != two).any()
    near(none, sampler.edit(images, None, KEY, method="sde_edit", steps=2))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda s, x: s.restore(x[:, :4], SEEN, KEY), r"the measurement is \[5, 4, 8, 1\], but operator 'mask' makes"),
        (lambda s, x: s.restore(x, operators.get("grey"), KEY), r"'grey' does not take images \(8, 8, 1\)"),
        (lambda s, x: s.restore(x, jnp.square, KEY, method="flower"), "'square' is not linear"),
        (lambda s, x: s.restore(x, SEEN, KEY, method="flower", noise_std=0), "divides by noise_std, which is 0"),
        (lambda s, x: s.restore(x, "mask", KEY), "operator='mask'; give operators.get"),
        (lambda s, x: s.restore(x, SEEN, 0), "key=0; give a key of JAX"),
        (lambda s, x: s.edit(x, LABELS, 0), "key=0; give a key of JAX"),
        (lambda s, x: s.classify(x, 0), "key=0; give a key of JAX"),
        (lambda s, x: s.bits_per_dim(x, LABELS, 0), "key=0; give a key of JAX"),
        (lambda s, x: s.restore(x, SEEN, KEY, draws=0), "draws=0 must be at least 1"),
        (lambda s, x: s.restore(x, SEEN, KEY, LABELS[:2]), "y is of 2 examples for 5 images"),
        (lambda s, x: s.restore(x, SEEN, KEY, np.full(5, 9)), "label 9; this model knows 0 to 3, and 4"),
        (lambda s, x: s.restore(x, SEEN, KEY, weight=np.nan), "guidance weight is nan"),
        (lambda s, x: s.edit(x, LABELS, KEY, method="sde"), "unknown method of editing 'sde'; known: flow_edit"),
        (lambda s, x: s.edit(x, LABELS, KEY, start=1.0), r"start=1.0 must be in \[0, 1\)"),
        (lambda s, x: s.edit(x / 255, LABELS, KEY), r"images must be uint8 \[B, 8, 8, 1\], one or more, not float64"),
        (lambda s, x: s.classify(x[..., 0]), r"images must be uint8 \[B, 8, 8, 1\].* not uint8 \[5, 8, 8\]"),
        (lambda s, x: s.classify(x, draws=0), "draws at least 1"),
        (lambda s, x: s.interpolate(x, x[:2]), "5 images to begin with and 2 to end with"),
    ],
)  # fmt: skip
def test_one_line_for_what_is_wrong(sampler, images, ask, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users have it
    with pytest.raises(ValueError, match=message) as raised:
        ask(sampler, images)
    assert "\n" not in str(raised.value)


def test_a_model_that_never_did_without_labels(info, params, images):

    strict = info.replace(
        config=replace(
            info.config,
            train=replace(info.config.train, label_dropout=0.0),
            sample=info.config.sample.replace(weight=1.0),
        )
    )
    sampler = Sampler.from_info(strict, params=params, layout=make_layout("jit"))
    with pytest.raises(ValueError, match="cannot do without labels: give y"):
        sampler.restore(images, SEEN, KEY)
    with pytest.raises(ValueError, match=r"guidance weight 2\.0 needs a model trained with labels"):
        sampler.restore(images, SEEN, KEY, LABELS, weight=2.0)
