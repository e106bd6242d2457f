"""Bridges between Gaussians, whose velocity and flow are known: losses, samples, pairs, what the network is told.

Paired: a source y, x1 = A y + B + C n, x0 = y + S n0. Given y all is Gaussian: the mean is t (A y + B) + (1 - t) y and
V_t = t^2 C^2 + (1 - t)^2 S^2 + gamma^2, so the flow carries y + S n0 to A y + B + (C / S) (S n0).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd import methods
from fmd.config import Settings, resolve
from fmd.methods import Drawn
from fmd.models.network import ModelNetwork
from fmd.randomness import step_rng
from fmd.types import Told

A, B, C, S = -0.5, 0.4, 0.3, 0.6
CLASSES = 4
SPEC = {
    "label": {"kind": "label", "num_classes": CLASSES},
    "source": {"kind": "image", "height": 1, "width": 1, "channels": 1},
}
SETTINGS = Settings(solver="rk4", steps=40)


def network_of(answer):
    """A network that computes answer(x, t [B, 1, 1, 1], y), with the drops of a model."""

    def apply(variables, x, t, y, train=False):
        return answer(x, t.reshape(-1, 1, 1, 1), y)

    return ModelNetwork(apply, {}, CLASSES, SPEC)


def bumps(t, gamma):
    """(V_t, V_t'/2) given the source."""
    rate = t * C**2 - (1 - t) * S**2 + gamma**2 * (0.5 - t)
    return t**2 * C**2 + (1 - t) ** 2 * S**2 + gamma**2 * t * (1 - t), rate


def exact(gamma):
    def velocity(x, t, y):
        source, (variance, rate) = y["source"].value, bumps(t, gamma)
        end = A * source + B
        return end - source + rate / variance * (x - t * end - (1 - t) * source)

    return velocity


def told(count, seed=0):
    return {
        "label": jnp.arange(count, dtype=jnp.int32) % CLASSES,
        "source": jax.random.normal(jax.random.key(seed), (count, 1, 1, 1)),
    }


@pytest.mark.parametrize("gamma", [0.0, 0.8])
def test_the_exact_network_of_a_paired_gaussian_draws_the_law_given_the_source(gamma):
    method, y = methods.get("bridge", noise_std=S, gamma=gamma), told(7)
    noise = jax.random.normal(jax.random.key(1), (7, 1, 1, 1))
    found = method.sample(network_of(exact(gamma)), noise, y, SETTINGS)
    np.testing.assert_allclose(found.x, A * y["source"] + B + C * noise, atol=2e-3 if gamma else 1e-5)
    assert (found.evaluations == 160).all()


@pytest.mark.parametrize("gamma", [0.0, 0.8])
@pytest.mark.parametrize("t", [0.2, 0.7])
def test_its_loss_is_the_variance_that_the_target_keeps(gamma, t):
    """C^2 + S^2 + gamma'^2 - (V_t'/2)^2 / V_t."""
    count, method = 200_000, methods.get("bridge", noise_std=S, gamma=gamma)
    y, (noise, n, z) = told(count), jax.random.normal(jax.random.key(1), (3, count, 1, 1, 1))
    x1, never = A * y["source"] + B + C * n, jnp.zeros(count, bool)
    drawn = Drawn(noise, x1, y, jnp.full(count, t), never, z=z if gamma else None)
    loss = method.loss(network_of(exact(gamma)), drawn).value
    variance, rate = bumps(t, gamma)
    slope = gamma * (0.5 - t) / (t * (1 - t)) ** 0.5
    assert float(loss.mean()) == pytest.approx(C**2 + S**2 + slope**2 - rate**2 / variance, rel=0.02)


@pytest.mark.parametrize("told_it", ["never", "sometimes"])
def test_unpaired_gaussians_are_carried_over_without_being_told(told_it):
    """From N(m0, V0 + S^2) to N(m1, V1): x - m1 is the root of the variances' ratio times x0 - m0."""
    m0, v0, m1, v1 = 0.5, 0.2, -0.4, 0.7

    def velocity(x, t, y):
        variance = t**2 * v1 + (1 - t) ** 2 * (v0 + S**2)
        return m1 - m0 + (t * v1 - (1 - t) * (v0 + S**2)) / variance * (x - t * m1 - (1 - t) * m0)

    y, noise = told(5), jax.random.normal(jax.random.key(1), (5, 1, 1, 1))
    method = methods.get("bridge", noise_std=S, paired=False, told=told_it)
    found = method.sample(network_of(velocity), noise, y, SETTINGS).x
    x0 = y["source"] + S * noise
    np.testing.assert_allclose(found, m1 + (v1 / (v0 + S**2)) ** 0.5 * (x0 - m0), atol=1e-5)


def test_without_noise_a_network_that_is_told_its_source_ends_at_the_mean():
    def velocity(x, t, y):
        source, end = y["source"].value, A * y["source"].value + B
        return end - source + jnp.where(t > 0, 1 / jnp.where(t > 0, t, 1), 0) * (x - t * end - (1 - t) * source)

    y = told(5)
    found = methods.get("bridge", noise_std=0.0).sample(network_of(velocity), jnp.ones((5, 1, 1, 1)), y, SETTINGS).x
    np.testing.assert_allclose(found, A * y["source"] + B, atol=1e-4)


def source_of(form):
    """(a source [1, h, w, c], where it begins on the grid [1, 4, 4, 3])."""
    colours = jnp.asarray([0.0, 0.5, -1.0])
    flat = jnp.broadcast_to(colours, (1, 2, 2, 3))
    return {
        "small": (flat, colours),
        "told": (Told(flat, jnp.zeros(1, bool)), colours),
        "bytes": (jnp.full((1, 4, 4, 3), 51, jnp.uint8), -0.6),
        "grey": (jnp.full((1, 8, 8, 1), 0.25), 0.25),
        "numbers": (np.full((1, 4, 4, 1), 51, np.uint8), -0.6),
    }[form]


@pytest.mark.parametrize("form", ["small", "told", "bytes", "grey", "numbers"])
def test_a_source_of_any_size_begins_on_the_grid_of_the_images(form):
    source, expected = source_of(form)
    noise = jax.random.normal(jax.random.key(0), (1, 4, 4, 3))
    found = methods.get("bridge", source="low", noise_std=0.3).start({"low": source}, noise)
    np.testing.assert_allclose(found - 0.3 * noise, jnp.broadcast_to(expected, noise.shape), atol=1e-6)


def test_a_source_is_resized_as_the_network_sees_it():
    source = jax.random.normal(jax.random.key(0), (2, 2, 2, 1))
    found = methods.get("bridge", noise_std=0.0).start({"source": source}, jnp.zeros((2, 4, 4, 1)))
    np.testing.assert_allclose(found, jax.image.resize(source, (2, 4, 4, 1), "linear"))


@pytest.mark.parametrize(
    ("hears", "heard", "guided"),
    [("always", [True, True], 11 - 2 * 10), ("sometimes", [True, False], 10 - 2 * 9), ("never", [False] * 2, 10 - 20)],
)
def test_the_network_is_told_the_source_always_sometimes_or_never(hears, heard, guided):
    """`heard` where the second example is untold; `guided` is null + 2 (full - null) of the answers below."""

    def answer(x, t, y):
        seen.append(y)
        return (1.0 * y["source"].told + 10.0 * (y["label"] == CLASSES)).reshape(-1, 1, 1, 1)

    seen, y, x = [], told(2), jnp.zeros((2, 1, 1, 1))
    method, network = methods.get("bridge", told=hears, noise_std=0.0), network_of(answer)
    drawn = Drawn(x, x, y, jnp.full(2, 0.5), jnp.asarray([False, True]))
    method.loss(network, drawn)
    np.testing.assert_array_equal(seen[0]["source"].told, heard)
    np.testing.assert_array_equal(seen[0]["label"], [0, CLASSES])
    found = method.sample(network, x, y, Settings(solver="euler", steps=1).replace(weight=2.0)).x
    np.testing.assert_allclose(found - y["source"], guided, atol=1e-5)
    marked = {**y, "source": Told(y["source"], jnp.zeros(2, bool))}  # it begins there all the same
    method.loss(network, drawn._replace(y=marked))
    np.testing.assert_array_equal(seen[-1]["source"].told, hears == "always")
    np.testing.assert_array_equal(method.start(marked, x), y["source"])


def draw(method, x1, y, step=3, axis_name=None, index=None, size=None):
    index = jnp.arange(len(x1)) if index is None else index
    return method.draw(step_rng(0, jnp.int32(step), index, size or len(x1), axis_name), x1, y)


def test_paired_draws_keep_what_the_data_pair_and_others_shuffle_the_sources_alone():
    y, x1 = told(500), jax.random.normal(jax.random.key(7), (500, 1, 1, 1))
    kept, mixed, later = (
        draw(methods.get("bridge", paired=paired, gamma=0.1), x1, y, step)
        for paired, step in ((True, 3), (False, 3), (False, 4))
    )
    np.testing.assert_array_equal(kept.y["source"], y["source"])
    np.testing.assert_array_equal(np.sort(mixed.y["source"].ravel()), np.sort(y["source"].ravel()))
    together = [np.sort((d.y["source"] + d.x0).ravel()) for d in (mixed, kept)]
    np.testing.assert_array_equal(*together)  # the noise on a source moves with it
    np.testing.assert_array_equal(mixed.y["label"], y["label"])
    np.testing.assert_array_equal(mixed.x1, x1)
    assert np.mean(mixed.y["source"] == y["source"]) < 0.02
    assert np.mean(mixed.y["source"] == later.y["source"]) < 0.02
    assert abs(np.corrcoef(kept.z.ravel(), kept.x0.ravel())[0, 1]) < 0.2
    assert kept.z.shape == x1.shape
    assert draw(methods.get("bridge"), x1, y).z is None


@pytest.mark.parametrize(("labels", "expected"), [([0, 0], [1, 0]), ([0, 1], [0, 1])])
def test_a_coupling_pairs_sources_with_the_nearest_images_of_their_class(labels, expected):
    source, x1 = (jnp.asarray(values, jnp.float32).reshape(2, 1, 1, 1) for values in ([0, 1], [1.1, 0.1]))
    method = methods.get("bridge", noise_std=0.0, paired=False, coupling="optimal_transport")
    drawn = draw(method, x1, {"label": jnp.asarray(labels, jnp.int32), "source": source})
    np.testing.assert_array_equal(drawn.y["source"].ravel(), expected)


@pytest.mark.parametrize("coupling", ["independent", "optimal_transport", "sinkhorn"])
def test_devices_that_share_a_batch_draw_what_one_alone_would(coupling):
    """`vmap` over a named axis stands for the devices."""
    method = methods.get("bridge", paired=False, coupling=coupling, gamma=0.5)
    y, x1 = told(8), jax.random.normal(jax.random.key(7), (8, 1, 1, 1))
    whole = draw(method, x1, y)
    parts = jax.tree.map(lambda a: a.reshape(2, 4, *a.shape[1:]), (x1, y, jnp.arange(8)))
    shares = jax.vmap(lambda x1, y, index: draw(method, x1, y, 3, "d", index, 8), axis_name="d")(*parts)
    for alone, shared in zip(jax.tree.leaves(whole), jax.tree.leaves(shares), strict=True):
        np.testing.assert_allclose(shared.reshape(alone.shape), alone, atol=1e-6)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"coupling": "optimal_transport"}, r"would part what the data pair: .* --config\.method\.paired=False"),
        ({"gamma": 0.5, "clip_data": True}, "clip_data needs gamma = 0"),
        ({"schedule": "ve"}, "a bridge begins at x0: take another, e.g. linear"),
        ({"noise_std": -1.0}, "noise_std = -1.0; it must be 0 or more"),
        ({"told": "often"}, "one of always, sometimes, never"),
    ],
)
def test_wrong_parameters_are_one_line(params, message):
    with pytest.raises(ValueError, match=message) as refused:
        methods.get("bridge", **params)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (jnp.zeros(2, jnp.int32), "'source': the condition is a label alone"),
        ({"low": jnp.zeros((2, 1, 1, 1))}, "the condition is parts low; name one"),
        ({"source": jnp.zeros((2, 3))}, r"is of shape \[B, 3\]; a source must be an image \[B, h, w, 3\], or grey"),
        ({"source": jnp.zeros((2, 4, 4, 2))}, r"\[B, 4, 4, 2\]; a source must"),
    ],
)
def test_a_condition_without_such_an_image_is_one_line(y, message):
    with pytest.raises(ValueError, match=message):
        draw(methods.get("bridge"), jnp.zeros((2, 4, 4, 3)), y)


