"""Floating-point operations of a network, counted from what it traces to, and the share of a device's peak.

A multiplication and an addition count two, as the makers' peaks do:

    convolution k x k on h x w pixels    2 k^2 c_in c_out h w         "conv"
    dense layer on n rows                2 c_in c_out n               "dense"
    attention over n tokens              4 n^2 d                      "attention": products with an axis of batches

Everything else is left out. The body of a scan counts as often as it runs, of the branches of a condition the most
expensive, the body of a `while` once.

Utilisation is that of the model (arXiv 2204.02311): of a training step three forward passes count, since the backward
pass computes a gradient for the inputs and one for the weights of each layer. What is computed again, drawn, normalised
or averaged does not, so it can be compared between programs.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxprs_in_params

from fmd.models import conditions
from fmd.models.contract import Model
from fmd.models.network import with_xla_attention
from fmd.types import Params

TRAINING = 3  # forward passes that a training step counts

# Dense multiplications and additions per second by JAX's name of the device and the network's dtype, from the makers'
# pages. On NVIDIA's, float32 is TF32, which JAX multiplies in by default.
PEAKS: dict[str, dict[str, float]] = {
    "NVIDIA A100-SXM4-40GB": {"bfloat16": 312e12, "float32": 156e12},
    "NVIDIA A100-SXM4-80GB": {"bfloat16": 312e12, "float32": 156e12},
    "NVIDIA B200": {"bfloat16": 2250e12, "float32": 1125e12},
    "NVIDIA H100 80GB HBM3": {"bfloat16": 989e12, "float32": 494e12},
    "NVIDIA H100 PCIe": {"bfloat16": 756e12, "float32": 378e12},
    "NVIDIA H200": {"bfloat16": 989e12, "float32": 494e12},
    "NVIDIA L4": {"bfloat16": 121e12, "float32": 60e12},
    "TPU v4": {"bfloat16": 275e12},
    "TPU v5": {"bfloat16": 459e12},
    "TPU v5 lite": {"bfloat16": 197e12},
    "TPU v6 lite": {"bfloat16": 918e12},
}


@dataclass(frozen=True)
class Cost:
    """The operations of a run, and what its devices could do."""

    forward: float  # of the network on one image
    step: float  # of everything in one training step, on all devices
    peak: float | None  # per second, of all devices; None where it is not known

    def utilisation(self, images_per_second: float) -> float | None:
        """The share of the peak that a speed of training amounts to; None where that is not known."""
        return utilisation(images_per_second, TRAINING * self.forward, self.peak)


def utilisation(images_per_second: float, flops_per_image: float, peak: float | None) -> float | None:
    """The share of `peak` operations per second that a speed amounts to; None without a peak."""
    return images_per_second * flops_per_image / peak if peak else None


def peak(device_kind: str, dtype: str = "bfloat16") -> float | None:
    """The maker's operations per second of a device, None for an unknown one."""
    return PEAKS.get(device_kind, {}).get(dtype)


def forward(
    model: Model, image_shape: tuple[int, ...], told: conditions.Spec | None = None, params: Params | None = None
) -> Counter[str]:
    """Operations of one forward pass on one image, by kind: "conv", "dense" and "attention".

    Nothing is computed: the model is traced, with attention that is made of products. It is traced for two images, as
    in `check_contract`: JAX then finds much of the trace in its caches.

    Args:
        model: a Flax module.
        image_shape: height, width, channels.
        told: the spec of its condition, None for labels alone.
        params: its parameters, of which the shapes matter; traced here by default.
    """
    model = with_xla_attention(model)
    x, t = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.float32)
    y = jax.eval_shape(lambda: conditions.example(told, 2))
    if params is None:
        params = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)), x, t, y)["params"]
    of_two = count(jax.make_jaxpr(model.apply)({"params": params}, x, t, y))
    return Counter({kind: number // 2 for kind, number in of_two.items()})


def count(program: ClosedJaxpr | Jaxpr) -> Counter[str]:
    """Operations of a traced program, by kind."""
    found: Counter[str] = Counter()
    for equation in program.eqns:
        name = equation.primitive.name
        if name == "conv_general_dilated":
            found["conv"] += convolution(equation)
        elif name == "dot_general":
            (contracted, _), (batch, _) = equation.params["dimension_numbers"]
            sizes = [shape(equation.invars[0])[axis] for axis in contracted]
            found["attention" if batch else "dense"] += 2 * math.prod([*shape(equation.outvars[0]), *sizes])
        else:
            inner = [count(jaxpr) for jaxpr in jaxprs_in_params(equation.params)]
            if name == "cond":
                inner = [max(inner, key=lambda branch: branch.total())]
            for part in inner:
                found += Counter({kind: times(equation) * number for kind, number in part.items()})
    return found


def times(equation: Any) -> int:
    """How often the programs inside an equation run, on all devices."""
    if equation.primitive.name == "scan":
        return int(equation.params["length"])
    return int(equation.params["mesh"].size) if equation.primitive.name == "shard_map" else 1


def shape(variable: Any) -> tuple[int, ...]:
    """The shape of a variable of a traced program."""
    return tuple(variable.aval.shape)


def convolution(equation: Any) -> int:
    """Operations of a convolution, or of one that is a gradient of another."""
    numbers, kernel = equation.params["dimension_numbers"], shape(equation.invars[1])
    result = math.prod(shape(equation.outvars[0]))
    inputs = kernel[numbers.rhs_spec[1]]
    return int(2 * result * inputs * math.prod(kernel[axis] for axis in numbers.rhs_spec[2:]))
