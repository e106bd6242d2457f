"""Conditions: what is untold, what is refused, embeddings and their gradients, a kind of one's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.models import conditions
from fmd.models.condition_kinds import Kind, Label, Vector, register_condition
from fmd.models.registry import build_model
from fmd.types import Told

SPEC = {"label": {"kind": "label", "num_classes": 3}, "style": {"kind": "vector", "size": 2}}
SMALL = {"base_channels": 8, "channel_multipliers": (1,), "num_res_blocks": 1, "embedding_dim": 8, "num_classes": 0}
BATCH = 4


def parts(seed=0):
    style = np.random.default_rng(seed).normal(size=(BATCH, 2)).astype(np.float32)
    return {"label": jnp.arange(BATCH, dtype=jnp.int32) % 3, "style": jnp.asarray(style)}


def noise(shapes):
    generator = np.random.default_rng(0)
    return jax.tree.map(lambda a: jnp.asarray(generator.normal(0, 0.3, a.shape), a.dtype), shapes)


def network(spec=SPEC):
    """(parameters that are noise, jitted apply) of a network that is told parts."""
    model = build_model("unet", SMALL, conditions=spec)
    x, t = jnp.zeros((BATCH, 4, 4, 1)), jnp.linspace(0.1, 0.9, BATCH)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x, t, conditions.example(spec, BATCH))
    apply = jax.jit(lambda params, y: model.apply(params, x + 0.5, t, y))
    return noise(shapes), apply


def test_labels_alone_become_the_null_label():
    y, mask = jnp.arange(3), jnp.array([True, False, True])
    np.testing.assert_array_equal(conditions.drop(y, None, 7), [7, 7, 7])
    np.testing.assert_array_equal(conditions.drop(y, None, 7, mask), [7, 1, 7])
    np.testing.assert_array_equal(conditions.drop(y, None, 7, mask, parts=["label"]), [7, 1, 7])
    np.testing.assert_array_equal(conditions.drop(y, None, 7, mask, parts=[]), y)
    assert conditions.drop(y, None, 7).dtype == y.dtype
    assert conditions.drop(None, None, 0) is None


def test_parts_are_untold_where_the_mask_says_so():
    y, mask = parts(), jnp.array([True, False, False, True])
    dropped = conditions.drop(y, SPEC, 0, mask)
    np.testing.assert_array_equal(dropped["label"], [3, 1, 2, 3])
    np.testing.assert_array_equal(dropped["style"].told, ~mask)
    again = conditions.drop(dropped, SPEC, 0, ~mask, parts=["style"])
    np.testing.assert_array_equal(again["label"], dropped["label"])
    assert not again["style"].told.any()


def test_every_drop_has_the_same_structure():
    def shape(*arguments):
        return jax.eval_shape(lambda: conditions.drop(parts(), SPEC, 0, *arguments))

    mask = jnp.zeros(BATCH, bool)
    assert shape() == shape(mask) == shape(None, ["style"]) == shape(mask, []) == shape(mask, ["label"])


def test_an_unknown_part_is_one_line():
    with pytest.raises(ValueError, match="no part stile; its parts: label, style"):
        conditions.drop(parts(), SPEC, 0, parts=["stile"])


def test_an_untold_condition_may_hold_anything():
    """The network's answer is the same, bit for bit."""
    params, apply = network()
    y, other = parts(0), {"label": jnp.zeros(BATCH, jnp.int32), "style": jnp.full((BATCH, 2), jnp.nan)}
    untold = {"label": jnp.full(BATCH, 3), "style": Told(jnp.full((BATCH, 2), 1e30), jnp.zeros(BATCH, bool))}
    expected = apply(params, untold)
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(apply(params, conditions.drop(y, SPEC, 0)), expected)
    np.testing.assert_array_equal(apply(params, conditions.drop(other, SPEC, 0)), expected)
    assert np.abs(apply(params, y) - expected).max(axis=(1, 2, 3)).min() > 1e-3


def test_told_and_plain_parts_are_the_same():
    params, apply = network()
    nowhere = jnp.zeros(BATCH, bool)
    np.testing.assert_array_equal(apply(params, conditions.drop(parts(), SPEC, 0, nowhere)), apply(params, parts()))


def test_each_part_is_heard():
    params, apply = network()
    told = conditions.drop(parts(), SPEC, 0, jnp.zeros(BATCH, bool))
    answers = [apply(params, told)]
    for name in SPEC:
        answers.append(apply(params, conditions.drop(parts(), SPEC, 0, parts=[name])))
    answers.append(apply(params, conditions.drop(parts(), SPEC, 0)))
    for i, one in enumerate(answers):
        for other in answers[:i]:
            assert np.abs(one - other).max() > 1e-3


def test_gradients_of_an_untold_vector_reach_the_null_vector_alone():
    module, value = Vector(8, "float32", 2), jnp.full((BATCH, 2), jnp.nan)
    told = Told(value.at[0].set(1.0), jnp.arange(BATCH) < 1)
    params = noise(jax.eval_shape(module.init, jax.random.key(0), value))

    @jax.jit
    @jax.grad
    def gradient(params, told):
        return jnp.sum(jnp.square(module.apply(params, told)))

    some = gradient(params, told)["params"]
    assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(some))
    none = gradient(params, told._replace(told=jnp.zeros(BATCH, bool)))["params"]
    assert np.abs(none["null"]).min() > 0
    assert all(np.abs(leaf).max() == 0 for name in ("dense_1", "dense_2") for leaf in jax.tree.leaves(none[name]))


