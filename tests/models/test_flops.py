"""Operations counted from traced programs: by hand for each kind of layer, loops included, and against the papers."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.models import flops
from fmd.models.layers import attention
from fmd.models.registry import build_model


def zeros(*shape):
    return jax.ShapeDtypeStruct(shape, np.float32)


def convolution(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def looped(x, kernels):
    return jax.lax.scan(lambda h, kernel: (jax.checkpoint(jnp.matmul)(h, kernel), None), x, kernels)[0]


def branches(x, kernel):
    return jax.lax.cond(x[0, 0] > 0, lambda: x @ kernel @ kernel, lambda: x @ kernel)


BY_HAND = {
    "convolution": (convolution, (zeros(2, 5, 6, 3), zeros(3, 3, 3, 4)), {"conv": 2 * 9 * 3 * 4 * (2 * 5 * 6)}),
    "dense": (jnp.matmul, (zeros(7, 3), zeros(3, 5)), {"dense": 2 * 3 * 5 * 7}),
    "attention": (attention, (zeros(1, 6, 2, 4),) * 3, {"attention": 4 * 6**2 * 8}),
    "scan": (looped, (zeros(2, 3), zeros(5, 3, 3)), {"dense": 5 * 2 * 3 * 3 * 2}),
    "condition": (branches, (zeros(2, 3), zeros(3, 3)), {"dense": 2 * 2 * 3 * 3 * 2}),
    "gradient of a scan": (
        jax.grad(lambda k, x: looped(x, k).sum()), (zeros(5, 3, 3), zeros(2, 3)), {"dense": 5 * 2 * 3 * 3 * 2 * 3}
    ),
    "gradient of a convolution": (
        jax.grad(lambda k, x: convolution(x, k).sum()), (zeros(3, 3, 3, 4), zeros(2, 5, 6, 3)),
        {"conv": 2 * (2 * 9 * 3 * 4 * (2 * 5 * 6))},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("program", "arguments", "expected"), BY_HAND.values(), ids=BY_HAND)
def test_operations_by_hand(program, arguments, expected):
    assert flops.count(jax.make_jaxpr(program)(*arguments)) == expected


def test_devices_that_share_a_batch_count_all():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.PartitionSpec("data")
    program = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(split, None), out_specs=split)
    assert flops.count(jax.make_jaxpr(program)(zeros(8, 3), zeros(3, 5))) == {"dense": 2 * 3 * 5 * 8}


def test_a_tiny_unet_by_hand():
    """4 x 4 pixels, one level of 2 channels, one block down, two in the middle and one up, an embedding of 4.

    A normalisation spreads the numbers of its groups over channels three times.
    """
    model = {"base_channels": 2, "channel_multipliers": (1,), "num_res_blocks": 1, "attention_resolutions": (4,)}
    conv = 2 * 9 * 16 * (1 * 2 + 3 * (2 * 2 + 2 * 2) + (4 * 2 + 2 * 2) + 2 * 1)
    dense = 2 * (2 * 4 * 4 + 4 * 4 * 4) + 2 * 16 * (4 * 2) + 3 * 2 * 16 * (2 * 6 + 2 * 2)
    norms = 3 * 2 * ((3 + 4 + 3 + 1) * 2 * 2 + 4 * 4)
    found = flops.forward(build_model("unet", model | {"embedding_dim": 4}), (4, 4, 1))
    assert found == {"conv": conv, "dense": dense + norms, "attention": 3 * 4 * 16 * 16 * 2}


DIT = {"norm": "layer", "mlp": "gelu", "qk_norm": False, "rotary": False, "bottleneck": 0}


@pytest.mark.parametrize(
    ("settings", "shape", "billions"),
    [
        ({"size": "B", "patch_size": 16, "class_tokens": 32, "num_classes": 1000}, (256, 256, 3), 25.2),
        ({"size": "XL", "num_classes": 1000, **DIT}, (32, 32, 4), 118.6),
        ({"size": "tiny", "patch_size": 4, "attention": "cudnn"}, (28, 28, 1), 0.0627),
    ],
)
def test_transformers_take_as_many_as_in_the_papers(settings, shape, billions):
    """Multiply-adds: JiT-B/16 25 (2511.13720, table 8), DiT-XL/2 118.6 (2212.09748, table 1)."""
    found = flops.forward(build_model("transformer", settings), shape)
    assert found.total() / 2e9 == pytest.approx(billions, rel=2e-3)


def test_xla_counts_as_many_where_blocks_are_no_loop():
    """Within 1.5 per cent, for it counts sums and norms, too; of a loop it counts the body once."""
    model = build_model("transformer", {"width": 256, "heads": 4, "depth": 3, "patch_size": 4, "class_tokens": 8})
    x, t, y = zeros(1, 32, 32, 3), zeros(1), jax.ShapeDtypeStruct((1,), np.int32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x, t, y)

    def by_xla(backend):
        with mock.patch("jax.default_backend", return_value=backend):  # on a CPU the loop is unrolled
            return jax.jit(lambda *given: model.apply(*given)).lower(variables, x, t, y).cost_analysis()["flops"]

    found = flops.forward(model, (32, 32, 3)).total()
    assert 1 < by_xla("cpu") / found < 1.015
    assert by_xla("gpu") < 0.8 * found


def test_utilisation_is_the_share_of_the_peak():
    assert flops.utilisation(1000.0, 2e9, 8e12) == 0.25
    assert flops.utilisation(1000.0, 2e9, flops.peak("an abacus")) is None
    assert flops.peak("NVIDIA H200") == 2 * flops.peak("NVIDIA H200", "float32") + 1e12
    assert flops.Cost(2e9, 1.0, 12e12).utilisation(1000.0) == 0.5
