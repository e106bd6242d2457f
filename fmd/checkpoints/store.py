"""Checkpoints of a run: Orbax below `workdir/checkpoints`, one folder per step, with the run's facts beside them.

Each step holds two items, so that a sampler reads only what it needs: `ema` (the averages of the parameters) and
`train` (everything else that the next step depends on). Orbax writes under a temporary name and renames; the checksums
of the files are written just before, so a step without them, or with other files than they say, is damaged.
"""

import contextlib
import hashlib
import json
import operator
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from fmd.utils.distributed import is_main_process, on_main, share
from fmd.utils.files import write_json

FACTS = "config.json"
CHECKSUMS = "checksums.json"
SCORE = "score"
SYSTEM_ERRORS = ("OS error", "os_error_code")  # in the ValueErrors by which TensorStore reports what the disk refused
FORMAT = 1


class Store:
    """Saves and restores the state of one run.

    Args:
        folder: the checkpoint folder; created.
        keep_last: how many of the newest steps to keep.
        keep_every: also keep each step that this divides.
        keep_best: also keep so many of the steps with the lowest score.
    """

    def __init__(self, folder: Path, *, keep_last: int = 2, keep_every: int | None = None, keep_best: int = 0) -> None:
        self.folder = Path(folder).absolute()
        on_main(lambda: self.folder.mkdir(parents=True, exist_ok=True))
        policies = ocp.checkpoint_managers
        keep: list[Any] = [policies.LatestN(keep_last)]
        keep += [policies.EveryNSteps(keep_every)] if keep_every else []
        score = operator.itemgetter(SCORE)
        lowest = policies.BestN(get_metric_fn=score, reverse=True, n=keep_best, keep_checkpoints_without_metrics=False)
        keep += [lowest] if keep_best else []
        self._pending: int | None = None
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                best_fn=score if keep_best else None,  # makes Orbax store the scores
                best_mode="min",
                preservation_policy=policies.AnyPreservationPolicy(keep),
                cleanup_tmp_directories=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
            ),
        )

    def save(self, step: int, ema: Any, train: Any, score: float | None = None) -> None:
        """Starts saving in the background; the arrays may be donated when this returns.

        Args:
            step: names the checkpoint; above all before.
            ema, train: the two trees.
            score: what `keep_best` ranks by, lower is better; None leaves this step out of the ranking.

        Raises:
            OSError: when the disk refuses (this save or the one before it); earlier steps stay good.
        """
        self.wait()
        self._pending = step
        with _one_line_for_disk_errors(self.folder):
            self._manager.save(
                step,
                args=ocp.args.Composite(ema=ocp.args.StandardSave(ema), train=ocp.args.StandardSave(train)),
                metrics=None if score is None else {SCORE: score},
            )

    def wait(self) -> None:
        """Returns when the last save is complete."""
        with _one_line_for_disk_errors(self.folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        self.wait()
        self._manager.close()

    def restore(self, ema: Any, train: Any) -> tuple[Any, Any] | None:
        """The newest undamaged (ema, train), placed as the abstract trees say; None where nothing was saved yet.

        A damaged step is set aside as `damaged-STEP`, with a warning, and the one before it is used.

        Raises:
            ValueError: when steps exist but each of them is damaged, or the newest good one has other arrays.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            if damage := share(_damage(self.folder / str(step)) if is_main_process() else ""):
                logging.warning("checkpoint %s is damaged (%s); trying the one before", step, damage)
                on_main(partial(_set_aside, self.folder / str(step)))
                self._manager.reload()
                continue
            items = ocp.args.Composite(ema=ocp.args.StandardRestore(ema), train=ocp.args.StandardRestore(train))
            try:
                restored = self._manager.restore(step, args=items)
            except Exception as error:  # the files are as they were written, so they were written by another program
                raise ValueError(
                    f"checkpoint {step} in {self.folder} does not fit this model ({_first_line(error)}); "
                    f"go on with the version of fmd that wrote it, or choose another --workdir"
                ) from error
            return restored["ema"], restored["train"]
        if steps or any(self.folder.glob("damaged-*")):
            raise ValueError(
                f"no checkpoint in {self.folder} can be read; they were renamed damaged-*. "
                f"Start again with another --workdir, or put a good copy of one back"
            )
        return None

    def _seal(self) -> None:
        """Adds the checksums to a step that is all there but still has its temporary name."""
        if is_main_process():
            for temporary in self.folder.glob(f"{self._pending}.orbax-checkpoint-tmp*"):
                write_json(temporary / CHECKSUMS, _digests(temporary))


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Writes the config and facts of a run (or of an export) as JSON beside its weights."""
    write_json(Path(folder) / FACTS, {"format": FORMAT, **facts})


def read_facts(folder: Path) -> dict[str, Any]:
    """Reads what `write_facts` wrote.

    Raises:
        ValueError: when the file is missing, unreadable, or of a newer format.
    """
    path = Path(folder) / FACTS
    if not path.is_file():
        raise ValueError(
            f"{folder} holds no fmd model: there is no {FACTS} in it; give a workdir or an exported folder"
        )
    try:
        facts = json.loads(path.read_text())
        version = facts["format"]
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
        raise ValueError(f"{path} is damaged or was not written by fmd; restore it from a copy") from None
    if version != FORMAT:
        raise ValueError(f"{path} has format {version}; this fmd reads format {FORMAT}: install a version that fits")
    return facts


def load_weights(path: str | Path, which: str | None = None) -> tuple[Any, dict[str, Any]]:
    """The averaged weights in a workdir (its newest good step), in one step of it, or in an exported folder.

    Args:
        path: the folder.
        which: the average to take where a run keeps several, e.g. "decay1"; default: its first.

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
    if which is not None and which not in facts["averages"]:
        raise ValueError(f"no average {which!r} in {path}; there are {', '.join(facts['averages'])}")
    if is_step:
        return _load_step(path, facts, which)
    if (path / "weights").is_dir():
        _verify(path)
        return _read_arrays(path / "weights"), facts
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
    write_json(Path(folder) / CHECKSUMS, _digests(Path(folder)))


def _load_step(step: Path, facts: dict[str, Any], which: str | None) -> tuple[Any, dict[str, Any]]:
    which = which or facts["averages"][0]
    try:
        _verify(step)
        weights = _read_arrays(step / "ema")[which]
    except Exception as error:  # whatever the storage layers raise on broken bytes
        raise ValueError(f"checkpoint {step} is damaged ({_first_line(error)})") from None
    return weights, {**facts, "step": int(step.name)}


def _read_arrays(item: Path) -> Any:
    """All arrays of one Orbax item as NumPy, whatever devices they were saved from."""
    handler = ocp.PyTreeCheckpointHandler()
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), handler.metadata(item).tree)
    try:
        return handler.restore(item, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
    finally:
        handler.close()


@contextlib.contextmanager
def _one_line_for_disk_errors(folder: Path) -> Iterator[None]:
    """Whatever Orbax and its storage raise when a disk is full or read-only, as one OSError."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and not any(mark in str(error) for mark in SYSTEM_ERRORS):
            raise
        raise OSError(
            f"could not save to {folder}: {_first_line(error)}; free some space or fix its permissions and run "
            f"the same command again: the last complete checkpoint is good"
        ) from error


def _digests(folder: Path) -> dict[str, str]:
    """Checksums of the arrays: the files in sub-folders. Orbax still changes what lies beside those when it is done."""
    digests = {}
    for path in sorted(p for p in folder.glob("*/**/*") if p.is_file()):
        name = str(path.relative_to(folder)).replace(".orbax-checkpoint-tmp", "")
        digests[name] = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    return digests


def _verify(folder: Path) -> None:
    """Raises ValueError when the files differ from the list."""
    listed = folder / CHECKSUMS
    if not listed.is_file():
        raise ValueError(f"{listed} is missing")
    want, have = json.loads(listed.read_text()), _digests(folder)
    if not isinstance(want, dict) or not want:
        raise ValueError(f"{listed} lists no files")
    wrong = [name for name in want if have.get(name) != want[name]]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(want)} files in {folder} are missing or changed, the first is {wrong[0]}"
        )


def _damage(folder: Path) -> str:
    """What is wrong with a step, in one line; empty for a good one."""
    try:
        _verify(folder)
    except (ValueError, OSError) as error:
        return _first_line(error)
    return ""


def _set_aside(step: Path) -> None:
    target = step.with_name(f"damaged-{step.name}")
    while target.exists():
        target = target.with_name(f"{target.name}-again")
    shutil.move(step, target)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