def test_labels_have_a_row_each_and_one_for_null():
    module, y = Label(8, "float32", 3), jnp.arange(4)
    variables = jax.jit(module.init)(jax.random.key(0), y)
    table = variables["params"]["table"]["embedding"]
    assert table.shape == (4, 8)
    np.testing.assert_array_equal(module.apply(variables, y), table)
    assert np.all(np.isnan(module.apply(variables, jnp.array([4]))))  # not some other row in silence


def test_parameters_are_named_after_the_parts():
    params, _ = network()
    assert set(params["params"]["condition_label"]) == {"table"}
    assert set(params["params"]["condition_style"]) == {"dense_1", "dense_2", "null"}
    assert "label" not in params["params"]


def test_tables_are_found_by_kind_with_a_row_per_class():
    spec = SPEC | {"marks": {"kind": "labels", "num_classes": 5}}
    tables = conditions.class_tables(spec, 0)
    assert tables == {"condition_label/": (3, 1), "condition_marks/": (5, 0)}
    params = network(spec)[0]["params"]
    for name, (classes, more) in tables.items():
        table = jax.tree.leaves(params[name.rstrip("/")]["table"])
        assert [len(leaf) for leaf in table] == [classes + more]
    assert conditions.class_tables(None, 10) == {"": (10, 1)}
    assert conditions.class_tables(None, 0) == {}


def test_bfloat16_embeddings_keep_float32_parameters():
    module = Vector(8, jnp.bfloat16, 2)
    out, variables = module.init_with_output(jax.random.key(0), parts()["style"])
    assert out.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": jnp.zeros(BATCH)}, r"condition 'label' must be integers \[B\], got float32\[4\]"),
        ({"label": np.array([0, 1, 2, 4])}, r"'label' must lie in \[0, 3\], where 3 is the null label; got 4"),
        ({"label": np.array([0, 1, 2, -1])}, r"'label' must lie in \[0, 3\].* got -1"),
        ({"label": np.zeros(3, int)}, r"condition 'label' is of shape \[3\] for 4 images"),
        ({"label": 1}, r"condition 'label' must be an array \[B, ...\], got int"),
        ({"style": np.zeros((BATCH, 3))}, r"condition 'style' must be floats \[B, 2\], got float64\[4, 3\]"),
        ({"style": np.zeros((BATCH, 2), int)}, r"must be floats \[B, 2\], got int64\[4, 2\]"),
        ({"style": Told(np.zeros((BATCH, 2)), np.ones(3, bool))}, r"'style' is of shape \[3\] for 4 images"),
        ({"size": np.zeros(BATCH)}, "must have the parts label, style; got label, style, size"),
    ],
)
def test_wrong_conditions_are_one_line(change, message):
    conditions.check(parts(), SPEC, 0, BATCH)
    conditions.check(conditions.drop(parts(), SPEC, 0), SPEC, 0, BATCH)
    with pytest.raises(ValueError, match=message) as error:
        conditions.check({**parts(), **change}, SPEC, 0, BATCH)
    assert "\n" not in str(error.value)


def test_the_kind_of_condition_must_be_right():
    with pytest.raises(ValueError, match="must be a dictionary of label, style; got ndarray"):
        conditions.check(np.zeros(BATCH, int), SPEC, 0, BATCH)
    with pytest.raises(ValueError, match=r"'label' must be an array .* got dict"):
        conditions.check(parts(), None, 3, BATCH)
    conditions.check(None, None, 0, BATCH)
    conditions.check(np.full(BATCH, 3), None, 3, BATCH)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"style": {"size": 2}}, "condition 'style' names no kind; known: .*\\blabel\\b.*\\bvector\\b"),
        ({"style": {"kind": "vectr", "size": 2}}, "unknown kind of condition 'vectr'; did you mean 'vector'?"),
        ({"style": {"kind": "vector", "sise": 2}}, "no parameter 'sise'; did you mean 'size'?"),
        ({"style": {"kind": "vector"}}, "kind of condition 'vector' needs the parameter size"),
        ({"style": {"kind": "vector", "size": "2"}}, "size = '2'; it must be a whole number"),
    ],
)
def test_wrong_specs_are_one_line(spec, message):
    with pytest.raises(ValueError, match=message):
        conditions.example(spec, 2)


def test_specs_become_hashable_and_stay_equal():
    spec = {"place": {"kind": "own", "sizes": [1, 2], "more": {"a": [3]}}}
    frozen = conditions.freeze(spec)
    assert hash(frozen) == hash(conditions.freeze(frozen))
    assert frozen["place"]["sizes"] == (1, 2)
    assert conditions.freeze(None) is None


@register_condition("angle")
class Angle(Kind):
    waves: tuple[int, ...] = (1,)

    @nn.compact
    def __call__(self, value):
        def embed(angle):
            phase = angle[:, None] * jnp.asarray(self.waves, jnp.float32)[None]
            return nn.Dense(self.dim, dtype=self.dtype)(jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], -1))

        return self.or_null(value, embed)

    def example(self, batch):
        return jnp.zeros(batch)


def test_a_kind_of_ones_own_is_one_class():
    spec = {"angle": {"kind": "angle", "waves": [1, 2]}}
    params, apply = network(spec)
    y = {"angle": jnp.array([0.0, 1.0, 2.0, 3.0])}
    conditions.check(y, spec, 0, BATCH)
    with pytest.raises(ValueError, match=r"'angle' must be floats \[B\], got float32\[4, 1\]"):
        conditions.check({"angle": y["angle"][:, None]}, spec, 0, BATCH)
    full_turn = {"angle": y["angle"] + 2 * np.pi}
    np.testing.assert_allclose(apply(params, y), apply(params, full_turn), atol=1e-4)
    assert np.abs(apply(params, y) - apply(params, conditions.drop(y, spec, 0))).max() > 1e-3
