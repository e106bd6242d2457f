"""MeanFlow and shortcut models on a Gaussian, whose average velocity is known: losses, samples, draws, refusals.

Data N(m, s^2), linear path, S_t^2 = t^2 s^2 + (1 - t)^2. Then v = m + S'/S (x - t m), a jump is the affine map of the
marginals, and the losses of a perfect network are those of `few_step` in closed form.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd import methods
from fmd.config import Settings
from fmd.math import few_step
from fmd.methods import Drawn
from fmd.models import flops
from fmd.randomness import key, step_rng
from tests.helpers.networks import Answering

MEAN, STD = 0.7, 0.3
SHAPE = (2, 2, 1)


def spread(t):
    return jnp.sqrt(t**2 * STD**2 + (1 - t) ** 2)


def exact(x, t, y, r):
    """The average velocity from t to r; the velocity where r is t."""
    t, r = (a.reshape(-1, 1, 1, 1) for a in (t, t if r is None else r))
    slope = (t * STD**2 - (1 - t)) / spread(t) ** 2
    gap = jnp.where(r > t, r - t, 1.0)
    average = jnp.where(r > t, (spread(r) / spread(t) - 1) / gap, slope)
    return MEAN + average * (x - t * MEAN)


def drawn(t, r, count=200_000):
    keys = jax.random.split(jax.random.key(0))
    x0, x1 = (jax.random.normal(k, (count, 1, 1, 1)) for k in keys)
    full = [jnp.full(count, time, jnp.float32) for time in (t, r)]
    return Drawn(x0, MEAN + STD * x1, jnp.zeros(count, jnp.int32), full[0], jnp.zeros(count, bool), full[1])


@pytest.mark.parametrize(("t", "r"), [(0.2, 0.9), (0.0, 1.0), (0.4, 0.5), (0.6, 0.6)])
@pytest.mark.parametrize("tangent", ["pair", "network", "average"])
def test_a_perfect_network_has_the_loss_of_the_closed_form(t, r, tangent):
    method = methods.get("mean_flow", tangent=tangent, power=0.0)
    network = Answering(exact)
    loss = method.loss(network, drawn(t, r), network)
    expected = STD**2 * spread(r) ** 2 / spread(t) ** 4 if tangent == "pair" else STD**2 / spread(t) ** 2
    assert float(loss.value.mean()) == pytest.approx(float(expected), rel=0.02)
    np.testing.assert_array_equal(loss.value, loss.figures["squared_error"])


@pytest.mark.parametrize(("t", "r"), [(0.2, 0.9), (0.0, 1.0), (0.6, 0.6)])
def test_a_teacher_gives_targets_without_noise(t, r):
    method = methods.get("mean_flow", tangent="teacher", target="teacher", power=0.0)
    assert method.needs_teacher
    loss = method.loss(Answering(exact), drawn(t, r, 1000), Answering(lambda x, t, y, r: exact(x, t, y, None)))
    np.testing.assert_allclose(loss.value, 0.0, atol=1e-9)
    assert (method.validated.tangent, method.validated.target) == ("pair", "pair")


@pytest.mark.parametrize(("t", "r"), [(0.2, 0.9), (0.0, 1.0), (0.6, 0.6)])
@pytest.mark.parametrize("tangent", ["teacher", "network"])
def test_a_solved_flow_gives_targets_without_noise_or_derivative(t, r, tangent):
    """A network wrong by .1 where r > t has that error squared; at r = t the teacher's is right, not its own."""
    method = methods.get("mean_flow", tangent=tangent, target="teacher", power=0.0, steps=64)
    flow = Answering(lambda x, t, y, r: exact(x, t, y, None))
    off = Answering(lambda x, t, y, r: exact(x, t, y, r) + 0.1 * (r > t).reshape(-1, 1, 1, 1))
    np.testing.assert_allclose(method.loss(Answering(exact), drawn(t, r, 1000), flow).value, 0.0, atol=1e-6)
    np.testing.assert_allclose(method.loss(off, drawn(t, r, 1000), flow).value, 0.01 * (r > t), rtol=0.02, atol=1e-6)
    if r == t:
        wrong = Answering(lambda x, t, y, r: exact(x, t, y, r) + 0.1)
        np.testing.assert_allclose(method.loss(wrong, drawn(t, r, 1000), flow).value, 0.01, rtol=1e-3)
    assert method.validated.steps == 0


