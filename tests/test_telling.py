"""The condition of an example: conditions made of the image, parts left out, rows of a split."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd import telling
from fmd.data import Split
from fmd.math import operators
from fmd.math.pixels import to_unit
from fmd.randomness import step_rng
from fmd.training import recipe
from fmd.types import Told
from tests.helpers import toys

SHAPE = (8, 8, 1)
LOW = {"name": "block_average", "factor": 4, "noise_std": 0.5}
NUMBER = 4000


def tells(given=None, num_classes=10, derive=None, told=None, dropout=None):
    data = {"derive": {"low": LOW} if derive is None else derive, "told": told}
    config = toys.config(data=data, train={"part_dropout": dropout or {}})
    return telling.telling(config, SHAPE, num_classes, given)


def batch(count=3):
    random = np.random.default_rng(0)
    return random.uniform(-1, 1, (count, *SHAPE)).astype(np.float32), np.arange(count, dtype=np.int32) % 10


def test_a_part_is_the_measurement_with_noise():
    x1, y = batch(NUMBER)
    rng = step_rng(0, jnp.int32(3), jnp.arange(NUMBER), NUMBER)
    told = tells()(rng, jnp.asarray(x1), y)
    np.testing.assert_array_equal(told["label"], y)
    noise = np.asarray(told["low"]) - operators.get("block_average", factor=4)(jnp.asarray(x1))
    assert told["low"].shape == (NUMBER, 2, 2, 1)
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 0.5], atol=0.02)
    np.testing.assert_allclose(np.corrcoef(noise.reshape(NUMBER, 4).T), np.eye(4), atol=0.06)
    half = step_rng(0, jnp.int32(3), jnp.arange(NUMBER // 2, NUMBER), NUMBER)
    again = tells()(half, jnp.asarray(x1[NUMBER // 2 :]), y[NUMBER // 2 :])
    np.testing.assert_array_equal(again["low"], told["low"][NUMBER // 2 :])


def test_the_spec_names_all_that_is_told():
    image = {"kind": "image", "height": 2, "width": 2, "channels": 1}
    label, age = {"kind": "label", "num_classes": 10}, {"kind": "vector", "size": 1}
    assert tells().spec == {"label": label, "low": image}
    assert tells(num_classes=0).spec == {"low": image}
    assert tells(told=("low",)).spec == {"low": image}
    assert tells({"label": label, "age": age}, told=["age", "low"]).spec == {"age": age, "low": image}
    assert tells(derive={}).spec is None
    assert tells({"age": age}, derive={}).spec == {"age": age}


def test_nothing_changes_for_labels_alone():
    x1, y = batch()
    rng = step_rng(0, jnp.int32(0), jnp.arange(3), 3)
    assert tells(derive={}).in_training(rng, jnp.asarray(x1), y) is y


def test_parts_are_left_out_alone_in_their_shares():
    x1, y = batch(NUMBER)
    rng = step_rng(0, jnp.int32(0), jnp.arange(NUMBER), NUMBER)
    told = tells(dropout={"low": 0.3, "label": 0.2}).in_training(rng, jnp.asarray(x1), jnp.asarray(y))
    assert isinstance(told["low"], Told)
    without = ~np.asarray(told["low"].told), np.asarray(told["label"]) == 10
    np.testing.assert_allclose([part.mean() for part in without], [0.3, 0.2], atol=0.02)
    np.testing.assert_allclose((without[0] & without[1]).mean(), 0.06, atol=0.02)
    alone = tells(derive={}, dropout={"label": 0.2}).in_training(rng, jnp.asarray(x1), jnp.asarray(y))
    np.testing.assert_array_equal(alone, told["label"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"derive": {"label": LOW}}, r"derive\.label: the data set has a condition 'label' of its own"),
        ({"derive": {"low": {"factor": 4}}}, r"must be a block of an operator"),
        ({"derive": {"low": {**LOW, "noise_std": -1}}}, r"derive\.low\.noise_std = -1; it must be a number from 0"),
        ({"derive": {"low": {**LOW, "factor": 3}}}, r"operator 'block_average' does not take images \(8, 8, 1\)"),
        ({"told": ("high",)}, r"config\.data\.told = \('high',\); name one or more of the parts label, low"),
        ({"told": ()}, r"config\.data\.told = \(\); name one or more of"),
        ({"dropout": {"high": 0.1}}, r"part_dropout names high; the parts are label, low"),
        ({"dropout": {"low": 2.0}}, r"config\.train\.part_dropout\.low = 2\.0; it must be"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tells(**options)


def test_rows_of_a_split_have_the_same_measurement_in_any_batch():
    random = np.random.default_rng(0)
    split = Split(random.integers(0, 256, (30, *SHAPE), np.uint8), (np.arange(30) % 3).astype(np.int32))
    info = recipe.make_info(toys.config(data={"derive": {"low": LOW}}), toys.dataset()).replace(image_shape=SHAPE)
    info = info.replace(conditions=tells().spec)
    rows = telling.rows_like(split, np.array([2, 0, 2, 7]))
    np.testing.assert_array_equal(rows, [2, 0, 5, 0])
    told = telling.tell_rows(info, split, rows, np.array([2, 0, 2, 7]))
    np.testing.assert_array_equal(told["label"], [2, 0, 2, 7])
    alone = telling.tell_rows(info, split, rows[2:3])
    np.testing.assert_array_equal(alone["low"], told["low"][2:3])
    clean = operators.get("block_average", factor=4)(to_unit(jnp.asarray(split.images[rows])))
    assert 0.2 < np.std(told["low"] - clean) < 0.8
    assert isinstance(told["low"], np.ndarray)
    assert jax.tree.leaves(told)[0].shape == (4,)
