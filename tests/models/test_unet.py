"""The UNet: any size, labels and times, compute dtypes, a second time, and the transformations it runs under."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from fmd.models.registry import build_model
from tests.helpers.derivatives import check_forward_mode

TINY = {"num_classes": 3, "base_channels": 8, "num_res_blocks": 1, "embedding_dim": 16, "patch_size": 2}
BATCH, SHAPE = 4, (8, 8, 1)

# These networks are compiled more often than run.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def tiny(**settings):
    """(model, parameters, jitted apply); the parameters are noise, so that no path is silent as at initialisation."""
    model = build_model("unet", {**TINY, **settings})
    shapes = jax.eval_shape(model.init, jax.random.key(0), *batch())
    generator = np.random.default_rng(0)
    params = jax.tree.map(lambda a: jnp.asarray(generator.normal(0, 0.2, a.shape), a.dtype), shapes)
    return model, params, jit(model.apply, static_argnames="train")


def batch(shape=SHAPE, size=BATCH):
    x = np.random.default_rng(1).normal(size=(size, *shape)).astype(np.float32)
    return jnp.asarray(x), jnp.linspace(0.0, 1.0, size), jnp.arange(size, dtype=jnp.int32)


def test_an_untrained_network_predicts_zero():
    model, _, apply = tiny()
    x, t, y = batch()
    variables = jit(model.init)(jax.random.key(0), x, t, y)
    assert set(variables) == {"params"}
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    out = apply(variables, x, t, y)
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, np.zeros((BATCH, *SHAPE)))


def test_examples_of_a_batch_do_not_meet():
    """Under vmap with a batch of one, as the per-sample solver calls it, each example's field is the same."""
    model, params, apply = tiny()
    x, t, y = batch()
    alone = jit(jax.vmap(lambda x, t, y: model.apply(params, x[None], t[None], y[None])[0]))(x, t, y)
    np.testing.assert_allclose(alone, apply(params, x, t, y), atol=1e-5)


@pytest.mark.parametrize(("settings", "shape"), [
    ({"attention_resolutions": (4, 2)}, SHAPE),
    *itertools.product(({}, {"num_classes": 0}), (SHAPE, (5, 9, 3), (4, 4, 2), (28, 28, 1))),
])  # fmt: skip
def test_any_size_and_channels(settings, shape):
    model = build_model("unet", {**TINY, **settings})
    x, t, y = batch(shape)
    params = jax.eval_shape(model.init, jax.random.key(0), x, t, y)
    out = jax.eval_shape(model.apply, params, x, t, y)
    assert (out.shape, out.dtype) == (x.shape, jnp.float32)


def test_other_sizes_are_the_plain_network_on_zero_padded_images():
    _, params, apply = tiny()
    x, t, y = batch((5, 6, 1))
    padded = jnp.pad(x, ((0, 0), (1, 2), (1, 1), (0, 0)))
    np.testing.assert_allclose(apply(params, x, t, y), apply(params, padded, t, y)[:, 1:6, 1:7], atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channel_multipliers": (1, 2, 2, 2)}, "images of 8x8 are below the smallest size 16x16 .* use fewer levels"),
        ({"attention_resolutions": (7,)}, r"no level of height \[7\] .* the levels have \[4, 2\]"),
        ({"base_channels": 0}, "base_channels = 0; it must be 1 or more"),
        ({"num_classes": -1}, "num_classes = -1; it must be 0 or more"),
        ({"channel_multipliers": ()}, "channel_multipliers must name one level or more"),
        ({"channel_multipliers": (1, 0)}, r"channel_multipliers = \(1, 0\); it must be a tuple, each 1 or more"),
        ({"dropout": 1.0}, r"dropout = 1.0; it must be in \[0, 1\)"),
        ({"dtype": "float16"}, "dtype = 'float16'; it must be one of float32, bfloat16, float64"),
    ],
)
def test_impossible_settings_are_one_line(settings, message):
    def build_and_trace():
        model = build_model("unet", {**TINY, **settings})
        jax.eval_shape(model.init, jax.random.key(0), *batch())

    with pytest.raises(ValueError, match=message) as error:
        build_and_trace()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, r"condition 'label' must be an array \[B, ...\], got NoneType"),
        (jnp.zeros(3, jnp.int32), r"condition 'label' is of shape \[3\] for 4 images"),
        (jnp.zeros(4), r"condition 'label' must be integers \[B\], got float32\[4\]"),
    ],
)
def test_wrong_labels_are_one_line(y, message):
    model, params, _ = tiny()
    x, t, _ = batch()
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.apply, params, x, t, y)