def test_the_solved_flow_of_a_network_carries_no_gradient():
    """The target moves with the network; the gradient is that of the jump alone, 2 (U - target)."""
    method = methods.get("mean_flow", tangent="network", target="teacher", power=0.0, steps=8)

    def loss(shift):
        network = Answering(lambda x, t, y, r: exact(x, t, y, r) + shift)
        return method.loss(network, drawn(0.0, 1.0, 500), Answering(exact)).value.mean()

    pairs = drawn(0.0, 1.0, 500)
    target = few_step.solved(lambda t, x, y: exact(x, t, y, None) + 0.3, pairs.x0, pairs.t, pairs.r, steps=8)
    expected = 2 * jnp.mean(exact(pairs.x0, pairs.t, pairs.y, pairs.r) + 0.3 - target)
    assert float(jax.grad(loss)(0.3)) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("steps", [0, 8])
def test_where_all_times_are_equal_nothing_is_differentiated_or_solved(steps):
    method = methods.get("mean_flow", tangent="teacher", target="teacher", power=0.0, steps=steps, equal=1.0)
    asked = []

    def answer(x, t, y, r):
        asked.append(isinstance(x, jax.core.Tracer))  # it is under a derivative or in a loop
        return exact(x, t, y, r)

    loss = method.loss(Answering(answer), drawn(0.6, 0.6, 10), Answering(lambda *of: answer(*of) + 0.2))
    np.testing.assert_allclose(loss.value, 0.04, rtol=1e-5)
    assert asked == [False, False]


def test_a_derivative_costs_a_third_of_a_step_of_flow_matching():
    """A chain of n layers: n products forward, n for the weights, n - 1 for the inputs, and n more for the tangent."""
    layers, width, pairs = 9, 4, drawn(0.2, 0.9, 8)
    kernels = jnp.stack([jnp.eye(width)] * layers)

    def operations(name, **params):
        method = methods.get(name, **params)

        def loss(kernels):
            def chain(x, t, y, r):
                h = jnp.broadcast_to(x.reshape(-1, 1), (len(x), width))
                for kernel in kernels:
                    h = h @ kernel
                return h.mean(axis=1).reshape(x.shape)

            return method.loss(Answering(chain), pairs).value.mean()

        return flops.count(jax.make_jaxpr(jax.grad(loss))(kernels)).total()

    product = 2 * 8 * width**2
    assert operations("flow_matching") == operations("mean_flow", equal=1.0) == (3 * layers - 1) * product
    assert operations("mean_flow") == (4 * layers - 1) * product


@pytest.mark.parametrize("r", [0.0, 0.4, 1.0])
def test_an_overshoot_costs_nothing_where_the_teacher_is_black(r):
    """All images are black: the teacher's data are -3, clipped to -1, the network's end at -1.5 or at -0.5."""
    pairs = drawn(0.0, r, 10)
    black = Answering(lambda x, t, y, r: (-3.0 - x) / (1 - t.reshape(-1, 1, 1, 1)))
    method = methods.get("mean_flow", tangent="teacher", target="teacher", power=0.0, steps=5, clip_data=True)
    for end, expected in ((-1.5, 0.0), (-0.5, 0.25)):
        network = Answering(lambda x, t, y, r, end=end: end - x)
        np.testing.assert_allclose(method.loss(network, pairs, black).value, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["mean_flow", "distribution_matching"])
def test_jumps_of_a_method_that_clips_lead_to_pixels(name):
    """The network's jumps end at +-3: one jump of two goes half of the way to +-1, the last one all of it."""
    ends = Answering(lambda x, t, y, r: (3.0 * jnp.sign(x) - x) / (1 - t.reshape(-1, 1, 1, 1)))
    x0, y = jnp.array([0.4, -0.2]).reshape(2, 1, 1, 1), jnp.zeros(2, jnp.int32)
    settings = Settings(solver="jump", steps=2, times=(0.0, 0.5, 1.0))
    for clip_data, end in ((False, 3.0), (True, 1.0)):
        found = methods.get(name, clip_data=clip_data).sample(ends, x0, y, settings).trajectory
        wanted = [x0, (x0 + end * jnp.sign(x0)) / 2, end * jnp.sign(x0)]
        np.testing.assert_allclose(found, jnp.stack(wanted), rtol=1e-6)


CONDITIONAL, UNTOLD, WEIGHT = 0.5, 1.2, 1.7


def width(t, std):
    return jnp.sqrt(t**2 * std**2 + (1 - t) ** 2)


