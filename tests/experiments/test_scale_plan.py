"""The plan for large transformers: each formula against the network itself at small size. Collectives and the state on
devices: tests/test_sharding.py."""

import dataclasses
import math
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

from experiments import scale_plan
from fmd.devices import SMALLEST_SHARDED
from fmd.models import transformer_layers as layers
from fmd.models.registry import build_model

PAGE = Path(__file__).parents[2] / "experiments" / "site" / "pages" / "scaling.md"
SMALL = scale_plan.Transformer(3, 24, 2, 5, 4, 1, patch=4, side=12, channels=3, classes=7)
WIDE = scale_plan.Transformer(2, 256, 4, 128, 64, 1, patch=8, side=16, channels=2, classes=99)


def network(net):
    given = dataclasses.asdict(net)
    own = {"patch_size": given.pop("patch")} | {key: given[key] for key in (
        "depth", "width", "heads", "bottleneck", "class_tokens", "class_tokens_from")}  # fmt: skip
    model = build_model("transformer", own, num_classes=net.classes)
    x, t, y = jnp.zeros((1, net.side, net.side, net.channels)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    return model, (jax.eval_shape(model.init, jax.random.key(0), x, t, y), x, t, y)


def products(jaxpr):
    """Operations of all matrix products, those of a loop as often as it runs."""
    total = 0
    for equation in jaxpr.eqns:
        inner = sum(products(part) for part in jaxprs_in_params(equation.params))
        total += inner * equation.params.get("length", 1)
        if equation.primitive.name == "dot_general":
            (axes, _), _ = equation.params["dimension_numbers"]
            common = math.prod(equation.invars[0].aval.shape[axis] for axis in axes)
            total += 2 * math.prod(equation.outvars[0].aval.shape) * common
    return total


@pytest.mark.parametrize("net", [SMALL, WIDE], ids=["small", "wide"])
def test_parameters_and_operations_are_those_of_the_network(net):
    model, (variables, *arguments) = network(net)
    sizes = [leaf.size for leaf in jax.tree.leaves(variables)]
    assert scale_plan.parameters(net) == sum(sizes)
    assert scale_plan.forward_operations(net) == products(jax.make_jaxpr(model.apply)(variables, *arguments).jaxpr)
    if net is WIDE:  # where kernels are split and all else is not
        shares = [leaf.shape[1:] if "blocks" in str(path) else leaf.shape
                  for path, leaf in jax.tree_util.tree_leaves_with_path(variables)]  # fmt: skip
        large = sum(s for s, shape in zip(sizes, shares, strict=True) if math.prod(shape) >= SMALLEST_SHARDED)
        block, outside = scale_plan.block_parameters(net), scale_plan.outside_parameters(net)
        assert large == net.depth * block.large + outside.large


def test_parameters_and_operations_are_those_of_the_paper():
    counts = {name: round(scale_plan.parameters(net) / 1e6) for name, (net, _) in scale_plan.JIT.items()}
    assert counts == {"B": 131, "L": 459, "G": 2008}
    products = {name: round(scale_plan.forward_operations(net) / 2e9) for name, (net, _) in scale_plan.JIT.items()}
    assert products == {"B": 25, "L": 88, "G": 384}


def kept(images, n, policy):
    """Bytes that a block in bfloat16 keeps from its forward to its backward pass."""
    kind = layers.Block if policy == "all" else nn.remat(layers.Block, static_argnums=(4,), policy=policy)
    block = kind(heads=SMALL.heads, hidden=SMALL.hidden, dtype=jnp.bfloat16)
    x, condition = jnp.zeros((images, n, SMALL.width), jnp.bfloat16), jnp.zeros((images, SMALL.width), jnp.bfloat16)
    angles = jnp.zeros((n, SMALL.width // SMALL.heads // 2))

    def forward(x, condition):
        params = block.init(jax.random.key(0), x, condition, angles, False)
        return jax.vjp(lambda *given: block.apply(*given, angles, False)[0], params, x, condition)[1]

    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(forward, x, condition)))


@pytest.mark.parametrize("n", [9, 16])
def test_bytes_between_forward_and_backward_are_those_that_a_block_keeps(n):
    dots = jax.checkpoint_policies.dots_saveable
    condition = scale_plan.HALF * SMALL.width  # the same for all blocks, kept once
    for policy, expected in {
        "all": scale_plan.block_bytes(SMALL, n),
        None: scale_plan.kept_bytes(SMALL, n, remat=True) + condition,
        dots: scale_plan.kept_bytes(SMALL, n, remat=False) + condition,
    }.items():
        assert kept(3, n, policy) - kept(2, n, policy) == expected


def test_a_plan_adds_up():
    net, epochs = scale_plan.JIT["G"]
    one, eight = scale_plan.plan(net, epochs, 8), scale_plan.plan(net, epochs, 64)
    assert (one.remat, eight.remat) == (True, False)
    assert one.operations == pytest.approx(4 / 3 * eight.operations)
    assert one.computing == pytest.approx(8 * 4 / 3 * eight.computing)
    assert one.days * 86400 * 8 * scale_plan.PEAK * scale_plan.SHARE == pytest.approx(one.operations)
    steps = epochs * scale_plan.IMAGENET / scale_plan.BATCH
    assert eight.days * 86400 == pytest.approx(eight.sending * steps)  # the longer of the two there
    ring = {"all-gather": 8, "all-reduce": 0}
    assert scale_plan.wire_seconds(ring, 1) * scale_plan.WITHIN == pytest.approx(7)
    ring = {"all-gather": 0, "all-reduce": 8}
    assert scale_plan.wire_seconds(ring, 1) * scale_plan.WITHIN == pytest.approx(14)
    between = scale_plan.wire_seconds(ring, 4) - scale_plan.wire_seconds(ring, 1)
    assert between * scale_plan.BETWEEN == pytest.approx(2 * 3 / 4)


def test_the_page_shows_the_table():
    assert scale_plan.table() in PAGE.read_text()
