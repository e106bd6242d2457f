"""Guided fields: network calls counted, conditions that are trees, rules with a memory."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.devices import make_layout
from fmd.math import fields, guidance
from fmd.models import flops
from fmd.types import Told

SHAPE = (4, 3, 3, 2)
NULL = 10
LABELS = jnp.asarray([3, 1, 4, 1], jnp.int32)


def images():
    return jax.random.normal(jax.random.key(0), SHAPE)


def counted_network():
    """predict(x, t, y) = x t (y + 1), and the list of batch sizes it was called with: 1 where it is mapped."""
    rows = []

    def predict(x, t, y):
        assert x.shape[0] == t.shape[0] == y.shape[0]
        assert t.dtype == jnp.float32
        rows.append(x.shape[0])
        return x * (t * (y + 1).astype(x.dtype))[:, None, None, None]

    return predict, rows


@pytest.mark.parametrize(
    ("weight", "rows", "evaluations"), [(2.0, 1, 2), (1.0, 4, 1), (0.0, 4, 1), (1, 4, 1), (np.float32(1), 4, 1)]
)
@pytest.mark.parametrize("t", [0.5, np.full(4, 0.5, np.float32)], ids=["scalar", "per example"])
def test_guided_field_is_one_call_of_the_network(weight, rows, evaluations, t):
    predict, calls = counted_network()
    x = images()
    combine = guidance.get("cfg", weight=weight)
    v = fields.guided_field(predict, NULL, combine)(t, x, LABELS)
    assert calls == [rows]
    assert combine.evaluations == evaluations
    factor = 0.5 * ((NULL + 1) + float(weight) * (np.asarray(LABELS) - NULL))
    np.testing.assert_allclose(v, x * factor[:, None, None, None].astype(np.float32), rtol=1e-5)


def test_guided_field_is_jitted_once_for_all_weights():
    predict, calls = counted_network()
    x = images()

    @jax.jit
    def guided(weight, t, x, y):
        return fields.guided_field(predict, NULL, guidance.get("cfg", weight=weight))(t, x, y)

    for weight in (0.0, 1.0, 3.0):
        guided(weight, 0.5, x, LABELS)
    assert calls == [1]


def test_layers_before_the_condition_run_once_and_no_row_leaves_its_device():
    """Two convolutions, of which the second sees the label: three in all, on eight devices as on one."""
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 2, 2))

    def convolution(x):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def predict(x, t, y):
        return convolution(convolution(x) * (t + y.astype(t.dtype))[:, None, None, None])

    field = fields.guided_field(predict, NULL, guidance.get("cfg", weight=2.0))
    x, y, t = jax.random.normal(jax.random.key(0), (8, 3, 3, 2)), jnp.arange(8), jnp.linspace(0, 1, 8)
    assert flops.count(jax.make_jaxpr(field)(t, x, y)) == {"conv": 3 * 8 * (2 * 9 * 2 * 2 * 3 * 3)}
    split = make_layout("mesh").batch_sharding(0)
    program = jax.jit(field, in_shardings=(split, split, split), out_shardings=split).lower(t, x, y).compile()
    assert not re.search("all-|collective", program.as_text())
    null, cond = (predict(x, t, told) for told in (jnp.full(8, NULL), y))
    np.testing.assert_allclose(program(t, x, y), null + 2.0 * (cond - null), rtol=1e-5, atol=1e-4)


def test_guided_field_needs_labels():
    predict, _ = counted_network()
    field = fields.guided_field(predict, NULL, guidance.get("cfg", weight=2.0))
    with pytest.raises(ValueError, match="labels"):
        field(0.5, images())


def told_apart(x, t, y):
    """The velocity at t of x1 ~ N(0, I), told coordinate i of x1 where y[i] is: x_t = t x1 + (1 - t) x0."""
    t = t[:, None]
    variance = t**2 + (1 - t) ** 2
    untold = (t - (1 - t)) * x / variance  # E[x1 | x] - E[x0 | x]
    values = jnp.stack([y["a"].value, y["b"].value], 1)
    told = jnp.stack([y["a"].told, y["b"].told], 1)
    return jnp.where(told, (values - x) / (1 - t), untold)


def drop_parts(y, parts=()):
    return {name: Told(part.value, part.told & (name not in parts)) for name, part in y.items()}


WEIGHTED = {"a": Told(jnp.float32([1, -1]), jnp.ones(2, bool)), "b": Told(jnp.float32([0.5, 2]), jnp.ones(2, bool))}


@pytest.mark.parametrize("weights", [{"a": 1, "b": 1}, {"a": 1.5, "b": 0.5}, {"a": 3.0}, {"b": 0.0}])
def test_parts_have_weights_of_their_own(weights):
    """Of two coordinates, each told by a part, the velocity is that of a weight each: the parts are independent."""
    rows = []

    def counted(x, t, y):
        rows.append(len(x))
        return told_apart(x, t, y)

    x, t = jnp.float32([[0.3, -0.7], [1.1, 0.2]]), jnp.float32([0.25, 0.6])
    rule = guidance.get("cfg", weight=1.0)
    v = fields.composed_field(counted, drop_parts, weights, rule)(t, x, WEIGHTED)
    assert rows == [1]
    told, untold = (told_apart(x, t, drop_parts(WEIGHTED, parts)) for parts in ((), ("a", "b")))
    each = jnp.float32([[weights.get(name, 1.0) for name in ("a", "b")]])
    np.testing.assert_allclose(v, untold + each * (told - untold), atol=1e-5)


@pytest.mark.parametrize(("weight", "calls"), [(2.0, (1, 1)), (1.0, (1, 0)), (0.0, (0, 1))])
def test_autoguidance_extrapolates_from_the_weak_model(weight, calls):
    strong, strong_rows = counted_network()
    weak, weak_rows = counted_network()
    x = images()
    field = fields.autoguided_field(strong, lambda x, t, y: 0.5 * weak(x, t, y), guidance.get("cfg", weight=weight))
    v = field(0.5, x, LABELS)
    assert (len(strong_rows), len(weak_rows)) == calls
    factor = 0.5 * (np.asarray(LABELS) + 1) * (0.5 + 0.5 * weight)
    np.testing.assert_allclose(v, x * factor[:, None, None, None].astype(np.float32), rtol=1e-6)


def tell(x, t, y):
    """predict(x, t, y) of a network that is told a label and a vector, or not told the vector."""
    vector = jnp.where(y["style"].told[:, None], y["style"].value, -1.0)
    return x * t[:, None, None, None] + (vector.sum(axis=1) + y["label"].astype(x.dtype))[:, None, None, None]


def untold(y):
    return {"label": jnp.full_like(y["label"], NULL), "style": Told(y["style"].value, jnp.zeros_like(y["style"].told))}


def test_a_condition_may_be_a_tree_and_is_still_one_call():
    x, calls = images(), []
    y = {"label": LABELS, "style": Told(jax.random.normal(jax.random.key(1), (4, 5)), jnp.ones(4, bool))}

    def predict(x, t, y):
        calls.append(x.shape[0])
        return tell(x, t, y)

    v = fields.guided_field(predict, untold, guidance.get("cfg", weight=3.0))(0.5, x, y)
    assert calls == [1]
    t = jnp.full(4, 0.5)
    null, cond = tell(x, t, untold(y)), tell(x, t, y)
    np.testing.assert_allclose(v, null + 3.0 * (cond - null), rtol=1e-5, atol=1e-5)
    for weight, alone in ((1.0, cond), (0.0, null)):
        v = fields.guided_field(predict, untold, guidance.get("cfg", weight=weight))(0.5, x, y)
        np.testing.assert_allclose(v, alone, rtol=1e-6)
    assert calls == [1, 4, 4]


def test_labels_give_the_same_bits_by_a_number_and_by_a_function():
    predict, _ = counted_network()
    combine = guidance.get("cfg", weight=3.0)
    by_number = fields.guided_field(predict, NULL, combine)(0.5, images(), LABELS)
    by_function = fields.guided_field(predict, lambda y: jnp.full_like(y, NULL), combine)(0.5, images(), LABELS)
    np.testing.assert_array_equal(by_number, by_function)


def test_an_untold_condition_of_another_structure_is_refused():
    y = {"label": LABELS, "style": jnp.ones((4, 5))}
    field = fields.guided_field(tell, lambda y: {"label": y["label"]}, guidance.get("cfg", weight=3.0))
    with pytest.raises(ValueError, match="differ in structure"):
        field(0.5, images(), y)


def test_autoguidance_on_a_tree_and_without_any_condition():
    combine, t = guidance.get("cfg", weight=2.0), jnp.full(4, 0.5)
    y = {"label": LABELS, "style": Told(jnp.ones((4, 5)), jnp.ones(4, bool))}
    v = fields.autoguided_field(tell, lambda x, t, y: 0.5 * tell(x, t, y), combine)(0.5, images(), y)
    np.testing.assert_allclose(v, 1.5 * tell(images(), t, y), rtol=1e-6)
    v = fields.autoguided_field(lambda x, t, y: x, lambda x, t, y: 0.5 * x, combine)(0.5, images())
    np.testing.assert_allclose(v, 1.5 * images(), rtol=1e-6)


def test_a_rule_with_memory_makes_a_field_with_memory():
    predict, calls = counted_network()
    x, combine = images(), guidance.get("apg", weight=3.0, momentum=-0.5)
    field = fields.guided_field(predict, NULL, combine)
    memory = combine.init(x) + 0.2
    v, after = field(0.5, x, LABELS, memory)
    assert calls == [1]
    null, cond = (predict(x, jnp.full(4, 0.5), y) for y in (jnp.full_like(LABELS, NULL), LABELS))
    expected = combine.step(memory, null, cond, x, 0.5)
    for mine, reference in zip((v, after), expected, strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="guidance 'apg' has a memory: use solve_ode"):
        field(0.5, x, LABELS)
