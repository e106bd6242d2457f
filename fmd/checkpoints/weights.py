"""Weights to sample from: out of a run, one step of it, or an exported folder; and into such a folder.

An export holds them as an Orbax checkpoint and as safetensors, or compact: as safetensors alone, in float16, which are
float32 again when they are loaded.
"""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from absl import logging

from fmd.checkpoints import power_averages
from fmd.checkpoints.checksums import ALL, CHECKSUMS, damage, digests, first_line, refuse_unlisted, verify
from fmd.checkpoints.locate import existing
from fmd.checkpoints.spent import spent
from fmd.files import refuse_larger, write_json
from fmd.run_info import FILE, RunInfo, read_run_info
from fmd.types import Params

WEIGHTS = "weights"  # the folder of the arrays in an export
TENSORS = "weights.safetensors"  # the same by dotted names; alone in a compact export
PUBLISHED = "quality.json"  # what evaluations found about the weights of an export, see fmd.evaluation.verify


def load_weights(path: str | Path, average: str | None = None) -> tuple[Params, RunInfo]:
    """The averaged weights in a workdir (its newest good step), in one step of it, or in an exported folder.

    Args:
        path: the folder, the name of a model that ships with fmd, or one on the Hub, see `fmd.checkpoints.locate`.
        average: the one to take where a run keeps several, e.g. "decay1"; default: its first. "std=0.1" makes the
            power-function average of that relative width from those that the kept checkpoints hold.

    Returns:
        (parameters as NumPy arrays, info), whose `step` and `average` are those of the weights.

    Raises:
        ValueError: when there is no such folder, it is not fmd's, or nothing in it can be read.
    """
    path = existing(path)
    workdir, exported = workdir_of(path), is_export(path)
    info = read_run_info(workdir)
    width = average.removeprefix("std=") if average is not None and average.startswith("std=") else None
    if width is not None and not exported:
        _check_width(path, info, width)
    elif average is not None and average not in info.averages:
        raise ValueError(f"no average {average!r} in {path}; there are {', '.join(info.averages)}")
    if workdir != path:
        return _load_step(path, info, average)
    if exported:
        verify(path)
        refuse_unlisted(path, read=(WEIGHTS,))
        return (read_arrays(path / WEIGHTS) if (path / WEIGHTS).is_dir() else read_tensors(path / TENSORS)), info
    numbered = [p for p in (path / "checkpoints").glob("*") if p.name.isdigit()]
    for step in sorted(numbered, key=lambda p: int(p.name), reverse=True):
        try:
            return _load_step(step, info, average)
        except ValueError as error:
            logging.warning("%s; trying the one before", error)
    raise ValueError(f"{path} holds no checkpoint that can be read; let the run save one first")


def workdir_of(path: Path) -> Path:
    """The workdir that one step lies in; any other folder is its own."""
    is_step = path.parent.name == "checkpoints" and path.name.isdigit()
    return path.parent.parent if is_step else path


def is_export(path: Path) -> bool:
    """True where a folder is an export of either kind."""
    return (path / WEIGHTS).is_dir() or (path / TENSORS).is_file()


def save_weights(folder: Path, weights: Params, info: RunInfo) -> None:
    """Makes `folder` one that `load_weights` reads: weights as Orbax has them, info and checksums.

    The same weights give the same bytes: plain Zarr arrays, and none of the identifiers, times and folders that Orbax
    notes beside them.
    """
    import orbax.checkpoint as ocp

    target = (Path(folder) / WEIGHTS).absolute()
    with _quiet(), ocp.PyTreeCheckpointer(use_ocdbt=False) as checkpointer:
        checkpointer.save(target, weights)
    (target / "commit_success.txt").unlink(missing_ok=True)  # the name of a temporary folder
    notes = target / "_CHECKPOINT_METADATA"
    untimed = {key: None if key.endswith("_nsecs") else value for key, value in json.loads(notes.read_text()).items()}
    write_json(notes, untimed)
    seal(folder, info)


def seal(folder: Path, info: RunInfo) -> None:
    """Writes the info of an export, and the checksums of all that is in the folder by then."""
    write_json(Path(folder) / FILE, info.to_json())
    write_json(Path(folder) / CHECKSUMS, digests(Path(folder), ALL))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Orbax's warning that there is nothing to merge in a format that needs no merging."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _load_step(step: Path, info: RunInfo, average: str | None) -> tuple[Params, RunInfo]:
    average = average or info.averages[0]
    try:
        verify(step)
        if average.startswith("std="):
            weights = _of_width(step, info, float(average.removeprefix("std=")))
        else:
            weights = read_arrays(step / "ema")[average]
    except Exception as error:  # whatever the storage layers raise on broken bytes
        raise ValueError(f"checkpoint {step} is damaged ({first_line(error)})") from None
    cost = spent(workdir_of(step), int(step.name))
    return weights, info.replace(step=int(step.name), average=average, cost=cost)


def _check_width(path: Path, info: RunInfo, width: str) -> None:
    """Raises ValueError where no average of this width ("0.1") can come out of the run, whichever step is good."""
    if not info.config.ema.power_stds:
        raise ValueError(
            f"{path} keeps no power-function averages to make another width from; "
            f"train with config.ema.power_stds=(0.05,0.1) and config.checkpoint.keep_every"
        )
    try:
        power_averages.power_exponent(float(width))
    except ValueError:
        raise ValueError(f"the average std={width}: a width is a number above 0 and below 0.288") from None


def _of_width(step: Path, info: RunInfo, width: float) -> Params:
    """The power-function average of a width at an undamaged step, from all undamaged steps up to it."""
    exponents = [power_averages.power_exponent(std) for std in info.config.ema.power_stds]
    snapshots: list[tuple[int, float, Params]] = []
    for path in step.parent.glob("*"):
        if path.name.isdigit() and int(path.name) <= int(step.name) and not damage(path):
            trees = read_arrays(path / "ema")
            snapshots += [(int(path.name), gamma, trees[f"power{i}"]) for i, gamma in enumerate(exponents)]
    return power_averages.reconstruct(snapshots, int(step.name), width)


def read_arrays(item: Path) -> Params:
    """All arrays of one Orbax item as NumPy, whatever devices they were saved from."""
    import orbax.checkpoint as ocp  # a third of a second, which a compact export does without

    handler = ocp.PyTreeCheckpointHandler()
    try:
        found = handler.metadata(item).tree
        refuse_larger(str(item), sum(math.prod(a.shape) * np.dtype(a.dtype).itemsize for a in jax.tree.leaves(found)))
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), found)
        arrays: Params = handler.restore(item, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
        return arrays
    finally:
        handler.close()


def read_tensors(file: Path) -> Params:
    """All arrays of a safetensors file as a tree of NumPy arrays, those in float16 as float32."""
    from flax.traverse_util import unflatten_dict
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({first_line(error)})") from None
    named = {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in arrays.items()}
    tree: Params = unflatten_dict(named, sep=".")
    return tree
