"""The loop: build, restore, step, done. Everything else hangs on callbacks.

A run is a function of (config, seed, data). Interrupted and started again with the same command, it ends with the same
bits as one that was never interrupted.
"""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import jax
import jax.numpy as jnp
from absl import logging
from jaxtyping import PyTree

from fmd import devices, processes, run_info, sharding
from fmd.blocks import differences
from fmd.checkpoints.fitting import fit
from fmd.checkpoints.store import Store
from fmd.config import Config
from fmd.data import ImageDataset
from fmd.devices import Layout
from fmd.files import expand, folder_lock, refuse_patterns, write_json
from fmd.models.contract import Model
from fmd.models.parameter_table import parameter_table
from fmd.randomness import check_switches, stream
from fmd.run_info import RunInfo, read_run_info
from fmd.sampling import checks
from fmd.sampling.sampler import make_model
from fmd.training import feed as feeds
from fmd.training import origin
from fmd.training import recipe as recipes
from fmd.training.callbacks import Callback, saved_grids
from fmd.training.cost import cost_of
from fmd.training.run import Run
from fmd.training.state import TrainState, as_edition_1, create_state, from_edition_1
from fmd.training.step import Recipe, train_steps
from fmd.types import Params

# Keys and blocks of the config that a resumed run may change: they do not affect its result. `on_nonfinite` is among
# them because the message about a loss that is not finite tells users to change it.
FREE_TO_CHANGE = ("log", "sample", "checkpoint", "parallel", "on_cpu", "train.on_nonfinite", "data.workers")


def train(config: Config, workdir: Path, dataset: ImageDataset, callbacks: Sequence[Callback]) -> Run:
    """Trains to config.train.num_steps, or goes on with the run that `workdir` holds.

    Args:
        config: the resolved config.
        workdir: folder of the run; made if missing.
        dataset: the images to train on.
        callbacks: called in this order at each hook.

    Raises:
        ValueError: for a config whose parts do not fit, or that differs from the one the run began with.
        FileExistsError: when another process is using `workdir`.
        FloatingPointError: when the loss stops being finite and config.train.on_nonfinite is "stop".
    """
    workdir = expand(workdir).absolute()
    refuse_patterns(workdir)
    processes.on_main(lambda: refuse_strangers(workdir, config))
    with ExitStack() as held:
        processes.on_main(lambda: held.enter_context(folder_lock(workdir)))
        held.enter_context(processes.clear_message_when_another_process_ends())
        run = start(config, workdir, dataset)
        if jax.process_count() == 1:  # after an error, too, a save under way is completed; of several one may be gone
            held.callback(run.store.wait)
        held.enter_context(run.cleanup)
        program = devices.compile_step(
            partial(train_steps, recipe=run.recipe, axis_name=run.layout.axis_name), run.layout, run.shardings
        )
        resident = resident_arrays(run)
        vote = devices.Vote(run.layout)
        held.enter_context(stop_signals(run))
        notify(callbacks, "on_train_start", run)
        compiled: jax.stages.Compiled | None = None
        for batch in feeds.feed(config, dataset, run.step):
            placed = devices.place_feed(run.layout, batch)
            if compiled is None:  # outside the guard, since constants of a model may move now
                arguments = (run.state, resident, placed)
                traced = None if run.layout.mode == "pmap" else program.trace(*arguments)  # type: ignore[attr-defined]
                run.cost = cost_of(run, traced)
                compiled = (program.lower(*arguments) if traced is None else traced.lower()).compile()
                processes.give_back_memory()
            with jax.transfer_guard("disallow"):  # nothing else moves between host and devices in a step
                run.state, run.last_report = compiled(run.state, resident, placed)
            run.step += config.train.steps_per_dispatch
            run.stopping = vote(run.stop_asked)
            notify(callbacks, "on_step_end", run)
            if run.stopping:
                break
        notify(callbacks, "on_train_end", run)
        run.store.close()
    return run


def resident_arrays(run: Run) -> dict[str, PyTree]:
    """The arrays that stay on the devices: "x" and "y" of the training set where they fit, and a "teacher"."""
    split = feeds.resident_split(run.config, run.dataset)
    arrays = {} if split is None else {"x": split.images, "y": split.y}
    if run.teacher is not None:
        arrays["teacher"] = run.teacher.params
    placed: dict[str, PyTree] = devices.replicate(run.layout, arrays)
    return placed