@pytest.mark.parametrize(
    ("params", "settings", "message"),
    [
        ({}, {"sde": {"name": "sigma"}, "solver": "heun"}, "needs the score, and method 'bridge' has none"),
        ({"gamma": 0.5}, {"schedule": {"name": "cosine"}}, "along the schedule of its training"),
        ({}, {"solver": "jump"}, "'jump' needs a network that is told a second time"),
    ],
)
def test_what_a_bridge_cannot_do_is_refused(params, settings, message):
    with pytest.raises(ValueError, match=message):
        methods.get("bridge", **params).check(Settings().replace(**settings))


def test_another_schedule_draws_the_same_where_there_is_no_gamma():
    y, noise = told(3), jax.random.normal(jax.random.key(1), (3, 1, 1, 1))
    method, settings = methods.get("bridge", noise_std=S), SETTINGS.replace(schedule={"name": "cosine"})
    method.check(settings)
    found = method.sample(network_of(exact(0.0)), noise, y, settings).x
    np.testing.assert_allclose(found, A * y["source"] + B + C * noise, atol=1e-4)


def test_its_fields_are_keys_of_a_config():
    block = {"name": "bridge", "source": "low", "noise_std": 0.2, "gamma": 0.1, "paired": False, "told": "never"}
    config = resolve({"method": block, "path": {"schedule": {"name": "cosine"}}, "train": {"label_dropout": 0.3}})
    method = methods.from_config(config)
    assert (method.source, method.noise_std, method.gamma, method.paired) == ("low", 0.2, 0.1, False)
    assert (method.told, method.schedule.name, method.label_dropout) == ("never", "cosine", 0.3)
    assert (method.validated.paired, method.validated.gamma) == (True, 0.1)
    with pytest.raises(ValueError, match=r"config\.path\.prediction = 'data' has no effect with method 'bridge'"):
        methods.from_config(resolve({"method": block, "path": {"prediction": "data"}}))


def test_an_overshoot_beyond_black_is_no_error_and_is_clipped():
    """x1 = -1 from a source of -1: a network that answers -0.5 overshoots, one that answers 0.5 does not."""
    y, ones = {"source": -jnp.ones((1, 1, 1, 1)), "label": jnp.zeros(1, jnp.int32)}, jnp.ones((1, 1, 1, 1))
    method = methods.get("bridge", noise_std=0.0, clip_data=True)
    drawn = Drawn(ones, -ones, y, jnp.full(1, 0.5), jnp.zeros(1, bool))
    losses = [float(method.loss(network_of(lambda x, t, y, v=v: v * ones), drawn).value[0]) for v in (-0.5, 0.5)]
    assert losses == [0.0, 0.25]
    euler = Settings(solver="euler", steps=2)
    found = method.sample(network_of(lambda x, t, y: -0.5 * jnp.ones_like(x)), ones, y, euler).x
    np.testing.assert_allclose(found, -1.0, atol=1e-6)