def test_an_unconditional_network_ignores_labels():
    _, params, apply = tiny(num_classes=0)
    x, t, y = batch()
    assert "label" not in params["params"]
    np.testing.assert_array_equal(apply(params, x, t, y), apply(params, x, t, None))


def test_the_null_label_is_a_row_of_its_own():
    """Its gradient reaches its row alone, and its field differs from each class's."""
    model, params, apply = tiny(channel_multipliers=(1,))
    x, t, _ = batch()
    null = jnp.full(BATCH, 3)
    gradient = jit(jax.grad(lambda p: jnp.sum(model.apply(p, x, t, null) ** 2)))(params)
    rows = np.abs(gradient["params"]["label"]["table"]["embedding"]).sum(axis=1)
    np.testing.assert_array_equal(rows[:3], 0)
    assert rows[3] > 0

    stepped = jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient)
    fields = [np.asarray(apply(stepped, x, t, jnp.full(BATCH, label))) for label in range(4)]
    for label in range(3):
        assert np.abs(fields[label] - fields[3]).max() > 1e-3


def test_time_is_a_scalar_or_one_per_image():
    _, params, apply = tiny()
    x, _, y = batch()
    expected = apply(params, x, jnp.full(BATCH, 0.3), y)
    np.testing.assert_allclose(apply(params, x, jnp.float32(0.3), y), expected, atol=1e-6)
    assert np.abs(apply(params, x, jnp.float32(0.31), y) - expected).max() > 1e-3


def test_bfloat16_is_close_to_float32():
    _, params, apply = tiny()
    model, _, apply_low = tiny(dtype="bfloat16")
    x, t, y = batch()
    kept = jax.eval_shape(model.init, jax.random.key(0), x, t, y)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(kept))
    out, exact = apply_low(params, x, t, y), apply(params, x, t, y)
    assert out.dtype == jnp.float32
    error = np.linalg.norm(out - exact) / np.linalg.norm(exact)
    assert 0 < error < 0.03
    rounded = np.asarray(out.astype(jnp.bfloat16), np.float32)
    assert np.mean(rounded == out) < 0.1  # the last convolution is float32: the prediction itself is not rounded


def test_dropout_draws_from_its_own_key():
    _, params, apply = tiny(dropout=0.5)
    x, t, y = batch()

    def train(seed):
        return np.asarray(apply(params, x, t, y, train=True, rngs={"dropout": jax.random.key(seed)}))

    np.testing.assert_array_equal(train(0), train(0))
    assert np.abs(train(0) - train(1)).max() > 1e-3
    np.testing.assert_array_equal(apply(params, x, t, y), tiny()[2](params, x, t, y))  # none outside training
    np.testing.assert_allclose(tiny()[2](params, x, t, y, train=True), apply(params, x, t, y), atol=1e-5)


