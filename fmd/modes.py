"""One function per mode of the command line. Each takes the parsed flags and does one thing."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from fmd import config as configs
from fmd import config_files, data
from fmd.evaluation import evaluator, sweep
from fmd.evaluation.validation import make_validation
from fmd.export.exporter import export
from fmd.models.registry import import_user_modules
from fmd.sampling import sampler as samplers
from fmd.training import callbacks, trainer
from fmd.training.progress import Progress
from fmd.training.report import HtmlReport
from fmd.utils import animation, distributed, process
from fmd.utils.files import atomic_path, write_json
from fmd.utils.viz import image_grid, save_png

Overrides = Sequence[tuple[str, str]]
N_SAMPLES = 64
FRAMES = 41  # of an animation; what most solvers have as steps divides 40


def train(flags: Any, overrides: Overrides) -> None:
    """Trains, or goes on with the run in the workdir."""
    process.need(flags, "config", "train needs a config file, e.g. --config=configs/mnist_cfg_strong.py")
    distributed.initialize(flags.coordinator, flags.num_processes, flags.process_id)
    if not distributed.is_main_process():
        logging.set_verbosity(logging.WARNING)
    process.use_compilation_cache()
    config = resolve_for_this_machine(config_files.load_file(flags.config), overrides)
    workdir = Path(flags.workdir or Path("runs") / Path(flags.config).stem)
    run = train_config(config, workdir)
    if run.finished:
        logging.info("done: %d steps in %s; next: --mode=sample --checkpoint=%s", run.step, workdir, workdir)
    else:
        logging.info("stopped and saved at step %d; the same command goes on from there", run.step)


def resolve_for_this_machine(file_config: dict[str, Any], overrides: Overrides) -> configs.Config:
    """The file's config, its `on_cpu` block where there is no accelerator, then the command line's overrides."""
    refused = any(key == "on_cpu" for key, _ in overrides)
    if file_config.get("on_cpu") and not refused and jax.default_backend() == "cpu":
        logging.info("no accelerator: using the config's on_cpu block (refuse with --config.on_cpu=None)")
        file_config = config_files.apply_on_cpu(file_config)
    return configs.resolve(config_files.override(file_config, overrides))


def train_config(config: configs.Config, workdir: Path, extra: Sequence[callbacks.Callback] = ()) -> trainer.Run:
    """Trains a resolved config with the usual callbacks; `extra` ones come before the checkpoint."""
    import_user_modules(config.imports)
    dataset = data.load(config.data.source, **config.data.params)

    def validation(run: trainer.Run) -> Any:
        return make_validation(run.model, run.facts, dataset.test, run.layout, examples=config.log.eval_examples)

    hooks: list[callbacks.Callback] = [callbacks.Log(), callbacks.Evaluate(validation), callbacks.Samples()]
    if config.log.quality_every:
        hooks.append(callbacks.Evaluate(evaluator.during_training, name="quality", every="quality_every"))
    hooks += [*callbacks.load(config.log.callbacks), *extra, Progress(), callbacks.Checkpoints(), HtmlReport()]
    return trainer.train(config, workdir, dataset, hooks)


def sample(flags: Any, overrides: Overrides) -> None:
    """Draws images to a PNG, to an .npz with their labels, or their way from noise to data to a .gif or .webp."""
    process.need(flags, "checkpoint", "sample needs --checkpoint: a workdir, one step inside it, or an export")
    outfile = Path(flags.outfile)
    if outfile.suffix not in (".png", ".npz", *animation.SUFFIXES):
        raise ValueError(f"--outfile={outfile}: the name must end in .png, .npz, {' or '.join(animation.SUFFIXES)}")
    if outfile.exists() and not flags.overwrite:
        raise FileExistsError(f"{outfile} exists; choose another --outfile, or replace it with --overwrite")
    process.use_compilation_cache()
    sampler = samplers.load(flags.checkpoint, which=flags.average)
    labels = parse_labels(flags.label, flags.n_samples or N_SAMPLES, sampler.num_classes)
    times = np.linspace(0, 1, FRAMES) if outfile.suffix in animation.SUFFIXES else None
    drawn = sampler.sample(
        labels,
        jax.random.key(flags.seed),
        weight=flags.weight,
        solver=flags.solver,
        steps=flags.steps,
        grid=shifted_grid(flags.shift),
        rtol=flags.tolerance,
        atol=flags.tolerance,
        times=times,
    )
    scale = max(1, 56 // sampler.image_shape[0])
    if times is not None:
        frames = animation.grid_frames(np.moveaxis(drawn.images, 1, 0), scale=scale)
        animation.save_animation(outfile, frames, overwrite=flags.overwrite)
    elif outfile.suffix == ".npz":
        with atomic_path(outfile, overwrite=flags.overwrite) as temporary, open(temporary, "wb") as handle:
            np.savez_compressed(handle, images=drawn.images, labels=labels)
    else:
        save_png(outfile, image_grid(drawn.images, scale=scale), overwrite=flags.overwrite)
    logging.info(
        "%d images in %s; %.0f network evaluations per image (both halves of guidance counted)%s",
        len(labels),
        outfile,
        drawn.evaluations.mean(),
        "" if drawn.success.all() else f"; {int((~drawn.success).sum())} of them did not reach t = 1: use more steps",
    )


def parse_labels(text: str | None, count: int, num_classes: int) -> np.ndarray:
    """`count` labels, int32: the given ones in turn, or all classes in turn."""
    if text is None:
        chosen = list(range(max(num_classes, 1)))
    elif text == "null":
        chosen = [num_classes]
    else:
        try:
            chosen = np.array([int(part) for part in text.split(",")], np.int32).tolist()
        except (ValueError, OverflowError):
            raise ValueError(f"--label={text}; give a class, several as 1,2,3, or null") from None
    return np.resize(np.array(chosen, np.int32), count)


def shifted_grid(factor: float | None) -> dict[str, Any] | None:
    """What --shift asks for; None leaves the grid to the config."""
    return None if factor is None else {"name": "shifted", "factor": factor}


def evaluate(flags: Any, overrides: Overrides) -> None:
    """Judges samples, of a checkpoint or from a file, against real images: eval.json, or a sweep over one setting."""
    if (flags.samples is None) == (flags.checkpoint is None):
        raise ValueError("eval needs either --checkpoint, a workdir, one step inside it or an export, or --samples")
    request = evaluator.Request(
        n_samples=flags.n_samples or evaluator.Request.n_samples,
        references=tuple(flags.reference.split(",")),
        features=flags.features,
        weight=flags.weight,
        solver=flags.solver,
        steps=flags.steps,
        grid=shifted_grid(flags.shift),
        tolerance=flags.tolerance,
        seed=flags.seed,
        likelihood_examples=flags.bits_per_dim,
    )
    sweeping = sweep.parse(flags.sweep) if flags.sweep else None
    process.use_compilation_cache()
    if flags.samples is not None:
        process.need(flags, "source", "eval of --samples needs --source: the real images, e.g. --source=mnist")
        result = evaluator.judge_file(Path(flags.samples), data.load(flags.source), request)
        return report(result, Path(f"{flags.samples}.eval.json"))
    checkpoint = Path(flags.checkpoint)
    sampler = samplers.load(checkpoint, which=flags.average)
    config = sampler.facts["config"]
    dataset = data.load(config["data"]["source"], **config["data"]["params"])
    folder = checkpoint / ".eval"
    if sweeping:
        kind, values = sweeping
        if kind == "average" and flags.average:
            raise ValueError("--sweep=average tries several averages and --average asks for one; leave it out")
        sweep.run(checkpoint, sampler, dataset, request, kind, values, folder=folder)
    else:
        report(evaluator.evaluate(sampler, dataset, request, folder=folder), checkpoint / "eval.json")
    shutil.rmtree(folder, ignore_errors=True)


def report(result: dict[str, Any], outfile: Path) -> None:
    """Prints the figures and writes them with all that belongs to them."""
    print(evaluator.table(result))
    write_json(outfile, result)
    logging.info("written to %s", outfile)


def export_model(flags: Any, overrides: Overrides) -> None:
    """Makes a folder that needs nothing of the run: weights, a portable sampler, a model card."""
    process.need(flags, "checkpoint", "export needs --checkpoint: a workdir, or one step inside it")
    process.need(flags, "out", "export needs --out: the folder to make, e.g. --out=models/mnist")
    process.use_compilation_cache()
    folder = export(flags.checkpoint, flags.out, which=flags.average)
    logging.info("exported to %s; %s says what is in it and how to use it", folder, folder / "README.md")


MODES = {"train": train, "sample": sample, "eval": evaluate, "export": export_model}
