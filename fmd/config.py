"""The config: all keys with their types, ranges and defaults; read, merged, overridden and checked.

A file in `configs/` returns a dictionary (or an `ml_collections.ConfigDict`) with the keys that it wants to set.
`resolve` lays it over the defaults below and checks it. A key typed `Block` names a part and its parameters,
`{"name": "linear", "sigma_min": 0.01}`; the part itself checks those when it is built.
"""

import ast
import dataclasses
import importlib.util
import math
import os
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from fmd.blocks import Block, Checked, Plain, as_plain, build, checked, flatten, hints_of, plain
from fmd.registry import Between

AtLeast0 = Annotated[int, Between(0)]
AtLeast1 = Annotated[int, Between(1)]
Finite = Annotated[float, Between(-math.inf, math.inf, open_low=True, open_high=True)]
Positive = Annotated[float, Between(0, math.inf, open_low=True, open_high=True)]
Share = Annotated[float, Between(0, 1)]
Decay = Annotated[float, Between(0, 1, open_high=True)]
# 1/sqrt(12) is the width of a uniform average; wider ones would need a negative exponent.
Width = Annotated[float, Between(0, 12**-0.5, open_low=True, open_high=True)]
Tolerance = Annotated[float, Between(0, math.inf, open_high=True)]


@dataclass(frozen=True)
class Data(Checked):
    WHERE = "data."
    source: str = "mnist"  # a name in fmd.data's registry
    params: dict = field(default_factory=dict)  # type: ignore[type-arg]  # of the source, e.g. {"path": "my_images"}
    resident: bool | None = None  # keep the training images on the device; None: where they take under 1 GiB
    workers: AtLeast0 = 0  # processes that read a streamed set; 0: threads of this one
    flip: bool = False  # mirror half of the training images
    shift: AtLeast0 = 0  # move training images by up to so many pixels each way
    derive: dict = field(default_factory=dict)  # type: ignore[type-arg]  # conditions made of the image, see fmd.telling
    told: tuple[str, ...] | None = None  # the parts of the condition that the network is told; None: all


@dataclass(frozen=True)
class ProbabilityPath(Checked):
    WHERE = "path."
    schedule: Block = Block("linear")
    prediction: Literal["velocity", "data", "noise"] = "velocity"  # what the network's output means
    times: Block = Block("uniform")
    coupling: Block = Block("independent")


@dataclass(frozen=True)
class Train(Checked):
    WHERE = "train."
    num_steps: AtLeast1 = 10_000
    batch_size: AtLeast1 = 128  # over all devices together
    label_dropout: Share = 0.1  # share of conditions that the network is not told; guidance needs more than 0
    part_dropout: dict = field(default_factory=dict)  # type: ignore[type-arg]  # the same of single parts, by name
    loss: Literal["squared", "pseudo_huber"] = "squared"  # pseudo_huber: arXiv 2310.14189
    weighting: Literal["prediction", "velocity"] = "prediction"  # velocity: weigh as the velocity error it amounts to
    steps_per_dispatch: AtLeast1 = 1  # training steps per call from Python; more where a step takes under 10 ms
    grad_accumulation: AtLeast1 = 1  # split each batch into so many parts to save memory
    on_nonfinite: Literal["stop", "skip"] = "stop"  # skip: leave the step out and count it
    freeze: tuple[str, ...] = ()  # patterns of parameters that do not change: ("time/*", "*/bias")

    def __post_init__(self) -> None:
        super().__post_init__()
        divides = self.batch_size % self.grad_accumulation == 0
        self.need(divides, "grad_accumulation", f"a divisor of train.batch_size = {self.batch_size}")
        dropout = {part: checked(s, Share, f"train.part_dropout.{part}") for part, s in self.part_dropout.items()}
        object.__setattr__(self, "part_dropout", dropout)


