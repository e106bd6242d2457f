"""The code in the model card: how to load an exported folder, complete programs to be run inside it.

All but one end with `images`, uint8 [4, H, W, C], from the same noise. The tests run what stands in the card.
"""

import json
from collections.abc import Mapping
from typing import Any

from fmd.sampling.program import Settings, needs_schedule, rule_parameters, solver_options

SAMPLER = """
import numpy as np
from fmd.sampling.sampler import load

sampler = load(".")
noise = {noise}
images = sampler({labels}, noise=noise, weight={weight})
"""

ORBAX_AND_FLAX = """
import {imports}
import jax, numpy as np, orbax.checkpoint as ocp
from fmd.math import guidance, odes, schedules, simulators
from fmd.models.registry import build_model
from fmd.utils.compile import cpu_compiler_options

config, path = json.load(open("config.json"))["config"]["model"], schedules.get({schedule})
model = build_model(config["name"], {{**config, "num_classes": {classes}}})
params = ocp.StandardCheckpointer().restore(os.path.abspath("weights"))
def draw(params, x0, labels, weight={fixed_weight}):
    flow = odes.from_model(lambda x, t, y: model.apply({{"params": params}}, x, t, y, train=False), path, {prediction})
    field = guidance.guided_field(lambda x, t, y: flow(t, x, y), {classes}, guidance.get({rule}, weight=weight))
    return simulators.solve_ode(field, x0 * path.prior_std, args=labels, {solver}).x
noise = {noise}
x = jax.jit(draw, compiler_options=cpu_compiler_options())(params, noise, {arguments})
images = np.uint8(np.clip(np.round((x + 1) * 127.5), 0, 255))
"""

SAFETENSORS = """
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file

params = unflatten_dict(load_file("weights.safetensors"), sep=".")
"""

JAX_ALONE = """
import numpy as np
from jax import export
program = export.deserialize(bytearray(open("sampler.stablehlo", "rb").read()))
noise = {noise}
images = program.call(noise, np.int32({labels}), np.float32({weight}))
"""


def fill(template: str, facts: Mapping[str, Any], settings: Settings) -> str:
    """The code for one model."""
    path, rule = facts["config"]["path"], settings.rule
    weight = rule["weight"]
    known = weight in (0.0, 1.0)  # when the program is traced: such a weight needs half of the network's work
    labels = [i % max(facts["num_classes"], 1) for i in range(4)]
    options = solver_options(facts, settings)
    schedule_too = ", schedule=path" if needs_schedule(rule) else ""
    return template.strip().format(
        imports=", ".join(["json", "os", *facts["config"]["imports"]]),
        noise=f"np.random.default_rng(0).standard_normal({(4, *facts['image_shape'])}, np.float32)",
        labels=labels,
        weight=weight,
        fixed_weight=weight if known else 1.0,
        arguments=f"np.int32({labels})" if known else f"np.int32({labels}), np.float32({weight})",
        classes=facts["num_classes"],
        schedule=_arguments(path["schedule"]),
        prediction=_literal(path["prediction"]),
        rule=_arguments({"name": rule["name"], **rule_parameters(rule)}) + schedule_too,
        solver=_keywords({key: value for key, value in options.items() if value is not None and value != ()}),
    )


def _arguments(block: Mapping[str, Any]) -> str:
    """A block of a config as the arguments of the `get` that builds the part."""
    keywords = _keywords({key: value for key, value in block.items() if key != "name"})
    return _literal(block["name"]) + (f", {keywords}" if keywords else "")


def _keywords(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_literal(value)}" for key, value in values.items())


def _literal(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)
