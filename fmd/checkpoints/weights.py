"""Weights to sample from: out of a run, one step of it, or an exported folder; and into such a folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from fmd.checkpoints import averages
from fmd.checkpoints.checksums import CHECKSUMS, damage, digests, first_line, verify
from fmd.checkpoints.facts import read_facts, write_facts
from fmd.utils.files import write_json


def load_weights(path: str | Path, which: str | None = None) -> tuple[Any, dict[str, Any]]:
    """The averaged weights in a workdir (its newest good step), in one step of it, or in an exported folder.

    Args:
        path: the folder.
        which: the average to take where a run keeps several, e.g. "decay1"; default: its first. "std=0.1" makes the
            power-function average of that relative width from those that the kept checkpoints hold.

    Returns:
        (parameters as NumPy arrays, facts); the facts also say which `step` the weights are from.

    Raises:
        ValueError: when there is no such folder, it is not fmd's, or nothing in it can be read.
    """
    path = Path(path).absolute()
    if not path.is_dir():
        raise ValueError(f"no checkpoint at {path}; give a workdir, one step inside it, or an exported folder")
    is_step = path.parent.name == "checkpoints" and path.name.isdigit()
    facts = read_facts(path.parent.parent if is_step else path)
    is_export = (path / "weights").is_dir()
    width = which.removeprefix("std=") if which is not None and which.startswith("std=") and not is_export else None
    if width is not None:
        _check_width(path, facts, width)
    elif which is not None and which not in facts["averages"]:
        raise ValueError(f"no average {which!r} in {path}; there are {', '.join(facts['averages'])}")
    if is_step:
        return _load_step(path, facts, which)
    if is_export:
        verify(path)
        return read_arrays(path / "weights"), facts
    numbered = [p for p in (path / "checkpoints").glob("*") if p.name.isdigit()]
    for step in sorted(numbered, key=lambda p: int(p.name), reverse=True):
        try:
            return _load_step(step, facts, which)
        except ValueError as error:
            logging.warning("%s; trying the one before", error)
    raise ValueError(f"{path} holds no checkpoint that can be read; let the run save one first")


def save_weights(folder: Path, weights: Any, facts: Mapping[str, Any]) -> None:
    """Writes weights and facts as a self-contained folder that `load_weights` reads; `folder` must be empty."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((Path(folder) / "weights").absolute(), weights)
    write_facts(folder, facts)
    write_json(Path(folder) / CHECKSUMS, digests(Path(folder)))


def _load_step(step: Path, facts: dict[str, Any], which: str | None) -> tuple[Any, dict[str, Any]]:
    which = which or facts["averages"][0]
    try:
        verify(step)
        if which.startswith("std="):
            weights = _of_width(step, facts, float(which.removeprefix("std=")))
        else:
            weights = read_arrays(step / "ema")[which]
    except Exception as error:  # whatever the storage layers raise on broken bytes
        raise ValueError(f"checkpoint {step} is damaged ({first_line(error)})") from None
    return weights, {**facts, "step": int(step.name)}


def _check_width(path: Path, facts: dict[str, Any], width: str) -> None:
    """Raises ValueError where no average of this width ("0.1") can come out of the run, whichever step is good."""
    if not facts["config"]["ema"]["power_stds"]:
        raise ValueError(
            f"{path} keeps no power-function averages to make another width from; "
            f"train with config.ema.power_stds=(0.05,0.1) and config.checkpoint.keep_every"
        )
    try:
        averages.power_exponent(float(width))
    except ValueError:
        raise ValueError(f"the average std={width}: a width is a number above 0 and below 0.288") from None


def _of_width(step: Path, facts: dict[str, Any], width: float) -> Any:
    """The power-function average of a width at an undamaged step, from all undamaged steps up to it."""
    stored = dict(enumerate(facts["config"]["ema"]["power_stds"]))
    snapshots = []
    for path in step.parent.glob("*"):
        if path.name.isdigit() and int(path.name) <= int(step.name) and not damage(path):
            trees = read_arrays(path / "ema")
            snapshots += [(int(path.name), averages.power_exponent(s), trees[f"power{i}"]) for i, s in stored.items()]
    return averages.reconstruct(snapshots, int(step.name), width)


def read_arrays(item: Path) -> Any:
    """All arrays of one Orbax item as NumPy, whatever devices they were saved from."""
    handler = ocp.PyTreeCheckpointHandler()
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), handler.metadata(item).tree)
    try:
        return handler.restore(item, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
    finally:
        handler.close()
