"""Methods: one file each for what is drawn, what is regressed and how one samples. Networks come in as arguments.

flow_matching   the velocity of a path from noise to data; samples by solving its equation      2210.02747
mean_flow       the average velocity between two times; samples by one or a few jumps           2505.13447
shortcut        the same, a long step taught by two short ones of the averaged network          2410.12557
reflow          the velocity of pairs that a teacher's flow makes: straighter than the teacher  2209.03003
distribution_matching   one jump, moved toward a teacher's images by a critic of its own        2311.18828
bridge          the velocity of a path from an image of the condition, in the place of noise    2303.08797
regression      the image from its condition in one evaluation: a mean, to compare with

method = fmd.methods.get("flow_matching", prediction="data", label_dropout=0.2)
drawn = method.draw(rng, x1, y); loss = method.loss(network, drawn).value
images = method.sample(network, noise, y, Settings(steps=10)).x
"""

from collections.abc import Callable
from typing import Any, TypeVar

from fmd.config import Config
from fmd.methods.method import Drawn, Loss, Method
from fmd.registry import Registry

__all__ = ["METHODS", "Drawn", "Loss", "Method", "from_config", "get", "inputs_of", "register"]

M = TypeVar("M", bound=Callable[..., Any])

METHODS: Registry[Method] = Registry(
    "method",
    built_in={
        name: f"fmd.methods.{name}"
        for name in (
            "flow_matching",
            "mean_flow",
            "shortcut",
            "reflow",
            "distribution_matching",
            "bridge",
            "regression",
        )
    },
)

SHARED = {  # fields that a method may have, with the keys of a config that they come from
    "schedule": "path.schedule",
    "prediction": "path.prediction",
    "times": "path.times",
    "coupling": "path.coupling",
    "label_dropout": "train.label_dropout",
    "error": "train.loss",
    "weighting": "train.weighting",
}


def register(name: str) -> Callable[[M], M]:
    """A decorator that adds a method of your own; ValueError where the name is taken."""
    return METHODS.register(name)


def get(name: str, **params: Any) -> Method:
    """The method called `name`. ValueError for an unknown name or parameter, or a value out of range."""
    return METHODS.build(name, params)


def inputs_of(config: Config) -> dict[str, bool]:
    """The inputs of the networks of a config's method beside x, t and y, as fields of a model."""
    method = from_config(config)
    asked = {"second_time": method.second_time, "guidance_input": getattr(method, "weights", None) is not None}
    return {name: True for name, wanted in asked.items() if wanted}


def from_config(config: Config) -> Method:
    """The method of a config, with what it shares with others from the blocks `path` and `train`.

    Raises ValueError for a method that does not fit, or a key of these blocks that it would not look at.
    """
    name, known = config.method.name, METHODS.parameters(config.method.name)
    offered = {field: config.at(key) for field, key in SHARED.items()}
    default = Config()
    for field, key in SHARED.items():
        if field not in known and config.at(key) != default.at(key):
            raise ValueError(
                f"config.{key} = {config.at(key)!r} has no effect with method {name!r}, whose parameters are "
                f"{', '.join(known)}; leave it out"
            )
    return METHODS.build(name, config.method.params, offered=offered)