def by_label(x, t, y, r):
    """The velocity of N(0, std^2), std by the label: the null label has another."""
    t, std = t.reshape(-1, 1, 1, 1), jnp.where(y == 4, UNTOLD, CONDITIONAL).reshape(-1, 1, 1, 1)
    return (t * std**2 - (1 - t)) / width(t, std) ** 2 * x


def guided(x, t, y, r, w):
    """The average velocity of v_null + w (v_cond - v_null): the jump is a ratio^w another ratio^(1 - w)."""
    w, steps = jnp.broadcast_to(w, t.shape).reshape(-1, 1, 1, 1), (r > t).reshape(-1, 1, 1, 1)
    null = by_label(x, t, jnp.full_like(y, 4), r)
    velocity = null + w * (by_label(x, t, y, r) - null)
    t, r = (a.reshape(-1, 1, 1, 1) for a in (t, r))
    ratios = [width(r, std) / width(t, std) for std in (CONDITIONAL, UNTOLD)]
    return jnp.where(steps, (ratios[0] ** w * ratios[1] ** (1 - w) - 1) / jnp.where(steps, r - t, 1) * x, velocity)


def test_the_guidance_of_a_teacher_is_learned():
    """Zero means: the jump of v_null + w (v_cond - v_null) is (S_c,r / S_c,t)^w (S_u,r / S_u,t)^(1 - w)."""
    student, pairs = Answering(lambda x, t, y, r: guided(x, t, y, r, WEIGHT)), drawn(0.3, 0.8, 1000)
    teach = {"tangent": "teacher", "target": "teacher", "power": 0.0}
    method = methods.get("mean_flow", **teach, guidance={"name": "cfg", "weight": WEIGHT})
    np.testing.assert_allclose(method.loss(student, pairs, Answering(by_label)).value, 0.0, atol=1e-8)
    plain = methods.get("mean_flow", **teach)
    assert plain.loss(student, pairs, Answering(by_label)).value.mean() > 1e-2


def with_weights(t, r, count):
    """Pairs of the label's data, each with a weight of its own."""
    pairs = drawn(t, r, count)
    keys = jax.random.split(jax.random.key(5))
    weights = jnp.exp(jax.random.uniform(keys[0], (count,)))
    return pairs._replace(x1=CONDITIONAL * jax.random.normal(keys[1], pairs.x1.shape), weight=weights)


def answer(x, t, y, r, w=1.0):
    """A network that knows all weights; the null label is not guided."""
    told = jnp.broadcast_to(w, t.shape)
    return guided(x, t, y, r, jnp.where(y == 4, 0.0, told))


@pytest.mark.parametrize(("t", "r"), [(0.3, 0.8), (0.0, 1.0), (0.5, 0.5)])
def test_any_weight_of_a_range_is_learned_from_a_teacher(t, r):
    method = methods.get("mean_flow", tangent="teacher", target="teacher", power=0.0, weights=(1.0, 3.0))
    loss = method.loss(Answering(answer), with_weights(t, r, 1000), Answering(by_label))
    np.testing.assert_allclose(loss.value, 0.0, atol=1e-7)


@pytest.mark.parametrize(("t", "r"), [(0.3, 0.8), (0.5, 0.5)])
def test_any_weight_of_a_range_is_learned_from_pairs(t, r):
    """At the fixed point the noise of the pair's velocity is all that is left: std^2 / S_t^2, whatever the weight."""
    method = methods.get("mean_flow", tangent="network", power=0.0, weights=(1.0, 3.0))
    loss = method.loss(Answering(answer), with_weights(t, r, 200_000)).value
    expected = CONDITIONAL**2 / float(width(t, CONDITIONAL)) ** 2
    assert float(loss.mean()) == pytest.approx(expected, rel=0.02)


def test_weights_are_drawn_log_uniformly_and_told_when_jumping():
    method = methods.get("mean_flow", tangent="network", weights=(1.0, 4.0))
    weights = np.asarray(draw(method).weight)
    assert (weights.min(), weights.max()) == (pytest.approx(1, abs=0.01), pytest.approx(4, abs=0.01))
    assert np.log(weights).mean() == pytest.approx(np.log(2), abs=0.01)
    x0 = jax.random.normal(jax.random.key(1), (6, *SHAPE))
    settings = Settings(solver="jump", steps=2).replace(weight=2.5)
    method.check(settings)
    found = method.sample(Answering(answer), x0, jnp.zeros(6, jnp.int32), settings).x
    np.testing.assert_allclose(found, CONDITIONAL**2.5 * UNTOLD**-1.5 * x0, atol=1e-5)
    with pytest.raises(ValueError, match=r"was trained with weights from 1\.0 to 4\.0"):
        method.check(settings.replace(weight=5.0))


