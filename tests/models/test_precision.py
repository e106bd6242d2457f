"""bfloat16 is bfloat16 everywhere inside, but for what the design keeps in float32; in gradients, too.

One float32 constant turns all that follows back, and no result shows it: layers convert what they are given.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from fmd.models.registry import build_model
from fmd.types import Told

BATCH, SHAPE = 2, (4, 4, 1)
SPEC = {"label": {"kind": "label", "num_classes": 3}, "mark": {"kind": "vector", "size": 5},
        "size": {"kind": "number"}, "sketch": {"kind": "image", "height": 4, "width": 4, "channels": 1}}  # fmt: skip
NETWORKS = {
    "unet": {"base_channels": 8, "num_res_blocks": 1, "embedding_dim": 16, "attention_resolutions": (4, 2)},
    "transformer": {"depth": 2, "width": 16, "heads": 2, "patch_size": 2, "bottleneck": 3, "class_tokens": 2,
                    "class_tokens_from": 1},
    "transformer, as DiT": {"depth": 1, "width": 16, "heads": 2, "norm": "layer", "mlp": "gelu", "qk_norm": False},
}  # fmt: skip
MOVES = ("convert_element_type", "reshape", "transpose", "broadcast_in_dim", "pad", "slice", "squeeze", "concatenate",
         "split", "select_n", "copy", "stop_gradient", "gather", "rev", "iota", "dynamic_slice",
         "dynamic_update_slice", "scatter", "scatter-add", "optimization_barrier", "random_bits")  # fmt: skip
# Statistics, softmax, rotation, sines and first layer of a number or a time, draws, a parameter's sum, the prediction.
IN_FLOAT32 = re.compile(
    r"norm(_\w+)?\b|attention_softmax|rotary|(time|step|weight|condition_size)\b|Dropout|or_null|conv_out|patch_out"
)


def wide(jaxpr, inside=""):
    """(place, primitive) of all arithmetic in float32 or wider on more than one number of an example."""
    for equation in jaxpr.eqns:
        place = f"{inside}/{equation.source_info.name_stack}"
        inner = list(jaxprs_in_params(equation.params))
        for part in inner:
            yield from wide(part, place)
        outs = [v.aval for v in equation.outvars if jnp.issubdtype(v.aval.dtype, jnp.floating)]
        if inner or equation.primitive.name in MOVES:
            continue
        if any(out.dtype.itemsize > 2 and out.size > BATCH for out in outs):
            yield place, equation.primitive.name


def traced(name, dtype):
    model = build_model(name.split(",")[0], NETWORKS[name] | {"dtype": dtype, "dropout": 0.1, "conditions": SPEC,
                                                              "second_time": True, "guidance_input": True})  # fmt: skip
    x, t, told = jnp.ones((BATCH, *SHAPE)), jnp.ones(BATCH), jnp.ones(BATCH, bool)
    parts = {"mark": jnp.ones((BATCH, 5)), "size": jnp.ones((BATCH, 1)), "sketch": x}
    y = {"label": jnp.zeros(BATCH, jnp.int32)} | {key: Told(value, told) for key, value in parts.items()}
    variables = jax.eval_shape(model.init, jax.random.key(0), x, t, y, r=t, w=t)
    call = functools.partial(model.apply, train=True, rngs={"dropout": jax.random.key(0)})

    def loss(variables, x, t, y):
        return jnp.vdot(jax.lax.stop_gradient(x), call(variables, x, t, y, r=t, w=t))

    gradient = jax.value_and_grad(loss, (0, 1))
    return jax.make_jaxpr(gradient)(variables, x, t, y).jaxpr


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_is_kept_everywhere_inside(name):
    """Wide arithmetic is where it should be; with float32 asked the same look finds it everywhere."""
    network = [(place, what) for place, what in wide(traced(name, "bfloat16")) if re.search("UNet|Transformer", place)]
    assert network
    assert [found for found in network if not IN_FLOAT32.search(found[0])] == []


def test_the_look_finds_what_it_should():
    asked = wide(traced("transformer, as DiT", "float32"))
    assert [what for place, what in asked if "/mlp_in" in place]
    with_constant = jax.make_jaxpr(lambda x: x + np.ones((BATCH, 3), np.float32))(jnp.ones((BATCH, 3), jnp.bfloat16))
    assert [what for _, what in wide(with_constant.jaxpr)] == ["add"]
