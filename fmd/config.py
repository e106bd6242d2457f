"""What a config may say, and the check that it says nothing else.

The dataclasses below are the list of keys: their names, types, defaults and ranges. A file in `configs/` returns an
`ml_collections.ConfigDict` with the keys it wants to set; `resolve` lays it over the defaults and refuses what does
not fit with one line. The blocks typed `dict` name a part and its parameters, `{"name": "linear", "sigma_min": 0.01}`;
the part itself checks those when it is built.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ml_collections import ConfigDict

from fmd.config_files import apply_on_cpu, merge, plain


def _need(condition: bool, key: str, value: Any, allowed: str) -> None:
    if not condition:
        raise ValueError(f"config.{key} = {value!r}; it must be {allowed}")


@dataclass(frozen=True)
class Data:
    source: str = "mnist"  # a name in fmd.data's registry
    params: dict = field(default_factory=dict)  # passed to the source, e.g. {"path": "my_images"}
    resident: bool | None = None  # keep the training images on the device; None: where they take under 1 GiB
    flip: bool = False  # mirror half of the training images
    shift: int = 0  # move training images by up to so many pixels each way

    def __post_init__(self) -> None:
        _need(self.shift >= 0, "data.shift", self.shift, "0 or more pixels")


@dataclass(frozen=True)
class ProbabilityPath:
    schedule: dict = field(default_factory=partial(dict, name="linear"))
    prediction: str = "velocity"  # what the network's output means: velocity, data or noise
    times: dict = field(default_factory=partial(dict, name="uniform"))
    coupling: dict = field(default_factory=partial(dict, name="independent"))

    def __post_init__(self) -> None:
        allowed = ("velocity", "data", "noise")
        _need(self.prediction in allowed, "path.prediction", self.prediction, f"one of {', '.join(allowed)}")


@dataclass(frozen=True)
class Train:
    num_steps: int = 10_000
    batch_size: int = 128  # over all devices together
    label_dropout: float = 0.1  # share of labels replaced by the null label; guidance needs more than 0
    loss: str = "squared"  # or "pseudo_huber" (arXiv 2310.14189)
    weighting: str = "prediction"  # or "velocity": weigh the error as the velocity error it amounts to
    steps_per_dispatch: int = 1  # training steps per call from Python; more where a step takes under 10 ms
    grad_accumulation: int = 1  # split each batch into so many parts to save memory
    on_nonfinite: str = "stop"  # or "skip": leave the step out and count it

    def __post_init__(self) -> None:
        for key in ("num_steps", "batch_size", "steps_per_dispatch", "grad_accumulation"):
            _need(getattr(self, key) >= 1, f"train.{key}", getattr(self, key), "1 or more")
        _need(0 <= self.label_dropout <= 1, "train.label_dropout", self.label_dropout, "in [0, 1]")
        _need(self.loss in ("squared", "pseudo_huber"), "train.loss", self.loss, "'squared' or 'pseudo_huber'")
        allowed = ("prediction", "velocity")
        _need(self.weighting in allowed, "train.weighting", self.weighting, "'prediction' or 'velocity'")
        _need(self.on_nonfinite in ("stop", "skip"), "train.on_nonfinite", self.on_nonfinite, "'stop' or 'skip'")
        _need(
            self.batch_size % self.grad_accumulation == 0,
            "train.grad_accumulation",
            self.grad_accumulation,
            f"a divisor of train.batch_size = {self.batch_size}",
        )


@dataclass(frozen=True)
class Optimizer:
    name: str = "adam"  # any optimiser of fmd.training.optimizers
    learning_rate: float = 1e-3  # the highest one, after warm-up
    warmup_steps: int = 0
    decay: str = "cosine"  # after warm-up: "cosine" or "linear" to final_fraction, or "constant"
    final_fraction: float = 0.0
    clip_norm: float | None = 1.0  # largest global gradient norm
    weight_decay: float = 0.0  # not applied to biases, norms and embeddings
    b1: float = 0.9
    b2: float = 0.999

    def __post_init__(self) -> None:
        _need(self.learning_rate > 0, "optimizer.learning_rate", self.learning_rate, "above 0")
        _need(self.warmup_steps >= 0, "optimizer.warmup_steps", self.warmup_steps, "0 or more")
        allowed = ("cosine", "linear", "constant")
        _need(self.decay in allowed, "optimizer.decay", self.decay, f"one of {', '.join(allowed)}")
        _need(0 <= self.final_fraction <= 1, "optimizer.final_fraction", self.final_fraction, "in [0, 1]")
        _need(self.clip_norm is None or self.clip_norm > 0, "optimizer.clip_norm", self.clip_norm, "above 0, or None")
        _need(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "0 or more")
        for key in ("b1", "b2"):
            _need(0 <= getattr(self, key) < 1, f"optimizer.{key}", getattr(self, key), "in [0, 1)")


@dataclass(frozen=True)
class Ema:
    decays: tuple[float, ...] = (0.999,)  # the first one samples; each warms up as min(decay, (1+n)/(10+n))
    power_stds: tuple[float, ...] = ()  # relative widths of power-function averages (arXiv 2312.02696)

    def __post_init__(self) -> None:
        _need(bool(self.decays), "ema.decays", self.decays, "at least one decay; (0.0,) keeps no average")
        _need(all(0 <= d < 1 for d in self.decays), "ema.decays", self.decays, "in [0, 1)")
        # 1/sqrt(12) is the width of a uniform average; wider ones would need a negative exponent.
        _need(all(0 < s < 12**-0.5 for s in self.power_stds), "ema.power_stds", self.power_stds, "in (0, 0.288)")


@dataclass(frozen=True)
class Sample:
    guidance: dict = field(default_factory=partial(dict, name="cfg", weight=1.0))
    solver: str = "midpoint"  # half of Heun's evaluations for the same quality, see experiments/reference
    steps: int = 10
    grid: dict = field(default_factory=partial(dict, name="uniform"))  # how they are spread, see fmd.math.times.grid

    def __post_init__(self) -> None:
        _need(self.steps >= 1, "sample.steps", self.steps, "1 or more")


@dataclass(frozen=True)
class Checkpoint:
    every: int = 1000
    keep_last: int = 2
    keep_every: int | None = None  # also keep each step that this divides
    keep_best: int = 0  # also keep so many of the steps with the lowest validation loss

    def __post_init__(self) -> None:
        _need(self.keep_best >= 0, "checkpoint.keep_best", self.keep_best, "0 or more")
        _need(self.every >= 1, "checkpoint.every", self.every, "1 or more")
        _need(self.keep_last >= 1, "checkpoint.keep_last", self.keep_last, "1 or more")
        _need(self.keep_every is None or self.keep_every >= 1, "checkpoint.keep_every", self.keep_every, "1 or more")


@dataclass(frozen=True)
class Log:
    every: int = 50  # steps per line of metrics.csv; a line is the mean over them
    eval_every: int = 1000  # validation loss; 0: only at the end
    eval_examples: int = 1000
    quality_every: int = 0  # FID and what else --mode=eval measures; 0: not at all
    quality_samples: int = 1000  # drawn for it with the settings of `sample`
    samples_every: int = 1000  # grid of samples from fixed noise; 0: only at the end
    samples_per_class: int = 8
    callbacks: tuple[str, ...] = ()  # "package.module:Class": your own, or one of fmd.training.writers

    def __post_init__(self) -> None:
        for key in ("every", "eval_examples", "quality_samples", "samples_per_class"):
            _need(getattr(self, key) >= 1, f"log.{key}", getattr(self, key), "1 or more")
        for key in ("eval_every", "quality_every", "samples_every"):
            _need(getattr(self, key) >= 0, f"log.{key}", getattr(self, key), "0 or more")


@dataclass(frozen=True)
class Parallel:
    mode: str = "auto"  # "jit" (one device), "pmap", "mesh"; auto: jit on one device, else mesh
    fsdp: int = 1  # mesh only: split parameters, EMA and optimiser state over so many devices


@dataclass(frozen=True)
class Config:
    seed: int = 0
    imports: tuple[str, ...] = ()  # modules to import first, where your own models and data sources register
    on_cpu: dict | None = None  # overrides for a machine without an accelerator
    data: Data = field(default_factory=Data)
    model: dict = field(default_factory=partial(dict, name="unet"))
    path: ProbabilityPath = field(default_factory=ProbabilityPath)
    train: Train = field(default_factory=Train)
    optimizer: Optimizer = field(default_factory=Optimizer)
    ema: Ema = field(default_factory=Ema)
    sample: Sample = field(default_factory=Sample)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    log: Log = field(default_factory=Log)
    parallel: Parallel = field(default_factory=Parallel)

    def __post_init__(self) -> None:
        _need(0 <= self.seed < 2**31, "seed", self.seed, "in [0, 2^31)")
        stride = self.train.steps_per_dispatch
        intervals = {
            "train.num_steps": self.train.num_steps,
            "checkpoint.every": self.checkpoint.every,
            "log.every": self.log.every,
            "log.eval_every": self.log.eval_every,
            "log.quality_every": self.log.quality_every,
            "log.samples_every": self.log.samples_every,
        }
        for key, value in intervals.items():
            _need(value % stride == 0, key, value, f"a multiple of config.train.steps_per_dispatch = {stride}")


def resolve(config: Mapping[str, Any] | ConfigDict) -> Config:
    """Lays a config over the defaults; its `on_cpu` block is checked, too, but not applied.

    Raises:
        ValueError: one line for an unknown key (with the nearest valid one), a wrong type, or a value out of range.
    """
    values = merge(plain(dataclasses.asdict(Config())), plain(config))
    _build(Config, apply_on_cpu(values), "")
    return _build(Config, values, "")


def _build(kind: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"config.{where.rstrip('.')} = {values!r}; it must be a block of keys")
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1, cutoff=0.0)[0]
            raise ValueError(f"config.{where}{key} is not a key; the nearest valid one is config.{where}{near}")
    return kind(**{key: convert(value, hints[key], f"{where}{key}") for key, value in values.items()})


def convert(value: Any, hint: Any, key: str) -> Any:
    """Checks `value` against a type annotation; an int is welcome where a float is meant."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        if dataclasses.is_dataclass(option):
            return _build(typing.cast(type, option), value, f"{key}.")
        if typing.get_origin(option) is tuple and isinstance(value, list):
            item = typing.get_args(option)[0]
            return tuple(convert(v, item, key) for v in value)
        if option is float and type(value) in (int, float) and math.isfinite(value):
            return float(value)
        if isinstance(option, type) and type(value) is option and option is not float:
            if isinstance(value, dict) and key not in ("on_cpu", "data.params"):
                _need(isinstance(value.get("name"), str), key, value, "a block with a name, {'name': ...}")
            return value
    raise ValueError(f"config.{key} = {value!r}; it must be {_describe(options)}")


def _describe(options: Sequence[Any]) -> str:
    names = {int: "a whole number", float: "a finite number", bool: "True or False", str: "a name", dict: "a block"}
    return " or ".join(names.get(o, "None" if o is type(None) else "a tuple") for o in options)