def test_one_derivative_costs_a_third_of_a_step_more():
    """Value and derivative come from one `jax.jvp`, and the derivative has no backward pass."""
    width = jnp.ones((64, 64))

    def cost(method, pairs):
        def loss(weights):
            def network(x, t, y, r):
                h = jnp.tanh(x.reshape(len(x), -1) @ weights + t[:, None] + (0 if r is None else (r - t)[:, None]))
                return (h @ weights @ weights).reshape(x.shape)

            return method.loss(Answering(network), pairs).value.mean()

        return jax.jit(jax.grad(loss)).lower(width).cost_analysis()["flops"]

    pairs = drawn(0.2, 0.9, 256)
    wide = pairs._replace(x0=jnp.ones((256, 8, 8, 1)), x1=jnp.ones((256, 8, 8, 1)))
    ratio = cost(methods.get("mean_flow", power=0.0), wide) / cost(methods.get("flow_matching"), wide)
    assert ratio == pytest.approx(4 / 3, abs=0.08)


def test_the_derivative_warms_up():
    method = methods.get("mean_flow", warmup=8)
    assert float(draw(method, 4).derivative[0]) == 0.5  # of the fourth step
    at_rest = drawn(0.2, 0.9, 1000)
    moved = at_rest._replace(derivative=jnp.zeros(1000))
    x_t = 0.2 * at_rest.x1 + 0.8 * at_rest.x0
    without = (exact(x_t, moved.t, None, moved.r) - (at_rest.x1 - at_rest.x0)) ** 2
    loss = methods.get("mean_flow", power=0.0).loss(Answering(exact), moved)
    np.testing.assert_allclose(loss.value, without[:, 0, 0, 0], rtol=1e-4)


def test_long_steps_of_a_perfect_shortcut_network_cost_nothing():
    method, network = methods.get("shortcut"), Answering(exact)
    np.testing.assert_allclose(method.loss(network, drawn(0.25, 0.75, 1000), network).value, 0.0, atol=1e-10)
    flow = method.loss(network, drawn(0.6, 0.6), network).value.mean()
    assert float(flow) == pytest.approx(STD**2 / float(spread(0.6)) ** 2, rel=0.02)


