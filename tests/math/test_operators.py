"""Operators of inverse problems: each equals its matrix, with transpose and pseudo-inverse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.math import operators
from fmd.math.operators import Operator

SHAPE = (8, 8, 3)
PARAMS = {
    "identity": {},
    "mask": {"hidden": "centre"},
    "mask of an array": {"mask": np.arange(8)[:, None, None] % 3 == 0},
    "block_average": {"factor": 4},
    "subsample": {"factor": 2},
    "blur": {"std": 0.8, "cutoff": 1e-6},
    "grey": {},
    "compose": {"parts": ["grey", {"name": "blur", "std": 0.5}, {"name": "subsample", "factor": 4}]},
}
CASES = {
    name: (lambda name=name, params=params: operators.get(name.split(" ")[0], **params))
    for name, params in PARAMS.items()
}
CASES["a function"] = lambda: operators.from_function(lambda x: jnp.roll(x, 1, axis=1)[:, :, ::2] - x[:, :, ::2], SHAPE)
CASES["compose with a function"] = lambda: operators.get(
    "compose", parts=[operators.from_function(lambda x: 2 * x[:, ::-1]), operators.get("subsample", factor=2)]
).on(SHAPE)


def matrix(linear, shape):
    """[outputs, inputs] of a linear function of a batch."""
    inputs = jnp.eye(int(np.prod(shape))).reshape(-1, *shape)
    return np.asarray(linear(inputs)).reshape(inputs.shape[0], -1).T


def test_all_names_are_tried():
    assert {name.split(" ")[0] for name in PARAMS} == set(operators.OPERATORS.names())


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_transpose_and_pseudo_inverse_are_those_of_the_matrix(x64, make):
    operator = make()
    a = matrix(operator, SHAPE)
    out = operator.measured(SHAPE)
    back = matrix(operator.transpose, out)
    np.testing.assert_allclose(back, a.T, atol=1e-12)
    inverse = matrix(operator.pseudo_inverse, out)
    np.testing.assert_allclose(inverse, np.linalg.pinv(a, rcond=1e-6), atol=1e-6)
    np.testing.assert_allclose(a @ inverse @ a, a, atol=1e-5)


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_any_batch_and_dtype(make):
    operator = make()
    for dtype in (jnp.float32, jnp.bfloat16):
        x = jnp.ones((5, *SHAPE), dtype)
        y = operator(x)
        assert y.shape == (5, *operator.measured(SHAPE))
        assert {v.dtype for v in (y, operator.transpose(y), operator.pseudo_inverse(y))} == {np.dtype(dtype)}
        assert operator.transpose(y).shape == x.shape


@pytest.mark.parametrize(
    ("hidden", "seen"),
    [("lower_half", np.s_[:4]), ("upper_half", np.s_[4:]), ("left_half", np.s_[:, 4:]), ("right_half", np.s_[:, :4])],
)
def test_a_half_is_hidden(hidden, seen):
    expected = np.zeros(SHAPE)
    expected[seen] = 1
    np.testing.assert_array_equal(operators.get("mask", hidden=hidden)(jnp.ones((1, *SHAPE)))[0], expected)


def test_blur_keeps_a_constant_and_spreads_a_point_by_its_deviation():
    blur = operators.get("blur", std=1.5)
    np.testing.assert_allclose(blur(jnp.ones((1, 8, 6, 2))), 1.0, rtol=1e-6)
    point = blur(jnp.zeros((1, 41, 41, 1)).at[0, 20, 20, 0].set(1.0))[0, :, :, 0]
    place = np.arange(41) - 20
    np.testing.assert_allclose(np.sum(np.asarray(point) * place[:, None] ** 2), 1.5**2, rtol=1e-5)


def test_equal_operators_share_a_program():
    mask = np.arange(8) % 2
    assert operators.get("mask", mask=mask) == operators.get("mask", mask=mask.astype(bool))
    assert operators.get("mask", mask=mask) != operators.get("mask", mask=1 - mask)
    assert len({operators.get(name, **params) for name, params in (("blur", {"std": 2.0}),) * 2}) == 1
    assert len({operators.from_function(jnp.flip) for _ in range(2)}) == 1  # so one's own is compiled once
    own = [operators.from_function(f, linear=linear) for f in (jnp.flip, jnp.negative) for linear in (True, False)]
    assert len(set(own)) == 4


def test_images_without_a_batch():
    assert operators.get("block_average", factor=2)(jnp.ones(SHAPE)).shape == (4, 4, 3)
    assert operators.get("mask", mask=np.asarray([1, 0]))(jnp.ones((7, 2))).tolist() == [[1, 0]] * 7
    plane = np.arange(64).reshape(8, 8) % 2
    np.testing.assert_array_equal(operators.get("mask", mask=plane)(jnp.ones(SHAPE))[..., 1], plane)


def test_your_own_by_name():
    @operators.register("your_operator")
    def your_operator(gain: float = 2.0) -> Operator:
        return Operator("your_operator", lambda x: gain * x, lambda y: gain * y)

    tripled = operators.get("your_operator", gain=3.0)
    np.testing.assert_allclose(tripled.pseudo_inverse(tripled(jnp.full((1, 2), 5.0))), 5.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: operators.get("blurr", std=1.0), "unknown operator 'blurr'; did you mean 'blur'"),
        (lambda: operators.get("blur", std=0.0), "std = 0.0; it must be above 0"),
        (lambda: operators.get("mask"), "needs either mask, an array of 0 and 1, or hidden"),
        (lambda: operators.get("mask", mask=np.asarray([0.5])), "other values than 0 and 1"),
        (lambda: operators.get("mask", mask=np.ones(5)).on((4,)), r"a mask \(5,\) does not fit images \(1, 4\)"),
        (lambda: operators.get("grey").on((8, 8, 1)), r"'grey' does not take images \(8, 8, 1\): .* weighs 3 channels"),
        (lambda: operators.get("block_average", factor=3).on(SHAPE), "sides that 3 divides, not"),
        (lambda: operators.get("compose", parts=[]), "at least one part"),
        (lambda: operators.from_function(jnp.abs, SHAPE), "not linear: A.* differ by .*; declare it with linear=False"),
        (lambda: operators.from_function(lambda x: x + 1, SHAPE, name="shift"), "'shift' is not linear"),
        (lambda: operators.from_function(jnp.abs, SHAPE, linear=False).transpose(jnp.ones(SHAPE)), "has no transpose"),
        (lambda: operators.from_function(lambda x: x).transpose(jnp.ones(SHAPE)), "needs the shape of an image"),
        (lambda: operators.from_function(lambda x: x, SHAPE).on((4, 4, 1)), r"takes images \(8, 8, 3\); the model's"),
        (lambda: operators.from_function(lambda x: x, SHAPE)(jnp.ones((1, 4, 4, 1))), r"takes images \(8, 8, 3\), not"),
    ],
)  # fmt: skip
def test_one_line_for_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_a_function_that_is_not_linear_has_a_derivative():
    squared = operators.from_function(lambda x: x**2, (2,), linear=False)
    _, pulled = jax.vjp(squared, jnp.asarray([[3.0, 4.0]]))
    np.testing.assert_allclose(pulled(jnp.ones((1, 2)))[0], [[6.0, 8.0]])
