"""Training, `--mode=train`."""

from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags, logging

from fmd import cli, processes
from fmd import config as configs
from fmd.arguments import Overrides, load_data, resolve_for_this_machine
from fmd.config import Config
from fmd.data import ImageDataset
from fmd.evaluation.quality import make_quality
from fmd.evaluation.validation import make_validation
from fmd.files import expand
from fmd.registry import import_modules
from fmd.training import callbacks, origin, trainer
from fmd.training.callbacks.progress import Progress
from fmd.training.callbacks.report import HtmlReport
from fmd.training.lines import Line
from fmd.training.recipe import make_info
from fmd.training.run import Run
from fmd.types import Params


def train(parsed: flags.FlagValues, overrides: Overrides) -> None:
    """Trains, or goes on with the run in the workdir."""
    cli.need(parsed, "config", "train needs a config file, e.g. --config=configs/mnist_cfg_strong.py")
    processes.initialize(parsed.coordinator, parsed.num_processes, parsed.process_id)
    if not processes.is_main_process():
        logging.set_verbosity(logging.WARNING)
    cli.use_compilation_cache()
    config = resolve_for_this_machine(configs.load_file(parsed.config), overrides)
    workdir = workdir_of(parsed)
    run = train_config(config, workdir)
    if run.finished:
        logging.info("done: %d steps in %s; next: --mode=sample --checkpoint=%s", run.step, workdir, workdir)
    else:
        logging.info("stopped and saved at step %d; the same command goes on from there", run.step)


def workdir_of(parsed: flags.FlagValues) -> Path:
    """The folder of the run: the one that is named, or else one by the name of the config file."""
    return expand(parsed.workdir or Path("runs") / Path(parsed.config).stem)


def train_config(
    config: Config,
    workdir: Path,
    extra: Sequence[callbacks.Callback] = (),
    dataset: ImageDataset | None = None,
) -> Run:
    """Trains a resolved config with the usual callbacks; `extra` ones come before the checkpoint.

    `dataset` is that of the config, read where it is not given. A run that comes first, `config.first`, is trained
    first, after all of them are checked.
    """
    import_modules(config.imports)
    dataset = load_data(config) if dataset is None else dataset
    if config.first is not None:
        trainer.plan(make_info(config, dataset), dataset)
        first = origin.first_config(config)
        same = dataset if first.data == config.data else None
        before = train_config(first, expand(workdir) / origin.FIRST, extra, same)
        if not before.finished:
            return before

    def validation(run: Run) -> Callable[[Params], Line]:
        return make_validation(run.model, run.info, dataset.test, run.layout, examples=config.log.eval_examples)

    def quality(run: Run) -> Callable[[Params], Line]:
        return make_quality(run.model, run.info, dataset, run.layout)

    hooks: list[callbacks.Callback] = [callbacks.Log(), callbacks.Evaluate(validation), callbacks.Samples()]
    if config.log.quality_every:
        hooks.append(callbacks.Evaluate(quality, name="quality", every="quality_every"))
    hooks += [*callbacks.load(config.log.callbacks), *extra, Progress(), callbacks.Checkpoints(), HtmlReport()]
    return trainer.train(config, workdir, dataset, hooks)
