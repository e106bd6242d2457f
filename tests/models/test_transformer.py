"""The transformer: sizes, positions, conditions, scanned blocks, and the transformations it runs under."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.models import layers
from fmd.models import transformer_layers as parts
from fmd.models.contract import check_contract
from fmd.models.registry import build_model
from fmd.models.transformer import SIZES
from fmd.types import Told
from tests.helpers.derivatives import check_forward_mode

TINY = {"num_classes": 3, "depth": 2, "width": 16, "heads": 2, "patch_size": 2}
FULL = {"class_tokens": 2, "class_tokens_from": 1, "bottleneck": 3}  # every kind of layer
BATCH, SHAPE = 3, (4, 6, 1)

# These networks are compiled more often than run.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def tiny(**settings):
    """(model, parameters, jitted apply); the parameters are noise, so that no path is silent as at initialisation."""
    model = build_model("transformer", TINY | settings)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *batch())
    generator = np.random.default_rng(0)
    params = jax.tree.map(lambda a: jnp.asarray(generator.normal(0, 0.3, a.shape), a.dtype), shapes)
    return model, params, jit(model.apply, static_argnames="train")


def batch(shape=SHAPE, size=BATCH):
    x = np.random.default_rng(1).normal(size=(size, *shape)).astype(np.float32)
    return jnp.asarray(x), jnp.linspace(0.0, 1.0, size), jnp.arange(size, dtype=jnp.int32)


def shapes_of(shape=(28, 28, 1), **settings):
    model = build_model("transformer", settings)
    arguments = jnp.zeros((1, *shape)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    return jax.eval_shape(model.init, jax.random.key(0), *arguments)["params"]


DIT = {"norm": "layer", "mlp": "gelu", "qk_norm": False, "rotary": False, "bottleneck": 0}


@pytest.mark.parametrize(
    ("settings", "shape", "millions"),
    [
        ({"size": "B", "patch_size": 16, "num_classes": 1000, "class_tokens": 32}, (256, 256, 3), 131.1),
        ({"size": "XL", "num_classes": 1000, **DIT}, (32, 32, 4), 674.8),
        ({"size": "tiny", "patch_size": 4}, (28, 28, 1), 1.9),
    ],
)
def test_parameters_are_as_many_as_in_the_papers(settings, shape, millions):
    found = shapes_of(shape, **settings)
    assert sum(leaf.size for leaf in jax.tree.leaves(found)) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("size", SIZES)
def test_parameters_follow_the_formula(size):
    """L (18 d^2 + 15 d) + d^2 + 256 d + (K + 1) d + 2 d^2 + 2 d D, to a per cent; to 2.5 below a width of 256."""
    depth, d, _ = SIZES[size]
    formula = depth * (18 * d**2 + 15 * d) + d**2 + 256 * d + 11 * d + 2 * d**2 + 2 * d * 16
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes_of(size=size, patch_size=4))) == pytest.approx(
        formula, rel=0.025 if d < 256 else 0.01
    )


def test_positions_are_separable_waves_of_rows_and_columns():
    table = parts.sincos_positions(3, 5, 8).reshape(3, 5, 8)
    row, column, i = np.indices((3, 5, 2))
    frequency = 10000.0 ** (-i / 2)
    expected = np.concatenate([f(p * frequency) for p in (row, column) for f in (np.sin, np.cos)], axis=-1)
    np.testing.assert_allclose(table, expected, atol=1e-6)


def test_rotation_keeps_norms_and_tells_differences_of_positions_only():
    """q at (r, c) and k at (r + 1, c + 2) have one product, wherever (r, c) is; tokens before the grid do not turn."""
    generator = np.random.default_rng(0)
    q, k = (np.broadcast_to(generator.normal(size=8), (1, 1 + 20, 1, 8)) for _ in range(2))
    angles = jnp.asarray(parts.rotary_angles(4, 5, 8, before=1))
    turned_q, turned_k = (np.asarray(parts.rotate(jnp.float32(a), angles))[0, :, 0] for a in (q, k))
    np.testing.assert_allclose(np.linalg.norm(turned_q, axis=1), np.linalg.norm(q[0, :, 0], axis=1), rtol=1e-5)
    np.testing.assert_array_equal(turned_q[0], np.float32(q[0, 0, 0]))
    grid_q, grid_k = (a[1:].reshape(4, 5, 8) for a in (turned_q, turned_k))
    products = np.sum(grid_q[:3, :3] * grid_k[1:, 2:], axis=-1)
    np.testing.assert_allclose(products, products[0, 0], atol=1e-5)
    assert abs(products[0, 0] - np.sum(grid_q[0, 0] * grid_k[0, 0])) > 1e-2


def test_an_untrained_network_predicts_zero_and_learns_from_its_output_inwards():
    """First the output, then patches and gates, then all: zero gates stop what a block would learn."""
    model, noisy, _ = tiny(**FULL)
    x, t, y = batch()
    params = jit(model.init)(jax.random.key(0), x, t, y)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    goal = jnp.float32(np.random.default_rng(3).normal(size=x.shape))
    loss = lambda p: jnp.mean((model.apply(p, x, t, y, train=True) - goal) ** 2)  # noqa: E731
    both = jit(jax.value_and_grad(loss))
    np.testing.assert_allclose(both(params)[0], jnp.mean(goal**2), rtol=1e-6)
    reached = []
    for _ in range(3):
        gradient = both(params)[1]
        leaves = jax.tree_util.tree_leaves_with_path(gradient["params"])
        reached.append({"/".join(key.key for key in path[:2]) for path, leaf in leaves if jnp.any(leaf != 0)})
        if len(reached) == 2:
            for stack in model.stacked:
                six = np.split(gradient["params"][stack]["modulation"]["linear"]["kernel"], 6, axis=-1)
                assert [bool(np.any(part)) for part in six] == [False, False, True] * 2
        params = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)
    outside = {"patch_in/kernel", "patch_in/bias", "patch_narrow/kernel", "norm_out/scale", "modulation_out/linear"}
    output = {"patch_out/kernel", "patch_out/bias"}
    assert reached[0] == output
    assert reached[1] == output | outside | {f"{stack}/modulation" for stack in model.stacked}
    assert reached[2] == {"/".join(key.key for key in path[:2]) for path, _ in leaves}

    everywhere = both(noisy)[1]["params"]
    rows = np.abs(everywhere.pop("label")["table"]["embedding"]).sum(axis=1)
    np.testing.assert_array_equal(rows > 0, [True, True, True, False])  # the null label was not shown
    for path, leaf in jax.tree_util.tree_leaves_with_path(everywhere):
        blocks = (
            np.abs(leaf).reshape(len(leaf), -1) if path[0].key.startswith("blocks") else np.abs(leaf).reshape(1, -1)
        )
        assert np.all(blocks.max(axis=1) > 0), path


def test_scanned_blocks_are_the_blocks_one_after_another():
    stacked = tiny()[1]["params"]["blocks"]
    generator = np.random.default_rng(2)
    h, c = (jnp.float32(generator.normal(size=shape)) for shape in ((BATCH, 6, 16), (BATCH, 16)))
    angles = jnp.asarray(parts.rotary_angles(2, 3, 8))
    settings = {"heads": 2, "hidden": parts.mlp_width(16, "swiglu")}
    block = parts.Block(**settings)
    with mock.patch("jax.default_backend", return_value="gpu"):  # on a CPU the loop is unrolled
        blocks = parts.stack_of(2)(**settings)

    @jit
    def one_by_one(h):
        for i in range(2):
            h, _ = block.apply({"params": jax.tree.map(lambda a, i=i: a[i], stacked)}, h, c, angles, True)
        return h

    scanned = jit(lambda h: blocks.apply({"params": stacked}, h, c, angles, True)[0])
    expected = np.asarray(one_by_one(h))
    np.testing.assert_allclose(scanned(h), expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_recomputing_and_its_own_order_of_examples_change_nothing():
    """Same gradients with remat, and each example alone has the prediction that it has in the batch."""
    x, t, y = batch()
    gradients = []
    for settings in ({}, {"remat": True}):
        model, params, _ = tiny(**settings)
        loss = lambda p, model=model: jnp.mean(model.apply(p, x, t, y, train=True) ** 2)  # noqa: E731
        gradients.append(jit(jax.grad(loss))(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *gradients)
    model, params, apply = tiny()
    alone = jit(jax.vmap(lambda x, t, y: model.apply(params, x[None], t[None], y[None])[0]))(x, t, y)
    np.testing.assert_allclose(alone, apply(params, x, t, y), atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 9, 3), (2, 2, 1), (28, 20, 1)])
def test_any_size_and_channels(shape):
    model = build_model("transformer", TINY | FULL)
    variables = jax.eval_shape(model.init, jax.random.key(0), *batch(shape))
    out = jax.eval_shape(model.apply, variables, *batch(shape))
    assert (out.shape, out.dtype) == ((BATCH, *shape), jnp.float32)


def test_other_sizes_are_the_network_on_images_continued_at_their_edge():
    _, params, apply = tiny()
    x, t, y = batch()
    expected = apply(params, jnp.pad(x[:, :3, :5], ((0, 0), (0, 1), (0, 1), (0, 0)), "edge"), t, y)[:, :3, :5]
    np.testing.assert_allclose(apply(params, x[:, :3, :5], t, y), expected, atol=1e-6)


def test_every_kind_of_condition_is_heard_and_an_untold_image_is_not():
    spec = {"label": {"kind": "label", "num_classes": 3}, "mark": {"kind": "vector", "size": 2},
            "sketch": {"kind": "image", "height": 4, "width": 6, "channels": 1}}  # fmt: skip
    check_contract(build_model("transformer", TINY | {"conditions": spec}), SHAPE, spec)
    x, t, label = batch()
    model = build_model("transformer", TINY | {"conditions": spec, "num_classes": 0})
    generator = np.random.default_rng(0)
    y = {"label": label, "mark": jnp.ones((BATCH, 2)), "sketch": jnp.float32(generator.normal(size=(BATCH, 4, 6, 1)))}
    shapes = jax.eval_shape(model.init, jax.random.key(0), x, t, y)
    params = jax.tree.map(lambda a: jnp.float32(generator.normal(0, 0.3, a.shape)), shapes)
    told = jnp.ones(BATCH, bool)

    @jit
    def apply(params, y, sketch_told):
        value = y | {"sketch": Told(y["sketch"], sketch_told), "mark": Told(y["mark"], told)}
        return model.apply(params, x, t, value)

    before = apply(params, y, told)
    others = {"label": (label + 1) % 3, "mark": -y["mark"], "sketch": -y["sketch"]}
    for name, other in others.items():
        assert np.abs(apply(params, y | {name: other}, told) - before).max() > 1e-3, name
    untold = apply(params, y, ~told)
    np.testing.assert_array_equal(apply(params, y | {"sketch": others["sketch"]}, ~told), untold)
    assert np.abs(untold - before).max() > 1e-3


def test_second_time_and_weight_enter_as_in_the_unet():
    """Without effect at r = t and w = 1, whatever the parameters; heard elsewhere; refused where there are none."""
    more = {"second_time": True, "guidance_input": True}
    model, params, apply = tiny(**more)
    check_contract(model, SHAPE, second_time=True, guidance_input=True)
    _, _, plain = tiny()
    x, t, y = batch()
    without = {"params": {name: part for name, part in params["params"].items() if name not in ("step", "weight")}}
    expected = plain(without, x, t, y)
    np.testing.assert_array_equal(apply(params, x, t, y, r=t, w=jnp.ones(BATCH)), expected)
    assert np.abs(apply(params, x, t, y, r=t + 0.3, w=jnp.ones(BATCH)) - expected).max() > 1e-3
    assert np.abs(apply(params, x, t, y, r=t, w=2 * jnp.ones(BATCH)) - expected).max() > 1e-3
    start = jit(model.init)(jax.random.key(0), x, t, y)["params"]
    for name in ("step", "weight"):
        np.testing.assert_array_equal(start[name]["dense_2"]["kernel"], 0)
    model, params, _ = tiny()
    for given, field in (("r", "second_time"), ("w", "guidance_input")):
        with pytest.raises(ValueError, match=f"build it with {field}=True"):
            jax.eval_shape(lambda given=given: model.apply(params, x, t, y, **{given: t}))


def test_derivatives_agree_with_central_differences():
    model = build_model("transformer", TINY | FULL | {"dtype": "float64", "second_time": True})
    check_forward_mode(model, *batch(), scale=0.3, jit=jit)


@pytest.mark.parametrize(
    ("backend", "settings", "asked"),
    [
        ("gpu", {}, {"cudnn", "xla"}),  # xla for the other platforms of a program that is exported
        ("gpu", {"second_time": True}, {"xla"}),
        ("gpu", {"dtype": "float32"}, {"xla"}),
        ("cpu", {}, {"xla"}),
    ],
)
def test_cudnn_is_asked_where_it_can_do_it(backend, settings, asked):
    model, _, _ = tiny(**{"attention": "cudnn", "dtype": "bfloat16", **settings})
    variables, seen = jax.eval_shape(model.init, jax.random.key(0), *batch()), set()

    def note(q, k, v, implementation):
        seen.add(implementation)
        return v

    with mock.patch.object(layers.jax.nn, "dot_product_attention", note), \
         mock.patch.object(jax, "default_backend", return_value=backend):  # fmt: skip
        jax.eval_shape(model.apply, variables, *batch())
    assert seen == asked


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 20}, "width 20 in 2 heads; a head must have a multiple of 4 channels, e.g. width 24"),
        ({"size": "XXL"}, "size = 'XXL'; it must be one of tiny, Ti, XS, S, B, L, XL, H"),
        ({"class_tokens": 1, "class_tokens_from": 2}, "class_tokens_from = 2; it must be below depth 2"),
        ({"dtype": "float16"}, "dtype = 'float16'; it must be one of float32, bfloat16, float64"),
    ],
)
def test_impossible_settings_are_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        build_model("transformer", TINY | settings)
    assert "\n" not in str(error.value)