@dataclass(frozen=True)
class Optimizer(Checked):
    WHERE = "optimizer."
    name: str = "adam"  # any optimiser of fmd.training.optimizers
    learning_rate: Positive = 1e-3  # the highest one, after warm-up
    warmup_steps: AtLeast0 = 0
    decay: Literal["cosine", "linear", "constant"] = "cosine"  # after warm-up, to final_fraction
    final_fraction: Share = 0.0
    clip_norm: Positive | None = 1.0  # largest global gradient norm
    weight_decay: Tolerance = 0.0  # not applied to biases, norms and embeddings
    b1: Decay = 0.9
    b2: Decay = 0.999


@dataclass(frozen=True)
class Lora(Checked):
    """Low-rank factors in the place of the network that a run begins with: see fmd.training.tuning."""

    WHERE = "lora."
    rank: AtLeast1 = 8
    alpha: Positive = 8.0  # the factors' product counts alpha / rank times
    targets: tuple[str, ...] = ("*",)  # patterns of the kernels that have factors
    train: tuple[str, ...] = ()  # patterns of parameters that are trained as they are, e.g. ("*/table/embedding",)


@dataclass(frozen=True)
class Ema(Checked):
    WHERE = "ema."
    decays: tuple[Decay, ...] = (0.999,)  # the first one samples; each warms up as min(decay, (1+n)/(10+n))
    power_stds: tuple[Width, ...] = ()  # relative widths of power-function averages (arXiv 2312.02696)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need(bool(self.decays), "decays", "at least one decay; (0.0,) keeps no average")


@dataclass(frozen=True)
class Settings(Checked):
    """How to sample: `config.sample`, and what `Sampler`, evaluation, sweeps and export take. Hashable."""

    WHERE = "sample."
    guidance: Block = Block("cfg", weight=1.0)  # a rule of fmd.math.guidance; weak=PATH, weights={PART: w}
    solver: str = "midpoint"  # half of Heun's evaluations for the same quality, see experiments/reference
    steps: AtLeast1 = 10
    grid: Block = Block("uniform")  # how the steps are spread, see fmd.math.grids
    rtol: Tolerance | None = None  # of an adaptive solver; None: the solver's own default
    atol: Tolerance | None = None
    sde: Block | None = None  # its noise: {"name": "sigma", "scale": 1.0}, see fmd.math.fields; None: the flow
    schedule: Block | None = None  # sample along another schedule than the one trained along
    times: tuple[Finite, ...] | None = None  # show the way from noise to data at these times; asked for per call

    @property
    def weight(self) -> Any:
        """The guidance weight; 1 where the rule names none."""
        return self.guidance.get("weight", 1.0)

    def replace(self, **changes: Any) -> "Settings":
        """The settings with some of them changed; the short names of `SHORT_NAMES` are welcome, and None is no change.

        Raises ValueError for an unknown name or a value out of range.
        """
        values: Plain = {"sample": as_plain(self)}
        order = sorted((key, value) for key, value in changes.items() if value is not None)
        for key, value in sorted(order, key=lambda pair: pair[0] not in ("rule", "guidance", "grid")):
            if key not in SHORT_NAMES and key not in hints_of(Settings):
                known = ", ".join([*hints_of(Settings), *SHORT_NAMES])
                raise ValueError(f"{key}={value!r} is no setting of a sampler; the settings are {known}")
            for dotted, given in long_names(key, value):
                values = _laid(values, dotted.split("."), given)
        return build(Settings, values["sample"], self.WHERE)


SHORT_NAMES = {  # short names of settings, in Python and as flags, with the keys that they set
    "weight": ("sample.guidance.weight",),
    "rule": ("sample.guidance",),
    "shift": ("sample.grid.factor",),
    "tolerance": ("sample.rtol", "sample.atol"),
}


def long_names(name: str, value: Any) -> list[tuple[str, Any]]:
    """(dotted key, value) of what a setting's name, or its short name, sets."""
    keys = SHORT_NAMES.get(name, (f"sample.{name}",))
    chosen = [("sample.grid.name", "shifted")] if name == "shift" else []
    return chosen + [(key, value) for key in keys]


