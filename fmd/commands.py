"""One function per mode of the command line. Each takes the parsed flags and does one thing."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from absl import flags, logging

from fmd import cli, data, devices, processes
from fmd import config as configs
from fmd.arguments import Overrides, load_data, parse_labels, refuse_data, resolve_for_this_machine, settings_of
from fmd.blocks import Plain
from fmd.checkpoints import hub
from fmd.checkpoints.locate import locate, results_folder
from fmd.checkpoints.weights import is_export
from fmd.config import Config, Settings
from fmd.data.prepare import prepare
from fmd.evaluation import evaluate as evaluation
from fmd.evaluation import restored, sweep
from fmd.evaluation import verify as verification
from fmd.evaluation.quality import make_quality
from fmd.evaluation.validation import make_validation
from fmd.export.exporter import export
from fmd.files import atomic_path, data_cache, digest, expand, write_json
from fmd.pictures import animation
from fmd.pictures.grids import image_grid, save_png
from fmd.randomness import key
from fmd.registry import import_modules
from fmd.run_info import RunInfo
from fmd.sampling import inputs
from fmd.sampling import sampler as samplers
from fmd.telling import rows_like, tell_rows
from fmd.training import callbacks, origin, trainer
from fmd.training.callbacks.progress import Progress
from fmd.training.callbacks.report import HtmlReport
from fmd.training.lines import Line
from fmd.training.run import Run
from fmd.types import Params

N_SAMPLES, N_PAIRED = 64, 8
N_RESTORED, RESTORING_STEPS = 8, 100
FRAMES = 41  # of an animation; what most solvers have as steps divides 40


def train(parsed: flags.FlagValues, overrides: Overrides) -> None:
    """Trains, or goes on with the run in the workdir."""
    cli.need(parsed, "config", "train needs a config file, e.g. --config=configs/mnist_cfg_strong.py")
    processes.initialize(parsed.coordinator, parsed.num_processes, parsed.process_id)
    if not processes.is_main_process():
        logging.set_verbosity(logging.WARNING)
    cli.use_compilation_cache()
    config = resolve_for_this_machine(configs.load_file(parsed.config), overrides)
    workdir = _workdir(parsed)
    run = train_config(config, workdir)
    if run.finished:
        logging.info("done: %d steps in %s; next: --mode=sample --checkpoint=%s", run.step, workdir, workdir)
    else:
        logging.info("stopped and saved at step %d; the same command goes on from there", run.step)


def _workdir(parsed: flags.FlagValues) -> Path:
    return expand(parsed.workdir or Path("runs") / Path(parsed.config).stem)


def train_config(config: Config, workdir: Path, extra: Sequence[callbacks.Callback] = ()) -> Run:
    """Trains a resolved config with the usual callbacks; `extra` ones come before the checkpoint.

    A run that comes first, `config.first`, is trained first.
    """
    if config.first is not None:
        before = train_config(origin.first_config(config), expand(workdir) / origin.FIRST, extra)
        if not before.finished:
            return before
    import_modules(config.imports)
    dataset = load_data(config)

    def validation(run: Run) -> Callable[[Params], Line]:
        return make_validation(run.model, run.info, dataset.test, run.layout, examples=config.log.eval_examples)

    def quality(run: Run) -> Callable[[Params], Line]:
        return make_quality(run.model, run.info, dataset, run.layout)

    hooks: list[callbacks.Callback] = [callbacks.Log(), callbacks.Evaluate(validation), callbacks.Samples()]
    if config.log.quality_every:
        hooks.append(callbacks.Evaluate(quality, name="quality", every="quality_every"))
    hooks += [*callbacks.load(config.log.callbacks), *extra, Progress(), callbacks.Checkpoints(), HtmlReport()]
    return trainer.train(config, workdir, dataset, hooks)


def sample(parsed: flags.FlagValues, overrides: Overrides) -> None:
    """Draws images to a PNG, to an .npz with their labels, or their way from noise to data to a .gif or .webp."""
    cli.need(parsed, "checkpoint", "sample needs --checkpoint: a workdir, one step inside it, or an export")
    outfile = expand(parsed.outfile)
    if outfile.suffix not in (".png", ".npz", *animation.SUFFIXES):
        raise ValueError(f"--outfile={outfile}: the name must end in .png, .npz, {' or '.join(animation.SUFFIXES)}")
    if outfile.exists() and not parsed.overwrite:
        raise FileExistsError(f"{outfile} exists; choose another --outfile, or replace it with --overwrite")
    cli.use_compilation_cache()
    sampler = samplers.load(parsed.checkpoint, average=parsed.average, trust=parsed.trust)
    settings = settings_of(parsed, overrides, sampler.settings)
    asked, draws = _asked(parsed, overrides, sampler.info)
    if outfile.suffix in animation.SUFFIXES:
        settings = settings.replace(times=tuple(np.linspace(0, 1, FRAMES).tolist()))

    def save(drawn: samplers.Samples) -> int:
        return save_samples(outfile, drawn, asked, draws, settings, sampler.info, overwrite=parsed.overwrite)

    try:
        drawn = inputs.draw(sampler, asked, key(parsed.seed), settings, draws=draws)
    except devices.Interrupted as interrupt:
        if interrupt.finished is None:
            raise
        count = save(interrupt.finished)
        raise KeyboardInterrupt(f"the first {count} of {draws * len(asked)} images are in {outfile}") from None
    save(drawn)
    failed = int((~drawn.success).sum())
    logging.info(
        "%d images in %s; %.0f network evaluations per image (both halves of guidance counted)%s",
        len(drawn.images),
        outfile,
        drawn.evaluations.mean(),
        f"; {failed} of them did not reach t = 1: use more steps" if failed else "",
    )


def _asked(parsed: flags.FlagValues, overrides: Overrides, info: RunInfo) -> tuple[inputs.Inputs, int]:
    """The conditions to sample, and how many images for each."""

    def labels(count: int) -> np.ndarray:
        return parse_labels(parsed.label, count, info)

    def test() -> data.ImageDataset:
        return load_data(info.config, overrides, trust=parsed.trust)

    if inputs.told_an_image(info):
        count, given = parsed.n_samples or N_PAIRED, None if parsed.label is None else labels
        if parsed.condition is not None:
            return inputs.of_conditions(info, expand(parsed.condition), count, given), parsed.draws
        if parsed.images is not None:
            return inputs.of_images(info, expand(parsed.images), count, given), parsed.draws
        return inputs.of_test_images(info, test(), count, given), parsed.draws
    for name in ("images", "condition", "draws"):
        if parsed[name].present:
            raise ValueError(f"--{name} has no effect here: this model is told no image; leave it out")
    found = labels(parsed.n_samples or N_SAMPLES)
    if info.conditions is not None:
        split = test().test
        return inputs.Inputs(tell_rows(info, split, rows_like(split, found), found), found), 1
    refuse_data(overrides, "this model is told labels alone, and sampling reads no data")
    return inputs.Inputs(found, found), 1


def save_samples(
    outfile: Path,
    drawn: samplers.Samples,
    asked: inputs.Inputs,
    draws: int,
    settings: Settings,
    info: RunInfo,
    *,
    overwrite: bool,
) -> int:
    """Writes the images as the suffix of `outfile` says, with the labels of as many; returns how many there are."""
    scale, count = max(1, 56 // drawn.images.shape[-3]), len(drawn.images)
    if settings.times is not None:
        frames = animation.grid_frames(np.moveaxis(drawn.images, 1, 0), scale=scale)
        animation.save_animation(outfile, frames, overwrite=overwrite)
    elif outfile.suffix == ".npz":
        labels = np.repeat(asked.labels, draws)[:count]
        with atomic_path(outfile, overwrite=overwrite) as temporary, open(temporary, "wb") as handle:
            np.savez_compressed(handle, images=drawn.images, labels=labels)
    elif inputs.told_an_image(info):
        picture = inputs.picture(info, asked, drawn.images, draws=draws, scale=scale)
        save_png(outfile, picture, overwrite=overwrite)
    else:
        save_png(outfile, image_grid(drawn.images, scale=scale), overwrite=overwrite)
    return count


def evaluate(parsed: flags.FlagValues, overrides: Overrides) -> None:
    """Judges samples, of a checkpoint or from a file, against real images: eval.json, or a sweep over one setting."""
    if (parsed.samples is None) == (parsed.checkpoint is None):
        raise ValueError("eval needs either --checkpoint, a workdir, one step inside it or an export, or --samples")
    request = evaluation.Request(
        n_samples=parsed.n_samples or evaluation.Request.n_samples,
        references=tuple(parsed.reference.split(",")),
        features=parsed.features,
        seed=parsed.seed,
        classes=parsed.classes,
        likelihood_examples=parsed.bits_per_dim,
        likelihood_draws=parsed.bits_draws,
        classify_examples=parsed.classify,
        against=parsed.against,
        paired_examples=parsed.paired,
        paired_draws=parsed.draws,
    )
    if parsed["bits_draws"].present and not parsed.bits_per_dim:
        raise ValueError("--bits_draws has no effect without --bits_per_dim; say for how many images")
    sweeping = sweep.parse(parsed.sweep) if parsed.sweep else None
    cli.use_compilation_cache()
    if parsed.samples is not None:
        cli.need(parsed, "source", "eval of --samples needs --source: the real images, e.g. --source=mnist")
        real = configs.resolve(configs.override({"data": {"source": parsed.source}}, overrides))
        import_modules(real.imports)
        result = evaluation.judge_file(expand(parsed.samples), load_data(real, overrides), request)
        return report(result, expand(f"{parsed.samples}.eval.json"))
    checkpoint, found = locate(parsed.checkpoint), results_folder(parsed.checkpoint)
    sampler = samplers.load(checkpoint, average=parsed.average, trust=parsed.trust)
    settings = settings_of(parsed, overrides, sampler.settings)
    dataset = load_data(sampler.info.config, overrides, trust=parsed.trust)
    folder = _samples_folder(checkpoint)
    if sweeping:
        kind, values = sweeping
        asked = {name for name in cli.SETTINGS if parsed[name].value is not None}
        if (kind == "average" and parsed.average) or kind in asked:
            raise ValueError(f"--sweep={kind} tries several values and --{kind} asks for one; leave it out")
        sweep.run(
            checkpoint, sampler, dataset, request, settings, kind, values,
            folder=folder, found=found, one_solver="solver" in asked,
        )  # fmt: skip
    else:
        teacher = None if parsed.teacher is None else samplers.load(parsed.teacher, trust=parsed.trust)
        result = evaluation.evaluate(sampler, dataset, request, settings, folder=folder, teacher=teacher)
        report(result, found / "eval.json")
    shutil.rmtree(folder, ignore_errors=True)


def _samples_folder(checkpoint: Path) -> Path:
    """Where samples are kept while they are drawn: never a folder that a stranger made."""
    return data_cache() / "samples" / digest(str(checkpoint.resolve()).encode())


def verify(parsed: flags.FlagValues, overrides: Overrides) -> None:
    """Repeats a row of published figures, after training where a config is given; exit code 1 where one differs."""
    if (parsed.config is None) == (parsed.checkpoint is None):
        raise ValueError("verify needs either --checkpoint, e.g. --checkpoint=mnist, or --config, which trains first")
    checkpoint = _workdir(parsed) if parsed.checkpoint is None else locate(parsed.checkpoint)
    published = checkpoint if parsed.published is None else expand(parsed.published)
    row = verification.read_row(published, parsed.row)  # refused now, not after the training
    if parsed.config is not None:
        train(parsed, overrides)
        overrides = ()
    cli.use_compilation_cache()
    sampler = samplers.load(checkpoint, trust=parsed.trust)
    dataset = load_data(sampler.info.config, overrides, trust=parsed.trust or parsed.config is not None)
    folder, seed = _samples_folder(checkpoint), parsed.seed if parsed["seed"].present else None
    compared = verification.verify(sampler, dataset, row, folder=folder, seed=seed)
    shutil.rmtree(folder, ignore_errors=True)
    print("\n".join([verification.HEADER, *map(str, compared)]))
    if differing := [each.name for each in compared if not each.agrees]:
        logging.error("%d of %d figures differ: %s", len(differing), len(compared), ", ".join(differing))
        cli.leave(1)
    logging.info("all %d figures agree", len(compared))


def restore(parsed: flags.FlagValues, overrides: Overrides) -> None:
    """Measures images, restores them, and writes a PNG: truth, measurement, draws, mean, spread."""
    cli.need(parsed, "checkpoint", "restore needs --checkpoint: a workdir, one step inside it, or an export")
    cli.need(parsed, "operator", "restore needs --operator: what is measured, e.g. --operator=mask:hidden=lower_half")
    outfile = expand(parsed.outfile)
    if outfile.suffix != ".png":
        raise ValueError(f"--outfile={outfile}: the name must end in .png")
    if outfile.exists() and not parsed.overwrite:
        raise FileExistsError(f"{outfile} exists; choose another --outfile, or replace it with --overwrite")
    if overrides:
        raise ValueError(f"--config.{overrides[0][0]} has no effect with --mode=restore; leave it out")
    operator, count = restored.parse_operator(parsed.operator), parsed.n_samples or N_RESTORED
    cli.use_compilation_cache()
    sampler = samplers.load(parsed.checkpoint, average=parsed.average, trust=parsed.trust)
    if parsed.images is None:
        test = load_data(sampler.info.config, trust=parsed.trust).test
        images = test.take(np.arange(min(count, len(test)))).images
    else:
        images, _ = inputs.read_images(expand(parsed.images), count, sampler.image_shape)
    labels = None if parsed.label is None else parse_labels(parsed.label, len(images), sampler.info)
    done = restored.measure_and_restore(
        sampler,
        images,
        labels,
        operator,
        key(parsed.seed),
        noise_std=parsed.noise_std,
        draws=parsed.draws,
        method=parsed.method,
        steps=parsed.steps or RESTORING_STEPS,
        weight=1.0 if parsed.weight is None else parsed.weight,
        quiet=False,
    )
    save_png(outfile, done.picture(max(1, 56 // sampler.image_shape[0])), overwrite=parsed.overwrite)
    print("\n".join(f"{name:>28}  {evaluation.value_in_words(value)}" for name, value in done.figures().items()))
    logging.info("a row each in %s: truth, measurement, draws, mean, spread", outfile)


def report(result: Plain, outfile: Path) -> None:
    """Prints the figures and writes them with all that belongs to them."""
    print(evaluation.table(result))
    write_json(outfile, result)
    logging.info("written to %s", outfile)


def export_model(parsed: flags.FlagValues, overrides: Overrides) -> None:
    """Makes a folder that needs nothing of the run: weights, a portable sampler, a model card. `--push` uploads it."""
    cli.need(parsed, "checkpoint", "export needs --checkpoint: a workdir, one step inside it, or an export to --push")
    if parsed.push is not None:
        hub.check_push(parsed.push)
    folder = locate(parsed.checkpoint)
    if parsed.push is not None and is_export(folder):
        for name in ("average", "compact", "out", *cli.SETTINGS):
            if parsed[name].present:
                raise ValueError(
                    f"--{name} has no effect: {folder} is an export, which is pushed as it is; leave it out"
                )
    else:
        cli.need(parsed, "out", "export needs --out: the folder to make, e.g. --out=models/mnist")
        cli.use_compilation_cache()
        refuse_data(overrides, "an export reads no data")

        def change(usual: Settings) -> Settings:
            return settings_of(parsed, overrides, usual)

        options = {"average": parsed.average, "compact": parsed.compact, "trust": parsed.trust}
        folder = export(folder, expand(parsed.out), change=change, **options)
        logging.info("exported to %s; %s says what is in it and how to use it", folder, folder / "README.md")
    if parsed.push is not None:
        logging.info("pushed to %s", hub.push(folder, parsed.push))


def prepare_data(parsed: flags.FlagValues, overrides: Overrides) -> None:
    """Writes a data source as a folder of array_record shards, resized, or goes on with it."""
    cli.need(parsed, "source", "prepare needs --source: what to read, e.g. --source=folder")
    cli.need(parsed, "out", "prepare needs --out: the folder to make, e.g. --out=photos_256")
    if strange := next((name for name, _ in overrides if name.split(".")[:2] != ["data", "params"]), None):
        raise ValueError(f"--config.{strange} has no effect with --mode=prepare; it takes --config.data.params.*")
    streams = {"stream": True} if "stream" in data.SOURCES.parameters(parsed.source) else {}
    plain = {"data": {"source": parsed.source, "params": streams}}
    config = configs.resolve(configs.override(plain, overrides))
    out = expand(parsed.out)
    prepare(load_data(config), out)
    logging.info("prepared; next: --config.data.source=array_record --config.data.params.path=%s", out)


MODES = {
    "train": train,
    "sample": sample,
    "eval": evaluate,
    "export": export_model,
    "restore": restore,
    "prepare": prepare_data,
    "verify": verify,
}
