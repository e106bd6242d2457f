"""Draws given a measurement, against the exact posteriors of normal data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.math import operators, restoration, schedules
from fmd.math.restoration import restore
from tests.helpers.oracles import gaussian

LINEAR = schedules.get("linear")
IDENTITY = operators.get("identity")
KEY = jax.random.key(0)
ONE = gaussian([0.3], [[0.25]])  # with A = 1, noise .2 and y = .7: N(.6448276, .1856953^2)
Y = jnp.asarray([0.7])


def one(method, field=None, *, count=2, schedule=LINEAR, noise_std=0.2, **options):
    field = ONE.field(schedule) if field is None else field
    shape = (count, 1)
    return restore(
        field, Y, IDENTITY, KEY, shape=shape, noise_std=noise_std, method=method, schedule=schedule, **options
    )


@pytest.mark.parametrize(
    ("method", "schedule", "mean", "std"),
    [
        ("tweedie", "linear", 0.6448276, 0.1856953),
        ("tweedie", "cosine", 0.6448276, 0.1856953),
        ("pigdm", "linear", 0.5695197, 0.2286505),  # wrong by as much: it takes data for N(0, 1)
    ],
)
def test_the_flow_of_a_restoring_field(method, schedule, mean, std):
    """x(1) = mean + std x0."""
    ends = one(method, schedule=schedules.get(schedule), noise=jnp.asarray([[0.0], [1.0]]))[:, 0]
    np.testing.assert_allclose([ends[0], ends[1] - ends[0]], [mean, std], atol=1e-4)


def test_pigdm_is_right_when_told_the_deviation_of_centred_data():
    field = gaussian([0.0], [[0.25]]).field(LINEAR)
    ends = one("pigdm", field, noise=jnp.asarray([[0.0], [1.0]]), data_std=0.5)[:, 0]
    np.testing.assert_allclose([ends[0], ends[1] - ends[0]], [0.7 * 0.25 / 0.29, 0.1856953], atol=1e-4)


@pytest.mark.parametrize(
    ("gamma", "steps", "std"),
    [(1.0, 1, 0.4472), (1.0, 2, 0.4472), (1.0, 7, 0.4472), (0.0, 1, 0.0), (0.0, 2, 0.167), (0.0, 7, 0.262)],
)
def test_flower_of_unit_data(gamma, steps, std):
    """gamma = 1 is exact in any number of steps, gamma = 0 spreads too little by as much."""
    field = gaussian([0.0], [[1.0]]).field(LINEAR)
    x = one("flower", field, count=100_000, noise_std=0.5, gamma=gamma, steps=steps)
    np.testing.assert_allclose([x.mean(), x.std()], [0.56, std], atol=4e-3)


def test_tweedie_in_four_dimensions():
    """A posterior of a general normal prior and operator, mean and covariance."""
    rng = np.random.default_rng(0)
    root, mean, a, y, s = rng.normal(size=(4, 4)) / 2, rng.normal(size=4), rng.normal(size=(2, 4)), [0.4, -0.3], 0.3
    c = root @ root.T
    gain = c @ a.T @ np.linalg.inv(a @ c @ a.T + s**2 * np.eye(2))
    operator = operators.from_function(lambda x: x @ jnp.asarray(a.T, x.dtype), (4,))
    field = gaussian(mean, c).field(LINEAR)
    # The map from noise is affine: its matrix squared is the covariance.
    x = restore(field, jnp.asarray(y), operator, KEY, shape=(5, 4), noise_std=s, noise=jnp.eye(5, 4, k=-1))
    np.testing.assert_allclose(x[0], mean + gain @ (y - a @ mean), atol=2e-4)
    b = np.asarray(x[1:] - x[:1]).T
    np.testing.assert_allclose(b @ b.T, c - gain @ a @ c, atol=2e-3)


@pytest.mark.parametrize("method", ["tweedie", "pigdm", "projection"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_without_noise_the_result_is_measured_as_y(method, schedule):
    schedule = schedules.get(schedule)
    shape, operator = (3, 4, 4, 1), operators.get("block_average", factor=2)
    y = jax.random.normal(KEY, (3, 2, 2, 1))
    flat = gaussian(np.full(16, 0.3), 0.25 * np.eye(16)).field(schedule)
    x = restore(
        lambda t, x, args: flat(t, x.reshape(-1, 16)).reshape(x.shape), y, operator, KEY, shape=shape,
        noise_std=0.0, method=method, schedule=schedule, steps=20,
    )  # fmt: skip
    np.testing.assert_allclose(operator(x), y, atol=1e-6 if method == "projection" else 5e-3)


def test_d_flow_finds_the_most_likely_noise():
    """Phi(x0) = .3 + .5 x0 nearly, of which |A x - y|^2 + weight |x0|^2/2 is least; for d = 1 there is no logarithm."""
    x = one("d_flow", count=3, steps=10, flow_steps=12, weight=0.5)
    noise = 2 * 0.5 * 0.4 / (2 * 0.25 + 0.5)
    np.testing.assert_allclose(x, 0.3 + 0.5 * noise, atol=2e-3)


def test_an_operator_that_is_not_linear():
    """Of y = x^2 near 1: the measurement is met where the noise is small."""
    squared = operators.from_function(jnp.square, linear=False)
    field = gaussian([1.0], [[0.01]]).field(LINEAR)
    for method in ("tweedie", "pigdm"):
        x = restore(field, jnp.asarray([1.1]), squared, KEY, shape=(8, 1), noise_std=0.001, method=method)
        np.testing.assert_allclose(x**2, 1.1, atol=0.01)


def test_draws_do_not_depend_on_the_batch_and_args_reach_the_field():
    def field(t, x, args):
        return ONE.velocity(LINEAR, t, x - t * args) + args

    shift = jnp.asarray([[0.0], [1.0], [2.0], [3.0]])
    for method in ("tweedie", "flower"):
        whole = one(method, field, count=4, args=shift, steps=5)
        part = one(method, field, count=2, args=shift[2:], steps=5, indices=jnp.asarray([2, 3]))
        np.testing.assert_allclose(whole[2:], part, rtol=1e-6)
        assert float(jnp.ptp(whole)) > 0.1


def test_one_trace_and_a_method_of_your_own():
    @restoration.register("your_method")
    class YourMethod:
        linear, noisy = True, False

        def draw(self, problem, x0, steps):
            return problem.operator.pseudo_inverse(problem.measurement)

    traces = []
    traced = jax.jit(lambda y, s: traces.append(1) or one("your_method", noise_std=s, count=y.shape[0]))
    for s in (0.1, 0.2):
        np.testing.assert_allclose(traced(jnp.ones((3, 1)), s), 0.7)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "tweedy"}, "unknown method of restoring 'tweedy'; did you mean 'tweedie'"),
        ({"method": "flower", "gama": 1.0}, "has no parameter 'gama'; did you mean 'gamma'"),
        ({"method": "flower", "noise_std": 0.0}, "method 'flower' divides by noise_std, which is 0"),
        ({"noise_std": -1.0}, "noise_std=-1.0 must be finite and not negative"),
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"measurement": jnp.ones((3, 2))}, r"the measurement is \(3, 2\), but operator 'mask' makes \(5, 3\)"),
        ({"operator": operators.get("blur", std=1.0)}, r"'blur' does not take images \(3,\)"),
        ({"operator": operators.from_function(jnp.square, (4,), linear=False)}, r"takes images \(4,\); the"),
        ({"operator": jnp.square, "method": "flower"}, "'square' is not linear: A"),
        ({"operator": operators.from_function(jnp.square, linear=False), "method": "projection"}, "needs a linear"),
    ],
)  # fmt: skip
def test_one_line_for_what_is_wrong(options, message):
    usual = {
        "measurement": jnp.ones(3),
        "operator": operators.get("mask", mask=np.asarray([1, 0, 1])),
        "noise_std": 0.1,
    }
    usual |= options
    with pytest.raises(ValueError, match=message) as raised:
        restore(lambda t, x, args: -x, usual.pop("measurement"), usual.pop("operator"), KEY, shape=(5, 3), **usual)
    assert "\n" not in str(raised.value)
