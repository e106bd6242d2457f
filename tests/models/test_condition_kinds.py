"""Several labels, numbers, images and masks as conditions: what they are to a network, untold and told."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.models import conditions
from fmd.models.condition_kinds import Image, Kind, Labels, Mask, Number
from fmd.models.conditions import Spec, add_embeddings
from fmd.models.registry import build_model
from fmd.types import Told

BATCH = 3
SPEC = {
    "low": {"kind": "image", "height": 2, "width": 3, "channels": 2},
    "hole": {"kind": "mask", "height": 4, "width": 6},
    "marks": {"kind": "labels", "num_classes": 4},
    "age": {"kind": "number", "low": 10.0, "high": 90.0},
}
SMALL = {"base_channels": 8, "channel_multipliers": (1,), "num_res_blocks": 1, "embedding_dim": 8, "num_classes": 0}
X, T = jnp.linspace(-1, 1, BATCH * 5 * 6).reshape(BATCH, 5, 6, 1), jnp.linspace(0.1, 0.9, BATCH)


def parts():
    random = np.random.default_rng(0)
    return {
        "low": random.uniform(-1, 1, (BATCH, 2, 3, 2)).astype(np.float32),
        "hole": random.integers(0, 2, (BATCH, 4, 6, 1)).astype(np.float32),
        "marks": np.array([[0, 0, 0, 0], [1, 0, 0, 1], [0, 1, 0, 0]], np.uint8),
        "age": np.array([[10], [33], [120]], np.float32),
    }


def noise(shapes):
    random = np.random.default_rng(0)
    return jax.tree.map(lambda a: jnp.asarray(random.normal(0, 0.3, a.shape), a.dtype), shapes)


NETWORKS = {
    "unet": SMALL,
    "unet, patches": {**SMALL, "patch_size": 2},
    "transformer": {"depth": 1, "width": 16, "heads": 2, "num_classes": 0},
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    """(parameters that are noise, jitted apply) of a network that is told all kinds."""
    model = build_model(request.param.split(",")[0], NETWORKS[request.param], conditions=SPEC)
    shapes = jax.eval_shape(model.init, jax.random.key(0), X, T, conditions.example(SPEC, BATCH))
    return noise(shapes), jax.jit(lambda params, y: model.apply(params, X, T, y))


def test_each_kind_is_heard_and_untold_alone(network):
    params, apply = network
    told = conditions.drop(parts(), SPEC, 0, jnp.zeros(BATCH, bool))
    np.testing.assert_array_equal(apply(params, told), apply(params, parts()))
    answers = [apply(params, told), apply(params, conditions.drop(parts(), SPEC, 0))]
    answers += [apply(params, conditions.drop(parts(), SPEC, 0, parts=[name])) for name in SPEC]
    for i, one in enumerate(answers):
        for other in answers[:i]:
            assert np.abs(one - other).max(axis=(1, 2, 3)).min() > 1e-4


def test_untold_parts_may_hold_anything(network):
    params, apply = network
    other = jax.tree.map(lambda a: jnp.full(a.shape, jnp.nan) if a.dtype == np.float32 else jnp.asarray(a) + 7, parts())
    untold = conditions.drop(other, SPEC, 0)
    np.testing.assert_array_equal(apply(params, untold), apply(params, conditions.drop(parts(), SPEC, 0)))
    mask = jnp.array([True, False, False])
    mixed = apply(params, conditions.drop(parts(), SPEC, 0, mask))
    np.testing.assert_allclose(mixed[1:], apply(params, parts())[1:], atol=1e-5)
    np.testing.assert_allclose(mixed[:1], apply(params, untold)[:1], atol=1e-5)


def test_an_image_of_zeros_is_not_an_untold_one():
    zeros = jnp.zeros((BATCH, 2, 3, 2))
    kind = Image(1, "float32", 2, 3, 2)
    planes = kind.planes(Told(zeros, jnp.array([True, False, True])), 2, 3)
    np.testing.assert_array_equal(planes[..., :2], 0)
    np.testing.assert_array_equal(planes[:, 0, 0, 2], [1, 0, 1])


def test_a_network_that_is_told_an_image_begins_as_the_one_without():
    """New input weights are zero, so that `init_from` goes on from it, bit for bit."""
    y, spec = parts(), {"marks": SPEC["marks"]}
    plain, model = (build_model("unet", SMALL, conditions=told) for told in (spec, spec | {"low": SPEC["low"]}))
    params = noise(jax.eval_shape(plain.init, jax.random.key(0), X, T, conditions.example(spec, BATCH)))
    kernel = model.init(jax.random.key(0), X, T, {"marks": y["marks"], "low": y["low"]})["params"]["conv_condition"]
    assert set(kernel) == {"kernel"}
    more = {"params": {**params["params"], "conv_condition": kernel}}
    np.testing.assert_array_equal(
        model.apply(more, X, T, {"marks": y["marks"], "low": y["low"]}),
        plain.apply(params, X, T, {"marks": y["marks"]}),
    )


def test_images_are_resized_to_the_grid_and_bytes_are_brought_to_its_scale():
    kind = Image(1, "float32", 1, 2, 1)
    bytes_ = np.array([[[[0], [255]]]], np.uint8)
    np.testing.assert_array_equal(kind.planes(bytes_, 1, 2)[0, 0, :, 0], [-1, 1])
    np.testing.assert_allclose(kind.planes(bytes_, 2, 4)[0, :, :, 0], [[-1, -0.5, 0.5, 1]] * 2)  # linear
    np.testing.assert_array_equal(kind.planes(bytes_, 2, 4)[..., 1], 1)
    mask = Mask(1, "float32", 1, 2)
    np.testing.assert_array_equal(mask.planes(bytes_, 2, 4)[0, :, :, 0], [[0, 0, 1, 1]] * 2)  # nearest
    np.testing.assert_array_equal(mask.planes(bytes_ / np.float32(255), 2, 4), mask.planes(bytes_, 2, 4))


def test_planes_come_in_the_order_of_names_whatever_the_spec_has():
    """A run's file sorts its keys: a network that is loaded again must find its planes where they were."""
    backwards = dict(reversed(SPEC.items()))
    planes = [conditions.planes(parts(), spec, 4, 6) for spec in (SPEC, backwards)]
    np.testing.assert_array_equal(*planes)