@dataclass(frozen=True)
class Checkpoint(Checked):
    WHERE = "checkpoint."
    every: AtLeast1 = 1000
    keep_last: AtLeast1 = 2
    keep_every: AtLeast1 | None = None  # also keep each step that this divides
    keep_best: AtLeast0 = 0  # also keep so many of the steps with the lowest validation loss


@dataclass(frozen=True)
class Log(Checked):
    WHERE = "log."
    every: AtLeast1 = 50  # steps per line of metrics.csv; a line is the mean over them
    eval_every: AtLeast0 = 1000  # validation loss; 0: only at the end
    eval_examples: AtLeast1 = 1000
    quality_every: AtLeast0 = 0  # FID and what else --mode=eval measures; 0: not at all
    quality_samples: AtLeast1 = 1000  # drawn for it with the settings of `sample`
    samples_every: AtLeast0 = 1000  # grid of samples from fixed noise; 0: only at the end
    samples_per_class: AtLeast1 = 8
    callbacks: tuple[str, ...] = ()  # "package.module:Class": your own, or one of fmd.training.callbacks.writers


@dataclass(frozen=True)
class Parallel(Checked):
    WHERE = "parallel."
    mode: str = "auto"  # "jit" (one device), "pmap", "mesh"; auto: jit on one device, else mesh
    fsdp: int = 1  # mesh only: split parameters, EMA and optimiser state over so many devices


@dataclass(frozen=True)
class Config(Checked):
    seed: Annotated[int, Between(0, 2**31, open_high=True)] = 0
    imports: tuple[str, ...] = ()  # modules to import first, where your own parts register
    on_cpu: dict | None = None  # type: ignore[type-arg]  # overrides for a machine without an accelerator
    first: dict | None = None  # type: ignore[type-arg]  # overrides for a run before this one, in WORKDIR/first
    init_from: str | None = None  # a run or an export to begin with the weights of; None: those of `first`, if any
    init_share: Share = 0.5  # of the parameters that must fit, or the run is refused
    teacher: str | None = None  # what a method learns from: a run, an export, "first/first"; None: the one begun with
    lora: Lora | None = None  # {}, or a block of its keys: train low-rank factors, and what `lora.train` names
    data: Data = field(default_factory=Data)
    model: Block = Block("unet")
    method: Block = Block("flow_matching")  # what is drawn, regressed and sampled: see fmd.methods
    path: ProbabilityPath = field(default_factory=ProbabilityPath)
    train: Train = field(default_factory=Train)
    optimizer: Optimizer = field(default_factory=Optimizer)
    ema: Ema = field(default_factory=Ema)
    sample: Settings = field(default_factory=Settings)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    log: Log = field(default_factory=Log)
    parallel: Parallel = field(default_factory=Parallel)

    def __post_init__(self) -> None:
        super().__post_init__()
        stride = self.train.steps_per_dispatch
        intervals = ("train.num_steps", "checkpoint.every", "log.every", "log.eval_every")
        for key in (*intervals, "log.quality_every", "log.samples_every"):
            self.need(self.at(key) % stride == 0, key, f"a multiple of config.train.steps_per_dispatch = {stride}")
        self.need(self.first is None or self.init_from is None, "init_from", "None beside config.first: choose one")
        self.need(self.sample.times is None, "sample.times", "None in a config: times are asked for in each call")


def resolve(config: object) -> Config:
    """The config, a mapping or a ConfigDict, laid over the defaults; its `on_cpu` block is checked, but not applied.

    Raises ValueError: one line for an unknown key (with the nearest valid one), a wrong type, or a value out of range.
    """
    values = merge(as_plain(Config()), plain(config))
    build(Config, apply_on_cpu(values), "")
    return build(Config, values, "")


