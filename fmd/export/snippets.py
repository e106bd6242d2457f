"""The code in the model card: how to load an exported folder, complete programs to be run inside it.

All but one end with `images`, uint8 [4, H, W, C], from the same noise. The tests run what stands in the card.
"""

from collections.abc import Mapping

import jax.numpy as jnp

from fmd import methods
from fmd.blocks import plain
from fmd.export.portable import shapes
from fmd.math import solvers
from fmd.methods.flow_matching import FlowMatching
from fmd.methods.solving import END_EPSILON, rule_of
from fmd.run_info import RunInfo

SAMPLER = """
import numpy as np
from fmd.sampling.sampler import load

sampler = load("."{trust})
noise = {noise}
images = sampler({y}, noise=noise{and_weight})
"""

ORBAX_AND_FLAX = """
import {imports}
import jax, numpy as np, orbax.checkpoint as ocp
from fmd.math import {rooms}
from fmd.models.registry import build_model
from fmd.devices import cpu_compiler_options

config, path = json.load(open("config.json"))["config"]["model"], schedules.get({schedule})
model = build_model(config["name"], {{**config, "num_classes": {classes}}})
params = ocp.StandardCheckpointer().restore(os.path.abspath("weights"))
def draw(p, x0, labels, weight={fixed_weight}):
    velocity = fields.as_velocity({network}, path, {prediction})
    field = fields.guided_field(velocity, {classes}, guidance.get({rule}, weight=weight, schedule=path))
    return simulators.solve_ode(field, x0 * path.prior_std, args=labels, {solver}).x
noise = {noise}
x = jax.jit(draw, compiler_options=cpu_compiler_options())(params, noise, {y_arrays}{and_traced_weight})
images = pixels.to_uint8(x)
"""

METHOD = """
import os
import jax, numpy as np, orbax.checkpoint as ocp
from fmd import methods
from fmd.devices import cpu_compiler_options
from fmd.math.pixels import to_uint8
from fmd.models.network import ModelNetwork
from fmd.run_info import read_run_info
from fmd.sampling.sampler import model_of

info = read_run_info(".")
model, method, settings = model_of(info), methods.from_config(info.config), info.config.sample
params = ocp.StandardCheckpointer().restore(os.path.abspath("weights"))
def draw(params, x0, y, weight={fixed_weight}):
    network = ModelNetwork(model.apply, params, info.num_classes, info.conditions)
    return to_uint8(method.sample(network, x0, y, settings.replace(weight=weight)).x)
noise = {noise}
y = {y_arrays}
images = jax.jit(draw, compiler_options=cpu_compiler_options())(params, noise, y{and_traced_weight})
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
images = program.call(noise, {told}, np.float32({weight}))
"""


def programs(info: RunInfo) -> dict[str, str]:
    """The code of each way, by the name of its place in the card."""
    weight = float(info.config.sample.weight)
    known = weight in (0.0, 1.0)  # when the program is traced: such a weight needs half of the network's work
    arrays = {name: _array(info, name) for name in shapes(info)}
    noise, told = arrays.pop("noise"), list(arrays.values())
    named = ", ".join(f"{name!r}: {array}" for name, array in arrays.items())
    y = told[0] if info.conditions is None else f"{{{named}}}"
    values: dict[str, object] = {
        "noise": noise,
        "y": _labels(info) if info.conditions is None else y,
        "told": ", ".join(told),
        "trust": ", trust=True" if info.config.imports else "",
        "weight": weight,
        "and_weight": "" if known and weight == 1.0 else f", weight={weight}",
        "fixed_weight": weight if known else 1.0,
        "y_arrays": y,
        "and_traced_weight": "" if known else f", np.float32({weight})",
    }
    orbax = METHOD
    if is_plain(info):
        orbax, values = ORBAX_AND_FLAX, values | _flow(info)
    templates = {"sampler": SAMPLER, "orbax": orbax, "safetensors": SAFETENSORS, "jax_alone": JAX_ALONE}
    return {name: template.strip().format(**values) for name, template in templates.items()}


def is_plain(info: RunInfo) -> bool:
    """True where the sampler is the guided flow of labels, which a few functions of `fmd.math` make."""
    settings, method = info.config.sample, methods.from_config(info.config)
    return (
        isinstance(method, FlowMatching)
        and not method.clip_data
        and info.conditions is None
        and settings.schedule is None
        and rule_of(settings, method.schedule).init is None
    )


def _flow(info: RunInfo) -> dict[str, object]:
    """The fields of `ORBAX_AND_FLAX` beside those of the others."""
    config, settings = info.config, info.config.sample
    method = methods.from_config(config)
    assert isinstance(method, FlowMatching)
    options = {"solver": repr(settings.solver)}
    if settings.solver in solvers.ADAPTIVE:
        tolerances = {"rtol": settings.rtol, "atol": settings.atol}
        options |= {key: repr(value) for key, value in tolerances.items() if value is not None}
        if times := rule_of(settings, method.schedule).jump_times:
            options["jump_ts"] = repr(tuple(map(float, times)))
    elif settings.grid.name == "uniform":
        options["steps"] = repr(settings.steps)
    else:
        params = _keywords(settings.grid.params)
        options["grid"] = f"grids.get({settings.grid.name!r}, {settings.steps}, schedule=path{params})"
    options["end_epsilon"] = repr(END_EPSILON if method.schedule.singular_times else 0.0)
    rooms = ["fields", *(["grids"] if "grid" in options else []), "guidance", "pixels", "schedules", "simulators"]
    rule = {key: value for key, value in settings.guidance.params.items() if key not in ("weight", "weak")}
    return {
        "imports": ", ".join(["json", "os", *config.imports]),
        "rooms": ", ".join(rooms),
        "network": 'lambda x, t, y: model.apply({"params": p}, x, t, y, train=False)',
        "schedule": f"{config.path.schedule.name!r}{_keywords(config.path.schedule.params)}",
        "classes": info.num_classes,
        "prediction": repr(config.path.prediction),
        "rule": f"{settings.guidance.name!r}{_keywords(rule)}",
        "solver": ", ".join(f"{key}={value}" for key, value in options.items()),
    }


def _array(info: RunInfo, name: str) -> str:
    """Four examples of an input of the portable program, as code."""
    shape, dtype = shapes(info)[name]
    if name == "noise":
        return f"np.random.default_rng(0).standard_normal({(4, *shape[1:])}, np.float32)"
    if dtype == jnp.int32 and len(shape) == 1:
        return f"np.int32({_labels(info)})"
    return f"np.zeros({(4, *shape[1:])}, np.{dtype})"


def _labels(info: RunInfo) -> list[int]:
    return [i % max(info.num_classes, 1) for i in range(4)]


def _keywords(params: Mapping[str, object]) -> str:
    return "".join(f", {key}={plain(value)!r}" for key, value in params.items())