def test_several_labels_are_the_sum_of_their_rows():
    kind, marks = Labels(5, "float32", 4), parts()["marks"]
    params = noise(jax.eval_shape(kind.init, jax.random.key(0), marks))
    table = np.asarray(params["params"]["table"]["kernel"])
    np.testing.assert_allclose(kind.apply(params, marks), [0 * table[0], table[0] + table[3], table[1]], atol=1e-6)


def test_close_numbers_are_close():
    kind, ages = Number(8, "float32", 10.0, 90.0), np.array([[50], [50.1], [80]], np.float32)
    params = noise(jax.eval_shape(kind.init, jax.random.key(0), ages))
    out = np.asarray(kind.apply(params, ages))
    assert 0 < np.abs(out[1] - out[0]).max() < 0.02 * np.abs(out[2] - out[0]).max()


def test_a_network_without_planes_refuses_an_image():
    class Deaf(nn.Module):
        num_classes: int
        conditions: Spec | None = None

        @nn.compact
        def __call__(self, x, t, y, train=False):
            return x + add_embeddings(nn.Dense(4)(t[:, None]), y, self.conditions, 0).sum()

    model = Deaf(0, conditions.freeze(SPEC))
    with pytest.raises(ValueError, match="condition 'low' is an image, and this network takes none"):
        model.init(jax.random.key(0), X, T, parts())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": np.zeros((BATCH, 3, 2, 2), np.float32)}, r"'low' must be floats \[B, 2, 3, 2\], got float32\[3, 3, 2"),
        ({"low": np.zeros((BATCH, 2, 3, 2), int)}, r"'low' must be floats \[B, 2, 3, 2\], got int64"),
        ({"hole": np.full((BATCH, 4, 6, 1), 1.5)}, r"condition 'hole' must lie in \[0, 1\]; got 1.5"),
        ({"marks": np.full((BATCH, 4), 2)}, r"condition 'marks' must lie in \[0, 1\]; got 2"),
        ({"marks": np.zeros(BATCH, int)}, r"'marks' must be integers \[B, 4\], got int64\[3\]"),
        ({"age": np.zeros(BATCH)}, r"'age' must be floats \[B, 1\], got float64\[3\]"),
    ],
)
def test_wrong_values_are_one_line(change, message):
    conditions.check(parts(), SPEC, 0, BATCH)
    with pytest.raises(ValueError, match=message):
        conditions.check({**parts(), **change}, SPEC, 0, BATCH)


@pytest.mark.parametrize(("name", "given"), [("example", (1,)), ("__call__", (0,)), ("planes", (0, 8, 8))])
def test_a_kind_of_ones_own_is_told_what_it_lacks(name, given):
    class Unfinished(Kind):
        pass

    with pytest.raises(NotImplementedError, match=f"Unfinished .*{name}"):
        getattr(Unfinished(dim=4, dtype=jnp.float32), name)(*given)


def test_a_range_without_length_is_refused():
    with pytest.raises(ValueError, match=r"'number': low = 1.0, high = 1.0; low must be less"):
        conditions.example({"age": {"kind": "number", "low": 1.0, "high": 1.0}}, 1)
