"""The loop: build, restore, step, done. Everything else hangs on callbacks.

A run is a function of (config, seed, data). Interrupted and started again with the same command, it ends with the same
bits as one that was never interrupted.
"""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from fmd.checkpoints.facts import FACTS, read_facts, write_facts
from fmd.checkpoints.store import Store
from fmd.data import ImageDataset
from fmd.models.parameter_table import parameter_table
from fmd.training import setup
from fmd.training.callbacks import Callback
from fmd.training.state import TrainState, create_state
from fmd.training.step import Recipe, Report, train_steps
from fmd.utils import distributed
from fmd.utils.distributed import Layout
from fmd.utils.files import folder_lock
from fmd.utils.seed import stream

# What may change in the config between two parts of a run: blocks that do not change its result, and what is to be done
# about a loss that is not finite, which the message about one advises.
FREE_TO_CHANGE = ("log", "sample", "checkpoint", "parallel", "on_cpu", "train.on_nonfinite")


@dataclass
class Run:
    """A run in progress: what the callbacks see."""

    config: Any  # fmd.config.Config
    workdir: Path
    facts: dict[str, Any]  # what is stored beside the checkpoints
    dataset: ImageDataset
    model: Any
    recipe: Recipe
    layout: Layout
    shardings: Any  # of the state
    store: Store
    state: TrainState
    step: int = 0
    report: Report | None = None  # of the last dispatch; still on the device
    figures: dict[str, float] = field(default_factory=dict)  # of the last evaluation, with its "step"
    logs: dict[str, Any] = field(default_factory=dict)  # by name ("metrics"), objects with the `lines` written so far
    seconds: dict[str, float] = field(default_factory=dict)  # spent beside the steps of this process, by what for
    stop_asked: bool = False  # see `stop`
    stopping: bool = False  # this dispatch is the last one, for all processes of the run
    cleanup: ExitStack = field(default_factory=ExitStack)  # callbacks add here what must be closed, also after an error

    def stop(self) -> None:
        """Asks for an early end: the run saves a checkpoint after the next dispatch (or the one after it) and ends."""
        self.stop_asked = True

    @property
    def weights(self) -> Any:
        """The averaged parameters that samples and figures are made with, whole on every device.

        They may share the memory of `state`, which the next step reuses: copy what you keep.
        """
        return jax.device_put(self.state.ema[self.facts["averages"][0]], self.layout.replicated)

    @property
    def finished(self) -> bool:
        return self.step >= self.config.train.num_steps

    def due(self, every: int) -> bool:
        """True on multiples of `every` (0: never) and on the last step."""
        return self.finished or (every > 0 and self.step % every == 0)


def train(config: Any, workdir: Path, dataset: ImageDataset, callbacks: Sequence[Callback]) -> Run:
    """Trains to config.train.num_steps, or goes on with the run that `workdir` holds.

    Args:
        config: an `fmd.config.Config`.
        workdir: folder of the run; made if missing.
        dataset: what to train on.
        callbacks: called in this order at each hook.

    Raises:
        ValueError: for a config whose parts do not fit, or that differs from the one the run began with.
        FileExistsError: when another process is using `workdir`.
        FloatingPointError: when the loss stops being finite and config.train.on_nonfinite is "stop".
    """
    workdir = Path(workdir).absolute()
    with ExitStack() as held:
        distributed.on_main(lambda: held.enter_context(folder_lock(workdir)))
        held.enter_context(distributed.clear_message_when_another_process_ends())
        run = start(config, workdir, dataset)
        if jax.process_count() == 1:  # after an error, too, a save under way is completed; of several one may be gone
            held.callback(run.store.wait)
        held.enter_context(run.cleanup)
        program = distributed.compile_step(
            partial(train_steps, recipe=run.recipe, axis_name=run.layout.axis_name), run.layout, run.shardings
        )
        resident = resident_arrays(run)
        vote = distributed.Vote(run.layout)
        held.enter_context(stop_signals(run))
        notify(callbacks, "on_train_start", run)
        for feed in setup.feed(config, dataset, run.step):
            placed = distributed.place_feed(run.layout, feed)
            with jax.transfer_guard("disallow"):  # nothing else moves between host and devices in a step
                run.state, run.report = program(run.state, resident, placed)
            run.step += config.train.steps_per_dispatch
            run.stopping = vote(run.stop_asked)
            notify(callbacks, "on_step_end", run)
            if run.stopping:
                break
        notify(callbacks, "on_train_end", run)
        run.store.close()
    return run


