"""Trained models that a run begins with or learns from: `config.init_from`, `config.first` and `config.teacher`.

A run with a block `first` is two runs by one command: its config with that block laid over it trains in WORKDIR/first,
then the run itself begins with those weights. A frozen teacher is a model whose velocity a method asks for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from absl import logging
from jaxtyping import Array, Float

from fmd import methods
from fmd.blocks import as_plain, differences
from fmd.checkpoints.fitting import Rows, fit
from fmd.checkpoints.locate import locate
from fmd.checkpoints.weights import load_weights
from fmd.config import Config, merge, resolve
from fmd.files import digest, some
from fmd.methods.method import Flow
from fmd.models import conditions
from fmd.models.network import ModelNetwork
from fmd.run_info import RunInfo
from fmd.sampling.checks import refuse_imports, refuse_other
from fmd.sampling.sampler import model_of
from fmd.training.tuning import Tuning
from fmd.types import Condition, Images, Mask, Network, Params, Times

FIRST = "first"  # the folder of the first run inside a workdir
SHOWN = 6  # names in a line of the log


def first_config(config: Config) -> Config:
    """The config of the run that comes first."""
    assert config.first is not None
    whole = merge(as_plain(config), {"first": None, "teacher": None, "lora": None, "train": {"freeze": ()}})
    return resolve(merge(whole, config.first))  # it may have one before it, too


def origin_of(config: Config, workdir: Path) -> Path | None:
    """The folder of the weights that a run begins with, if it does not begin anew."""
    if config.init_from is not None:
        return locate(config.init_from)
    return None if config.first is None else workdir / FIRST


def begin_with(path: Path, info: RunInfo, params: Params, tuning: Tuning) -> Params:
    """Initial `params` of a run with what fits of the weights in the folder `path`; the log says what does not.

    Raises:
        ValueError: when less than `config.init_share` of the parameters fits, something that does not fit is not
            trained, or the folder holds no weights.
    """
    found, theirs = load_weights(path)
    config = info.config
    there, here = (conditions.class_tables(each.conditions, each.num_classes) for each in (theirs, info))
    tables = [Rows(name, there[name][0], *here[name]) for name in here if name in there]
    fitted = fit(params, found, tables)
    lists = {
        "new": fitted.new,
        "of another shape, so new": fitted.reshaped,
        "of other classes, so with the rows of those that both have": fitted.resized,
        "left out": fitted.dropped,
    }
    said = "".join(f"; {what}: {some(names, SHOWN)}" for what, names in lists.items() if names)
    if fitted.share < config.init_share:
        raise ValueError(
            f"config.init_from: of {path} only {fitted.share:.0%} of the parameters fit this model{said}; build the "
            f"same network, or lower config.init_share = {config.init_share:g}"
        )
    if stuck := [name for name in fitted.drawn if name in tuning.fixed]:
        raise ValueError(
            f"config.init_from: {path} does not have all of {some(stuck, SHOWN)}, whose random numbers would stay; "
            + ("name it in config.lora.train" if config.lora else "leave it out of config.train.freeze")
        )
    share = f"{fitted.share:.1%}"
    logging.info("beginning with %s of the parameters from %s, step %s%s", share, path, theirs.step, said)
    for key, before, now in differences(as_plain(theirs.config)["model"], as_plain(config)["model"]):
        logging.warning("its network had %s = %r, this one has %r", key, before, now)
    return fitted.params


@dataclass(frozen=True)
class VelocityNetwork:
    """A network as the velocity that its method makes of it."""

    method: Flow
    inner: Network

    def __call__(
        self, x: Images, t: Times, y: Condition, r: Times | None = None, w: Float[Array, " B"] | None = None
    ) -> Images:
        velocity: Images = self.method.field(self.inner)(t, x, y)
        return velocity

    def drop(self, y: Condition, mask: Mask | None = None, parts: Sequence[str] | None = None) -> Condition:
        return self.inner.drop(y, mask, parts)


@dataclass(frozen=True)
class Teacher:
    """A trained model that does not change."""

    method: Flow
    info: RunInfo
    params: Params

    def network(self, params: Params) -> Network:
        """Its velocity with these parameters; its own are `params`, which the training step takes as an argument."""
        return VelocityNetwork(
            self.method, ModelNetwork(model_of(self.info).apply, params, self.info.num_classes, self.info.conditions)
        )

    def digest(self) -> str:
        """Of its weights: another teacher in the same place would be another run."""
        return digest(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(self.params))


def teacher_of(config: Config, workdir: Path, info: RunInfo) -> Teacher | None:
    """The frozen teacher of a run, if its method asks for one.

    Raises:
        ValueError: where none is named, or it is of other images, classes, conditions or another path.
    """
    asks = getattr(methods.from_config(config), "frozen_teacher", False)
    path = origin_of(config, workdir) if config.teacher is None else locate(config.teacher)
    if config.teacher is not None and config.teacher.split("/")[0] == FIRST:
        path = workdir / config.teacher
    if not asks:
        if config.teacher is not None:
            raise ValueError(
                f"config.teacher = {config.teacher!r} has no effect with method {config.method.name!r} as it is set; "
                f"leave it out"
            )
        return None
    if path is None:
        raise ValueError(
            f"method {config.method.name!r} learns from a frozen teacher: name a run, an export or a shipped model "
            f"with config.teacher, or one to begin with, too, with config.init_from"
        )
    params, theirs = load_weights(path)
    refuse_imports(path, theirs)
    refuse_other(f"config.teacher={path}", theirs, info)
    if theirs.config.path.schedule != config.path.schedule:
        raise ValueError(
            f"config.teacher: {path} was trained along the schedule {dict(theirs.config.path.schedule)}, this run "
            f"along {dict(config.path.schedule)}; give a teacher of the same path"
        )
    method = methods.from_config(theirs.config)
    if not isinstance(method, Flow):
        raise ValueError(
            f"config.teacher: method {theirs.config.method.name!r} of {path} has no velocity field; give another model"
        )
    return Teacher(method, theirs, params)
