"""The portable program: what `Sampler` draws, for any batch size; black where `Sampler` would refuse."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax import export

from fmd.export import portable
from fmd.sampling.sampler import Sampler, model_of
from tests.helpers import half_trained, toys

NOISE = np.random.default_rng(5).standard_normal((200, 8, 8, 1)).astype(np.float32)
LABELS = np.arange(200, dtype=np.int32) % (toys.CLASSES + 1)  # the null label is among them


@pytest.fixture(scope="module")
def program(exported):
    return export.deserialize(bytearray((exported / "sampler.stablehlo").read_bytes()))


@pytest.fixture(scope="module")
def call(program):
    compiled = jax.jit(program.call)
    return lambda noise, labels, weight: np.asarray(compiled(noise, np.int32(labels), np.float32(weight)))


def test_it_is_for_any_batch_size_on_three_platforms(program):
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert [str(aval) for aval in program.in_avals] == ["float32[b,8,8,1]", "int32[b]", "float32[]"]
    assert [str(aval) for aval in program.out_avals] == ["uint8[b,8,8,1]"]


@pytest.mark.parametrize("weight", [2.0, 0.5])
def test_it_draws_what_the_sampler_draws_to_one_grey_level(call, sampler, weight):
    difference = call(NOISE, LABELS, weight).astype(int) - sampler(LABELS, noise=NOISE, weight=weight)
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 1e-3
    assert call(NOISE, LABELS, weight).std() > 10


def test_an_image_does_not_depend_on_its_batch(call):
    np.testing.assert_allclose(call(NOISE[3:4], LABELS[3:4], 2), call(NOISE, LABELS, 2)[3:4], atol=1)


def test_where_the_sampler_would_refuse_the_image_is_black(call):
    good = call(NOISE, LABELS, 2)
    labels = LABELS.copy()
    labels[:2] = -1, toys.CLASSES + 1
    noise = NOISE.copy()
    noise[2, 4, 4] = np.nan
    drawn = call(noise, labels, 2)
    assert not drawn[:3].any()
    np.testing.assert_array_equal(drawn[3:], good[3:])
    assert good[:3].any(axis=(1, 2, 3)).all()
    for weight in (np.nan, np.inf):
        assert not call(NOISE, LABELS, weight).any()


def test_a_batch_of_none_is_refused(call):
    with pytest.raises(ValueError, match="Expected value >= 1"):
        call(NOISE[:0], LABELS[:0], 2)


def serialized(info, params):
    program = portable.serialize(model_of(info), params, info, info.config.sample)
    return export.deserialize(bytearray(program))


@pytest.mark.parametrize(
    "overrides",
    [
        {"num_classes": 0},
        {"train": {"label_dropout": 0.0}},
        {"method": {"name": "mean_flow"}, "sample": {"solver": "jump"}},
    ],
    ids=["no classes", "no label dropout", "jumps"],
)
def test_a_model_that_cannot_be_guided_takes_weight_one_alone(overrides):
    sample = {"guidance": {"name": "cfg", "weight": 1.0}, "steps": 1, **overrides.get("sample", {})}
    info = half_trained.make_info(**{**overrides, "sample": sample})
    program = jax.jit(serialized(info, half_trained.make_params(info)).call)
    never_told = [] if info.can_be_guided else [(info.num_classes, 1)]  # the null label, if there are classes
    asked = [(0, 1), (0, 2), *(never_told if info.num_classes else [])]
    drawn = [np.asarray(program(NOISE[:2], np.int32([y, y]), np.float32(weight))) for y, weight in asked]
    assert [bool(images.any()) for images in drawn] == [True] + [False] * (len(asked) - 1)


@pytest.mark.parametrize("name", ["mean_flow", "shortcut"])
def test_jumps_are_what_is_exported_where_the_solver_is_jump(name):
    sample = {"guidance": {"name": "cfg", "weight": 1.0}, "solver": "jump", "steps": 2}
    info = half_trained.make_info(method={"name": name}, sample=sample)
    params = half_trained.make_params(info)
    sampler = Sampler.from_info(info, params=params)
    alone = jax.jit(serialized(info, params).call)(NOISE[:16], LABELS[:16], np.float32(1))
    images = sampler(LABELS[:16], noise=NOISE[:16])
    assert images.std() > 10
    assert np.abs(np.asarray(alone).astype(int) - images).max() <= 1
    assert (sampler(LABELS[:16], noise=NOISE[:16], solver="euler") != images).any()


CONDITIONS = {"label": {"kind": "label", "num_classes": toys.CLASSES}, "style": {"kind": "vector", "size": 3}}


def test_each_part_of_a_condition_is_an_input_in_the_order_of_the_spec():
    info = half_trained.make_info(conditions=CONDITIONS)
    params = half_trained.make_params(info)
    program = serialized(info, params)
    inputs = ["float32[b,8,8,1]", "int32[b]", "float32[b,3]", "float32[]"]
    assert [str(aval) for aval in program.in_avals] == inputs
    style = np.random.default_rng(1).standard_normal((16, 3)).astype(np.float32)
    call = jax.jit(program.call)
    alone = np.asarray(call(NOISE[:16], LABELS[:16], style, np.float32(2)))
    images = Sampler.from_info(info, params=params)({"label": LABELS[:16], "style": style}, noise=NOISE[:16], weight=2)
    assert np.abs(alone.astype(int) - images).max() <= 1
    other = np.asarray(call(NOISE[:16], LABELS[:16], style + 1, np.float32(2)))
    assert (other != alone).any(axis=(1, 2, 3)).all()
    black = np.asarray(call(NOISE[:16], LABELS[:16] - 1, style, np.float32(2))).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(black, LABELS[:16] > 0)


class Brittle(nn.Module):
    """Asks for the batch size as a number."""

    num_classes: int = toys.CLASSES

    @nn.compact
    def __call__(self, x, t, y, train=False, r=None):
        return x.reshape(int(x.shape[0]), -1).reshape(x.shape)


def test_a_model_that_does_not_lower_for_any_batch_size_is_named_in_one_line():
    """Jumps call it with the batch; a guided call maps over the examples, and any model is one for any batch there."""
    sample = {"solver": "jump", "guidance": {"name": "cfg", "weight": 1.0}}
    info = half_trained.make_info(method={"name": "mean_flow"}, sample=sample)
    message = r"model 'unet' cannot be exported for any batch size .* shapes from x"
    with pytest.raises(ValueError, match=message) as refused:
        portable.serialize(Brittle(), {}, info, info.config.sample)
    assert "\n" not in str(refused.value)


def test_where_a_source_file_lies_is_not_in_the_program(program):
    assert ".py" not in program.mlir_module()
    assert jax.config.values["jax_hlo_source_file_canonicalization_regex"] is None