def start(config: Config, workdir: Path, dataset: ImageDataset) -> Run:
    """The parts of a run, with its newest checkpoint restored if there is one."""
    check_switches()
    info = recipes.make_info(config, dataset)
    teacher = origin.teacher_of(config, workdir, info)
    info = info if teacher is None else info.replace(teacher=teacher.digest())
    model, recipe, layout = plan(info, dataset, teacher)
    shape, told, tuning = dataset.image_shape, info.conditions, recipe.tuning
    processes.on_main(lambda: claim(workdir, info))

    def init_params() -> Params:
        return recipes.init_params(model, stream(config.seed, "init"), shape, told)

    def init(network: Params | None = None, critic: Params | None = None) -> TrainState:
        network = init_params() if network is None else network
        critic = network if tuning.critic and critic is None else critic
        names = getattr(recipe.method, "logs", ())
        return create_state(network, recipe.optimizer, tuple(recipe.averages), names, critic, tuning)

    once = devices.options_to_run_once()
    abstract = jax.eval_shape(init)
    shardings = sharding.state_shardings(layout, abstract, sharding.stacks_of(model))
    table = parameter_table(abstract.ema[info.averages[0]], trained=tuning.count(abstract.params))
    logging.info("%s\n%s", config.model.name, table)
    if config.parallel.fsdp > 1:
        logging.info("%s", sharding.describe(layout, abstract, shardings))

    keep = config.checkpoint
    store = Store(
        workdir / "checkpoints", keep_last=keep.keep_last, keep_every=keep.keep_every, keep_best=keep.keep_best
    )
    placed = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)
    rest = placed.replace(ema={})
    restored = store.restore(placed.ema, rest, as_edition_1(rest))
    source = origin.origin_of(config, workdir)
    if restored is None and (source is not None or tuning.critic):
        fresh = jax.device_get(jax.jit(init_params, compiler_options=once)())
        network = fresh if source is None else origin.begin_with(source, info, fresh, tuning)
        critic = fit(fresh, teacher.params).params if tuning.critic and teacher is not None else None
        state = jax.jit(init, out_shardings=shardings, compiler_options=once)(network, critic)
    elif restored is None:
        state = jax.jit(init, out_shardings=shardings, compiler_options=once)()
    else:
        averages, rest = restored
        state = from_edition_1(rest).replace(ema=averages)
        if not recipe.skip_nonfinite:  # steps that were left out before are no reason to stop now
            state = state.replace(first_bad=jax.device_put(jnp.full((), -1, jnp.int32), shardings.first_bad))
        logging.info("going on from step %d in %s", int(state.step), workdir)
    run = Run(
        config=config,
        workdir=workdir,
        info=info,
        dataset=dataset,
        model=model,
        recipe=recipe,
        layout=layout,
        shardings=shardings,
        store=store,
        state=state,
        teacher=teacher,
        step=int(state.step),
    )
    processes.on_main(lambda: remove_later_grids(workdir, run.step))
    return run


def plan(info: RunInfo, dataset: ImageDataset, teacher: origin.Teacher | None = None) -> tuple[Model, Recipe, Layout]:
    """The model of a run, its recipe, and its devices.

    Raises ValueError for parts that do not fit, and for settings that the run could not be sampled with.
    """
    config = info.config
    layout = devices.make_layout(config.parallel.mode, fsdp=config.parallel.fsdp)
    layout.check_batch(config.train.batch_size // config.train.grad_accumulation, "batch size per part")
    tells = recipes.make_telling(config, dataset)
    model = make_model(config, dataset.num_classes, tells.spec)
    recipe = recipes.make_recipe(config, model, dataset.image_shape, tells, layout, teacher)
    checks.check(recipe.method, info, config.sample)
    return model, recipe, layout


def refuse_strangers(workdir: Path, config: Config) -> None:
    """Raises ValueError where a folder holds something, and no run; before anything is written in it."""
    if not workdir.is_dir() or (workdir / run_info.FILE).exists():
        return
    ours = {origin.FIRST} if config.first is not None else set()
    if strangers := sorted(p.name for p in workdir.iterdir() if not p.name.startswith(".") and p.name not in ours):
        raise ValueError(f"{workdir} holds no fmd run but has {strangers[0]!r} in it; choose another --workdir")


def claim(workdir: Path, info: RunInfo) -> None:
    """Makes `workdir` this run's, or checks that it already is. Before the first checkpoint any config may follow.

    Raises ValueError when the folder holds a run with another config; names the differences.
    """
    if any(step.name.isdigit() for step in (workdir / "checkpoints").glob("*")):
        before, now = read_run_info(workdir).to_json(), info.to_json()
        same_data = before.get("data_digest") == now["data_digest"]  # wherever they lie, and however they are read
        free = {*FREE_TO_CHANGE, *(["data.source", "data.params"] if same_data else [])}
        changed = [
            f"{key}: {old!r} -> {new!r}"
            for key, old, new in differences(before["config"], now["config"])
            if not {key, key.split(".")[0], ".".join(key.split(".")[:2])} & free
        ]
        for key in ("image_shape", "num_classes", "train_images", "class_names", "conditions", "teacher"):
            if before.get(key) != now.get(key):
                changed.append(f"{key}: {before.get(key)!r} -> {now.get(key)!r}")
        if not changed and not same_data and "data_digest" in before:
            changed.append("the training or test images or their labels are other ones")
        if changed:
            raise ValueError(
                f"{workdir} holds a run with another config ({'; '.join(changed)}); "
                f"restore these values to go on with it, or choose another --workdir"
            )
    write_json(workdir / run_info.FILE, info.to_json())


def remove_later_grids(workdir: Path, step: int) -> None:
    """Removes the grids of samples of steps above `step`, left by a part of the run that no checkpoint has kept."""
    for number, path in saved_grids(workdir):
        if number > step:
            path.unlink()


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

    def stop(number: int, frame: FrameType | None) -> None:
        run.stop()
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    old = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
