"""Checkpoints of a run: Orbax below `workdir/checkpoints`, one folder per step.

Each step holds two items, so that a sampler reads only what it needs: `ema` (the averages of the parameters) and
`train` (everything else that the next step depends on). Orbax writes under a temporary name and renames; the checksums
of the files are written just before, so a step without them, or with other files than they say, is damaged.
"""

import contextlib
import operator
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from absl import logging
from jaxtyping import PyTree

from fmd.checkpoints.checksums import CHECKSUMS, damage, digests, first_line
from fmd.files import write_json
from fmd.processes import is_main_process, on_main, share

SCORE = "score"
SYSTEM_ERRORS = ("OS error", "os_error_code")  # in the ValueErrors by which TensorStore reports what the disk refused


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
        keep: list[PyTree] = [policies.LatestN(keep_last)]
        keep += [policies.EveryNSteps(keep_every)] if keep_every else []
        score = operator.itemgetter(SCORE)
        lowest = policies.BestN(get_metric_fn=score, reverse=True, n=keep_best, keep_checkpoints_without_metrics=False)
        keep += [lowest] if keep_best else []
        self._pending: int | None = None
        if is_main_process():  # what a kill left half written; Orbax would clear it away some time later
            for half_written in self.folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(half_written)
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                best_fn=score if keep_best else None,  # makes Orbax store the scores
                best_mode="min",
                preservation_policy=policies.AnyPreservationPolicy(keep),
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
            ),
        )

    def save(self, step: int, ema: PyTree, train: PyTree, score: float | None = None) -> None:
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

    def restore(self, ema: PyTree, train: PyTree, *older: PyTree) -> tuple[PyTree, PyTree] | None:
        """The newest undamaged (ema, train), placed as the abstract trees say; None where nothing was saved yet.

        `older` are further forms that `train` had in earlier versions.

        A damaged step is set aside as `damaged-STEP`, with a warning, and the one before it is used.

        Raises:
            ValueError: when steps exist but each of them is damaged, or the newest good one has other arrays.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            if wrong := share(damage(self.folder / str(step)) if is_main_process() else ""):
                logging.warning("checkpoint %s is damaged (%s); trying the one before", step, wrong)
                on_main(partial(_set_aside, self.folder / str(step)))
                self._manager.reload()
                continue
            return self._restored(step, ema, (train, *older))
        if steps or any(self.folder.glob("damaged-*")):
            raise ValueError(
                f"no checkpoint in {self.folder} can be read; they were renamed damaged-*. "
                f"Start again with another --workdir, or put a good copy of one back"
            )
        return None

    def _restored(self, step: int, ema: PyTree, forms: Sequence[PyTree]) -> tuple[PyTree, PyTree]:
        failures: list[Exception] = []
        for train in forms:
            items = ocp.args.Composite(ema=ocp.args.StandardRestore(ema), train=ocp.args.StandardRestore(train))
            try:
                restored = self._manager.restore(step, args=items)
                return restored["ema"], restored["train"]
            except Exception as error:  # the files are as they were written, so they were written by another program
                failures.append(error)
        raise ValueError(
            f"checkpoint {step} in {self.folder} does not fit this model ({first_line(failures[0])}); "
            f"go on with the version of fmd that wrote it, or choose another --workdir"
        ) from failures[0]

    def _seal(self) -> None:
        """Adds the checksums to a step that is all there but still has its temporary name.

        Raises OSError where the libraries that saved it do not find its arrays again: then it stays without a name.
        """
        if is_main_process():
            for temporary in self.folder.glob(f"{self._pending}.orbax-checkpoint-tmp*"):
                for item in ("ema", "train"):
                    _check_readable(temporary / item)
                write_json(temporary / CHECKSUMS, digests(temporary))


@contextlib.contextmanager
def _one_line_for_disk_errors(folder: Path) -> Iterator[None]:
    """Whatever Orbax and its storage raise when a disk is full or read-only, as one OSError."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and not any(mark in str(error) for mark in SYSTEM_ERRORS):
            raise
        raise OSError(
            f"could not save to {folder}: {first_line(error)}; free some space or fix its permissions and run "
            f"the same command again: the last complete checkpoint is good"
        ) from error


def _check_readable(item: Path) -> None:
    """Raises OSError where the names and shapes of an item's arrays cannot be read back, which takes milliseconds."""
    try:
        if jax.tree.leaves(ocp.PyTreeCheckpointHandler().metadata(item).tree):
            return
        why = "no arrays are found in it"
    except Exception as error:  # whatever the storage layers raise
        why = first_line(error)
    raise OSError(f"what was saved in {item} cannot be read back ({why})")


def _set_aside(step: Path) -> None:
    target = step.with_name(f"damaged-{step.name}")
    while target.exists():
        target = target.with_name(f"{target.name}-again")
    shutil.move(step, target)