def start(config: Any, workdir: Path, dataset: ImageDataset) -> Run:
    """Builds the parts of a run and restores its newest checkpoint, if there is one."""
    layout = distributed.make_layout(config.parallel.mode, fsdp=config.parallel.fsdp)
    layout.check_batch(config.train.batch_size // config.train.grad_accumulation, "batch size per part")
    model = setup.make_model(config, dataset.image_shape, dataset.num_classes)
    recipe = setup.make_recipe(config, model, layout)
    facts = setup.make_facts(config, dataset)
    distributed.on_main(lambda: claim(workdir, facts))

    def init() -> TrainState:
        height, width, channels = dataset.image_shape
        example = jnp.zeros((1, height, width, channels)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
        params = model.init(stream(config.seed, "init"), *example)["params"]
        return create_state(params, recipe.optimizer, tuple(recipe.averages))

    abstract = jax.eval_shape(init)
    shardings = distributed.state_shardings(layout, abstract)
    logging.info("%s\n%s", config.model["name"], parameter_table(abstract.params))

    keep = config.checkpoint
    store = Store(
        workdir / "checkpoints", keep_last=keep.keep_last, keep_every=keep.keep_every, keep_best=keep.keep_best
    )
    placed = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)
    restored = store.restore(ema=placed.ema, train=placed.replace(ema={}))
    if restored is None:
        state = jax.jit(init, out_shardings=shardings)()
    else:
        averages, rest = restored
        state = rest.replace(ema=averages)
        logging.info("going on from step %d in %s", int(state.step), workdir)
    run = Run(config, workdir, facts, dataset, model, recipe, layout, shardings, store, state, int(state.step))
    distributed.on_main(lambda: remove_later_grids(workdir, run.step))
    return run


def claim(workdir: Path, facts: dict[str, Any]) -> None:
    """Makes `workdir` this run's, or checks that it already is. Before the first checkpoint any config may follow.

    Raises:
        ValueError: when the folder holds something else, or a run with another config; names the differences.
    """
    if not (workdir / FACTS).exists():
        if strangers := sorted(p.name for p in workdir.iterdir() if not p.name.startswith(".")):
            raise ValueError(f"{workdir} holds no fmd run but has {strangers[0]!r} in it; choose another --workdir")
    elif any(step.name.isdigit() for step in (workdir / "checkpoints").glob("*")):
        before = read_facts(workdir)
        changed = [
            f"{key}: {old!r} -> {new!r}"
            for key, old, new in differences(before["config"], facts["config"])
            if not {key, key.split(".")[0]} & set(FREE_TO_CHANGE)
        ]
        changed += [
            f"{k}: {before[k]!r} -> {facts[k]!r}"
            for k in ("image_shape", "num_classes", "train_images")
            if before.get(k, facts[k]) != facts[k]
        ]
        if changed:
            raise ValueError(
                f"{workdir} holds a run with another config ({'; '.join(changed)}); "
                f"restore these values to go on with it, or choose another --workdir"
            )
    write_facts(workdir, facts)


def remove_later_grids(workdir: Path, step: int) -> None:
    """Removes the grids of samples of steps above `step`, left by a part of the run that no checkpoint has kept."""
    for path in (workdir / "samples").glob("step_*.png"):
        number = path.stem.removeprefix("step_")
        if number.isdigit() and int(number) > step:
            path.unlink()


def differences(before: Any, after: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, old, new) of each leaf that differs between two nested dictionaries."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            yield from differences(before.get(name), after.get(name), f"{key}.{name}" if key else name)
    elif before != after:
        yield key, before, after


def resident_arrays(run: Run) -> dict[str, jax.Array] | None:
    """The training set on the devices, where it fits."""
    split = setup.resident_split(run.config, run.dataset)
    if split is None:
        return None
    return distributed.replicate(run.layout, {"images": split.images, "labels": split.labels})


def notify(callbacks: Sequence[Callback], hook: str, run: Run) -> None:
    """Calls one hook of every callback; an error says whose it was."""
    for callback in callbacks:
        try:
            getattr(callback, hook)(run)
        except Exception as error:
            error.add_note(f"raised by {type(callback).__name__}.{hook} at step {run.step}")
            raise


@contextmanager
def stop_signals(run: Run) -> Iterator[None]:
    """SIGTERM and the first SIGINT make the run save and end; a second SIGINT ends it at once."""
    if threading.current_thread() is not threading.main_thread():  # signals can only be handled there
        yield
        return

    def stop(number: int, frame: Any) -> None:
        run.stop()
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    old = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
