"""The condition of an example: parts of the data set, parts made of the image itself, some of them left out.

    config.data.derive = {"low": {"name": "block_average", "factor": 4, "noise_std": 0.1}}     y["low"] = A x1 + 0.1 n
    config.data.told = ("low",)                                           the network is told this part alone
    config.train.part_dropout = {"low": 0.1}                              a tenth of the examples is not told it

A is a linear operator of `fmd.math.operators`, applied on the device to the image as it is trained on (mirrored and
moved), so that any data set has such pairs without a file. The noise n is a function of (seed, step, index) in
training; of test images, of (seed, row), so that every figure is of the same measurements.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from fmd.blocks import Plain, plain
from fmd.config import Config
from fmd.data import Split
from fmd.math import operators
from fmd.math.operators import Operator
from fmd.math.pixels import to_unit
from fmd.models import conditions
from fmd.randomness import ExampleRng, request_rng, stream
from fmd.run_info import RunInfo
from fmd.types import Condition, Images, Index, Rng

Shape = tuple[int, int, int]
NOISE = "noise_std"  # the key of `config.data.derive.NAME` that is not one of the operator


@dataclass(frozen=True)
class Derived:
    """A part of a condition made of the image: the operator's measurement plus noise."""

    operator: Operator
    noise_std: float


@dataclass(frozen=True)
class Telling:
    """From an example of a data set to the condition that the network is told.

    spec      of the condition that the network is told; None for labels alone
    derived   the parts made of the image, by name
    dropout   how often each part alone is not told in training, by name
    """

    spec: Plain | None
    num_classes: int
    derived: Mapping[str, Derived]
    dropout: Mapping[str, float]

    def __call__(self, rng: Rng, x1: Images, y: Condition) -> Condition:
        """The condition of images x1 [B, H, W, C] that the data set gives y."""
        if self.spec is None:
            return y
        parts = dict(y) if isinstance(y, Mapping) else {"label": y}
        for name, part in self.derived.items():
            if name in self.spec:
                clean = part.operator(x1)
                noise = rng.normal(f"derive_{name}", clean.shape[1:]) if part.noise_std else 0.0
                parts[name] = clean + part.noise_std * noise
        return {name: parts[name] for name in self.spec}

    def in_training(self, rng: Rng, x1: Images, y: Condition) -> Condition:
        """The same, each part left out in its share of the examples."""
        y = self(rng, x1, y)
        for name, share in self.dropout.items():
            untold = rng.uniform(f"drop_{name}") < share
            y = conditions.drop(y, self.spec, self.num_classes, untold, parts=(name,))
        return y

    @cached_property
    def beside(self) -> list[str]:
        """The names of the told parts that lie on the grid of the image, and are not made of it."""
        return [name for name in conditions.on_grid(self.spec) if name not in self.derived]


def telling(config: Config, image_shape: Shape, num_classes: int, given: Plain | None) -> Telling:
    """From examples like these to the condition that a config tells its network.

    `given` is the spec of the data set's own condition, None for labels alone. Raises ValueError for an operator that
    does not take the images, and names that are no parts.
    """
    spec = {} if given is None else dict(plain(given))
    if given is None and num_classes:
        spec["label"] = {"kind": "label", "num_classes": num_classes}
    derived = {}
    for name, block in config.data.derive.items():
        key = f"config.data.derive.{name}"
        if name in spec:
            raise ValueError(f"{key}: the data set has a condition {name!r} of its own; choose another name")
        derived[name] = _derived(key, block, image_shape)
        shape = derived[name].operator.measured(image_shape)
        spec[name] = {"kind": "image", **dict(zip(("height", "width", "channels"), shape, strict=True))}
    asked = config.data.told
    if asked is not None and (not asked or not set(asked) <= spec.keys()):
        raise ValueError(f"config.data.told = {asked}; name one or more of the parts {', '.join(spec) or '(none)'}")
    chosen = spec if asked is None else {name: part for name, part in spec.items() if name in asked}
    told = given if not derived and asked is None else chosen
    dropout = config.train.part_dropout
    parts = chosen if told is not None else {"label": None}
    if unknown := sorted(dropout.keys() - parts.keys()):
        raise ValueError(f"config.train.part_dropout names {', '.join(unknown)}; the parts are {', '.join(parts)}")
    return Telling(told, num_classes, derived, dropout)


def _derived(key: str, block: object, image_shape: Shape) -> Derived:
    if not isinstance(block, Mapping) or not isinstance(block.get("name"), str):
        raise ValueError(f"{key} = {block!r}; it must be a block of an operator, e.g. {{'name': 'blur', 'std': 2.0}}")
    noise_std = block.get(NOISE, 0.0)
    if isinstance(noise_std, bool) or not isinstance(noise_std, int | float) or not 0 <= noise_std < np.inf:
        raise ValueError(f"{key}.{NOISE} = {noise_std!r}; it must be a number from 0")
    operator = operators.get(block["name"], **{k: v for k, v in block.items() if k not in ("name", NOISE)})
    return Derived(operator.on(image_shape), float(noise_std))


def telling_of(info: RunInfo, y: Condition) -> Telling:
    """The same for the network of a run, from examples whose condition is like `y`."""
    own = {name: part for name, part in (info.conditions or {}).items() if name not in info.config.data.derive}
    return telling(info.config, info.image_shape, info.num_classes, own if isinstance(y, Mapping) else None)


def measuring_rng(info: RunInfo, rows: Index) -> ExampleRng:
    """The random numbers of derived conditions outside of training, a function of (seed, row)."""
    return request_rng(stream(info.config.seed, "eval"), rows, len(rows))


def rows_like(split: Split, labels: np.ndarray) -> np.ndarray:
    """A row of the split for each of these labels int [N].

    They are the examples of that class in turn, or any where the class has none.
    """
    rows = np.zeros(len(labels), int)
    for label in np.unique(labels):
        members = np.flatnonzero(split.labels == label)
        asked = labels == label
        rows[asked] = np.resize(members if len(members) else np.arange(len(split)), int(asked.sum()))
    return rows


def tell_rows(info: RunInfo, split: Split, rows: np.ndarray, labels: np.ndarray | None = None) -> Condition:
    """The condition of rows of a split, as the network of `info` is told it: host arrays.

    `labels` int [N] are told in the place of those of the rows. A network of labels alone is told nothing else.
    """
    labels = split.labels[rows] if labels is None else labels.astype(np.int32)
    if info.conditions is None:
        return labels
    chosen = split.take(rows)
    parts = {**chosen.y, "label": labels} if isinstance(chosen.y, dict) and "label" in chosen.y else chosen.y
    return derive(info, chosen.images, parts if isinstance(parts, dict) else labels, rows)


def derive(info: RunInfo, images: np.ndarray, y: Condition, rows: np.ndarray) -> Condition:
    """The condition of images uint8 [N, H, W, C] whose own is `y`; `rows` [N] number their noise. Host arrays."""
    rng = measuring_rng(info, jnp.asarray(rows, jnp.int32))
    told: Condition = jax.device_get(telling_of(info, y)(rng, to_unit(jnp.asarray(images)), y))
    return told