def test_remat_changes_nothing():
    x, t, y = batch()
    values = []
    for settings in ({}, {"remat": True}):
        model, params, _ = tiny(channel_multipliers=(1,), **settings)
        loss = lambda p, model=model: jnp.mean(model.apply(p, x, t, y, train=True) ** 2)  # noqa: E731
        values.append(jit(jax.value_and_grad(loss))(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *values)


def test_forward_mode_agrees_with_reverse_mode():
    """u . (J d) = (J^T u) . d with J the derivative with respect to image and time."""
    model, params, _ = tiny()
    x, t, y = batch()
    d = jax.random.normal(jax.random.key(2), x.shape)
    dt = jnp.ones_like(t) / 1000
    u = jax.random.normal(jax.random.key(3), x.shape)

    @jit
    def both(x, t):
        field = lambda x, t: model.apply(params, x, t, y, train=True)  # noqa: E731
        _, forward = jax.jvp(field, (x, t), (d, dt))
        _, back = jax.vjp(field, x, t)
        dx, d_time = back(u)
        return jnp.vdot(u, forward), jnp.vdot(dx, d) + jnp.vdot(d_time, dt)

    np.testing.assert_allclose(*both(x, t), rtol=1e-4)


def test_exports_for_every_platform_with_a_free_batch_size():
    model, params, apply = tiny()
    (b,) = export.symbolic_shape("b")
    arguments = [jax.ShapeDtypeStruct((b, *rest), dtype) for rest, dtype in [(SHAPE, "f4"), ((), "f4"), ((), "i4")]]
    exported = export.export(jax.jit(model.apply), platforms=["cpu", "cuda", "tpu"])(params, *arguments)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    x, t, y = batch(size=3)
    np.testing.assert_allclose(exported.call(params, x, t, y), apply(params, x, t, y), atol=1e-5)


def test_parameters_have_kept_their_names():
    """Checkpoints of older versions find theirs by these."""
    _, params, _ = tiny(attention_resolutions=(4,), channel_multipliers=(1, 2))
    layers = {f"{module}/{layer}" for module, parts in params["params"].items() for layer in parts}
    block = {"norm_1", "conv_1", "condition", "norm_2", "conv_2"}
    assert {name.split("/")[1] for name in layers if name.startswith("middle_block_0/")} == block
    assert {name.split("/")[1] for name in layers if name.startswith("up_1_block_0/")} == block | {"skip"}
    assert {name.split("/")[1] for name in layers if "attention" in name} == {"norm", "query_key_value", "out"}
    assert {"time/dense_1", "time/dense_2", "label/table", "conv_in/kernel", "conv_out/bias"} <= layers
    assert {"norm_out/scale", "down_1_sample/linear", "up_1_sample/linear"} <= layers


def with_second_time(**settings):
    return tiny(channel_multipliers=(1,), attention_resolutions=(4,), second_time=True, **settings)


def test_a_step_of_length_zero_is_the_network_without_a_second_time():
    _, params, apply = with_second_time()
    _, _, plain = tiny(channel_multipliers=(1,), attention_resolutions=(4,), time_frequencies=(0.1, 5.0))
    x, t, y = batch()
    without = {"params": {name: part for name, part in params["params"].items() if name != "step"}}
    expected = plain(without, x, t, y)
    np.testing.assert_array_equal(apply(params, x, t, y), expected)
    np.testing.assert_array_equal(apply(params, x, t, y, r=t), expected)
    assert np.abs(apply(params, x, t, y, r=jnp.ones(BATCH)) - expected)[:-1].max(axis=(1, 2, 3)).min() > 1e-3


def test_an_untrained_second_time_changes_nothing():
    _, params, apply = with_second_time()
    start = {**params["params"]["step"], "dense_2": {"kernel": jnp.zeros((16, 16))}}
    params = {"params": {**params["params"], "step": start}}
    x, t, y = batch()
    np.testing.assert_array_equal(apply(params, x, t, y, r=jnp.float32(1)), apply(params, x, t, y))
    shapes = jax.eval_shape(build_model("unet", {**TINY, "second_time": True}).init, jax.random.key(0), x, t, y)
    assert jax.tree.map(jnp.shape, shapes["params"]["step"]) == jax.tree.map(jnp.shape, start)


def test_a_second_time_is_refused_where_there_is_none():
    model, params, _ = tiny()
    x, t, y = batch()
    with pytest.raises(ValueError, match="build it with second_time=True"):
        jax.eval_shape(lambda: model.apply(params, x, t, y, r=t))


def test_derivatives_agree_with_central_differences():
    spec = {"label": {"kind": "label", "num_classes": 3}, "style": {"kind": "vector", "size": 2}}
    settings = {"num_classes": 0, "conditions": spec, "dtype": "float64", "second_time": True}
    model = build_model("unet", {**TINY, "channel_multipliers": (1,), "attention_resolutions": (4,), **settings})
    x, t, _ = batch()
    y = {"label": np.arange(BATCH), "style": np.random.default_rng(1).normal(size=(BATCH, 2))}
    check_forward_mode(model, x, t, y, scale=0.2, jit=jit)