@pytest.mark.parametrize("name", ["mean_flow", "shortcut"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_any_number_of_jumps_carries_noise_to_data(name, steps):
    x0 = jax.random.normal(jax.random.key(1), (6, *SHAPE))
    y = jnp.zeros(6, jnp.int32)
    found = methods.get(name).sample(Answering(exact), x0, y, Settings(solver="jump", steps=steps))
    np.testing.assert_allclose(found.x, MEAN + STD * x0, atol=1e-5)
    assert (found.evaluations == steps).all()
    assert found.success.all()


@pytest.mark.parametrize("name", ["mean_flow", "shortcut"])
def test_the_same_network_solves_the_flow(name):
    x0 = jax.random.normal(jax.random.key(1), (6, *SHAPE))
    settings = Settings(solver="midpoint", steps=64)
    found = methods.get(name).sample(Answering(exact), x0, jnp.zeros(6, jnp.int32), settings)
    np.testing.assert_allclose(found.x, MEAN + STD * x0, atol=2e-3)
    assert (found.evaluations == 128).all()


def test_the_way_of_jumps_is_shown_at_any_times():
    x0 = jax.random.normal(jax.random.key(1), (3, *SHAPE))
    settings = Settings(solver="jump", steps=2, times=(0.0, 0.5, 0.75, 1.0))
    shown = methods.get("mean_flow").sample(Answering(exact), x0, jnp.zeros(3, jnp.int32), settings).trajectory
    np.testing.assert_allclose(shown[0], x0)
    np.testing.assert_allclose(shown[1], shown[2])  # no jump between
    np.testing.assert_allclose(shown[3], MEAN + STD * x0, atol=1e-5)


def draw(method, count=20_000):
    rng = step_rng(0, jnp.int32(3), jnp.arange(count), count)
    return method.draw(rng, jnp.zeros((count, 1, 1, 1)), jnp.zeros(count, jnp.int32))


@pytest.mark.parametrize("stratified", [False, True])
def test_mean_flow_draws_its_shares_of_pairs_of_times(stratified):
    times = {"name": "uniform", "stratified": stratified}
    found = draw(methods.get("mean_flow", times=times, equal=0.6, ends=0.25))
    t, r = np.asarray(found.t), np.asarray(found.r)
    assert (t <= r).all()
    assert (t == r).mean() == pytest.approx(0.6, abs=0.02)
    assert ((t == 0) & (r == 1)).mean() == pytest.approx(0.4 * 0.25, abs=0.01)
    others = (t < r) & (t > 0)
    # Sorted uniform pairs: means 1/3 and 2/3.
    assert (t[others].mean(), r[others].mean()) == pytest.approx((1 / 3, 2 / 3), abs=0.02)


def test_shortcut_draws_steps_on_their_grids():
    found = draw(methods.get("shortcut", share=0.5, finest=8))
    t, step = np.asarray(found.t), np.asarray(found.r - found.t)
    long = step > 0
    assert long.mean() == pytest.approx(0.5, abs=0.02)
    sizes, counts = np.unique(step[long].round(6), return_counts=True)
    np.testing.assert_allclose(sizes, [0.25, 0.5, 1.0])
    np.testing.assert_allclose(counts / counts.sum(), 1 / 3, atol=0.03)
    np.testing.assert_allclose(t[long] / step[long], np.round(t[long] / step[long]), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("mean_flow", {"equal": 1.5}, "a share in"),
        ("mean_flow", {"tangent": "teachers"}, "one of pair, network, average, teacher"),
        ("mean_flow", {"target": "teacher", "tangent": "average"}, "asks for two teachers"),
        ("mean_flow", {"weights": (2.0, 1.0), "tangent": "network"}, "the lower one must come first"),
        ("mean_flow", {"weights": (0.0, 1.0)}, "above 0"),
        ("mean_flow", {"weights": (1.0, 2.0)}, "weights need tangent"),
        ("mean_flow", {"warmup": -1}, "warmup = -1; it must be 0 or more"),
        ("mean_flow", {"steps": 4}, "a pair has none; take tangent 'network'"),
        ("mean_flow", {"steps": 4, "tangent": "network", "warmup": 9}, "warmup = 9 has no effect with steps"),
        ("mean_flow", {"predicton": "data"}, "has no parameter 'predicton'"),
        ("shortcut", {"finest": 12}, "a power of two"),
        ("shorctut", {}, "did you mean 'shortcut'"),
    ],
)
def test_wrong_parameters_are_one_line(name, params, message):
    with pytest.raises(ValueError, match=message):
        methods.get(name, **params)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mean_flow", {"weight": 2.0}, "jumps are not guided"),
        ("shortcut", {"rule": {"name": "apg"}}, "jumps are not guided"),
        ("mean_flow", {"sde": {"name": "sigma"}}, "sample.sde = .* has no effect with solver 'jump'"),
        ("flow_matching", {}, "solver 'jump' needs a network that is told a second time, as mean_flow trains it"),
        ("reflow", {}, "solver 'jump' needs a network that is told a second time"),
        ("mean_flow", {"solver": "jumpp"}, "unknown solver 'jumpp': .*'midpoint'.*, average velocity 'jump'"),
        ("shortcut", {"solver": "jumpp"}, "unknown solver 'jumpp': .*, average velocity 'jump'"),
    ],
)
def test_what_jumps_cannot_do_is_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        methods.get(name).check(Settings(solver="jump").replace(**settings))


def test_a_method_without_jumps_does_not_name_them():
    with pytest.raises(ValueError, match="unknown solver 'jumpp': fixed") as refused:
        methods.get("flow_matching").check(Settings(solver="jumpp"))
    assert "average velocity" not in str(refused.value)


def test_a_key_that_a_method_does_not_look_at_is_refused():
    from fmd.config import resolve

    config = resolve({"method": {"name": "shortcut"}, "path": {"prediction": "data"}})
    with pytest.raises(ValueError, match=r"config\.path\.prediction = 'data' has no effect with method 'shortcut'"):
        methods.from_config(config)


def test_the_key_of_a_seed_is_that_of_one_generator():
    before = jax.random.key_data(key(3))
    with jax.default_prng_impl("rbg"):
        np.testing.assert_array_equal(jax.random.key_data(key(3)), before)