def load_file(path: str | Path) -> Plain:
    """The dictionary that `get_config()` of a config file returns.

    Raises ValueError when the file is missing, fails, or has no such function.
    """
    path = Path(os.path.expanduser(path))  # which leaves the home of an unknown user as it is
    if not path.is_file():
        near = [str(p) for p in sorted(path.parent.glob("*.py"))] if path.parent.is_dir() else []
        there = f"there are: {', '.join(near)}" if near else "those of fmd lie in a clone of its repository, configs/"
        raise ValueError(f"no config file {path}; {there}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file; a config is a .py file with a get_config() function")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = plain(module.get_config())
    except Exception as error:  # whatever a user's file raises
        raise ValueError(f"{path} cannot be used as a config: {type(error).__name__}: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"get_config() of {path} returned {config!r}; it must return a dictionary or a ConfigDict")
    return config


def apply_on_cpu(config: Plain) -> Plain:
    """The config with its `on_cpu` block laid over it, and no block left that a later change would meet again."""
    block = config.get("on_cpu") or {}
    if not isinstance(block, Mapping):
        raise ValueError(f"config.on_cpu = {block!r}; it must be a block of overrides, or None")
    return {**merge(config, block), "on_cpu": None}


def override(config: Plain, assignments: Sequence[tuple[str, str]]) -> Plain:
    """The config with ("a.b", "value") pairs of a command line applied; a value that is no literal is a string.

    The names of parts come first, wherever they stand on the line.
    """
    for key, text in sorted(assignments, key=lambda pair: not _chooses(pair[0])):
        config = _laid(config, key.split("."), literal(text))
    return config


def merge(base: Plain, over: Mapping[str, Any], where: str = "") -> Plain:
    """`over` laid on `base`, block by block.

    A part that changes its name loses the parameters of the old one, but for those that all parts of its kind share.
    """
    merged = dict(base)
    if where in BLOCKS and over.get("name", _name(base, where)) != _name(base, where):
        merged = {key: base[key] for key in SHARED.get(where, ()) if key in base and key != over["name"]}
    elif where == "data" and over.get("source", base.get("source")) != base.get("source", Data.source):
        merged["params"] = {}
    for key, value in over.items():
        old = merged.get(key)
        inner = f"{where}.{key}" if where and where != "on_cpu" else key
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[key] = merge(dict(old or {}), value, inner) if both else value
    return merged


def _blocks(kind: type, where: str = "") -> Iterator[str]:
    """The dotted keys that name a part."""
    for key, hint in hints_of(kind).items():
        options = typing.get_args(hint) or (hint,)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from _blocks(hint, f"{where}{key}.")
        elif Block in options:
            yield f"{where}{key}"


BLOCKS = frozenset(_blocks(Config))
SHARED = {"sample.guidance": ("weight", "weak", "weights"), "path.times": ("shift", "clip", "stratified")}
DEFAULTS = dict(flatten(as_plain(Config())))


def _name(block: Mapping[str, Any], where: str) -> Any:
    return block.get("name", DEFAULTS.get(f"{where}.name"))


def _chooses(key: str) -> bool:
    key = key.removeprefix("on_cpu.")
    return key == "data.source" or (key.removesuffix(".name") in BLOCKS and key.endswith(".name"))


def _laid(config: Plain, path: Sequence[str], value: Any) -> Plain:
    """The config with one key changed; a name of a part, or a block with one, is laid on what is there."""
    key = ".".join(path)
    if _chooses(key) or (key in BLOCKS and isinstance(value, Mapping)):
        for name in reversed(path):
            value = {name: value}
        return merge(config, plain(value))
    return _assigned(config, path, value)


def _assigned(block: Mapping[str, Any], path: Sequence[str], value: Any) -> Plain:
    head, *rest = path
    old = block.get(head)
    if rest:
        value = _assigned(old if isinstance(old, Mapping) else {}, rest, value)
    return {**block, head: value}


def literal(text: str) -> Any:
    """The value of a word of a command line: a literal of Python, `true` or `false`, else the word itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
