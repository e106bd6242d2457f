"""Figures of samples, found or repeated: `--mode=eval` and `--mode=verify`."""

import shutil
from pathlib import Path

from absl import flags, logging

from fmd import cli
from fmd import config as configs
from fmd.arguments import Overrides, load_data, settings_of
from fmd.blocks import Plain
from fmd.checkpoints.locate import existing, locate, results_folder
from fmd.commands.training import train, workdir_of
from fmd.evaluation import evaluate as evaluation
from fmd.evaluation import sweep
from fmd.evaluation import verify as verification
from fmd.files import data_cache, digest, expand, write_json
from fmd.registry import import_modules
from fmd.sampling import sampler as samplers


def evaluate(parsed: flags.FlagValues, overrides: Overrides) -> None:
    """Judges samples, of a checkpoint or from a file, against real images: eval.json, or a sweep over one setting."""
    if (parsed.samples is None) == (parsed.checkpoint is None):
        raise ValueError("eval needs either --checkpoint, a workdir, one step of it, an export or mnist, or --samples")
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
    folder = samples_folder(checkpoint)
    teacher = None if parsed.teacher is None else samplers.load(parsed.teacher, trust=parsed.trust)
    if sweeping:
        kind, values = sweeping
        asked = {name for name in cli.SETTINGS if parsed[name].value is not None}
        if (kind == "average" and parsed.average) or kind in asked:
            raise ValueError(f"--sweep={kind} tries several values and --{kind} asks for one; leave it out")
        sweep.run(
            checkpoint, sampler, dataset, request, settings, kind, values,
            folder=folder, found=found, one_solver="solver" in asked, teacher=teacher,
        )  # fmt: skip
    else:
        result = evaluation.evaluate(sampler, dataset, request, settings, folder=folder, teacher=teacher)
        report(result, found / "eval.json")
    shutil.rmtree(folder, ignore_errors=True)


def verify(parsed: flags.FlagValues, overrides: Overrides) -> None:
    """Repeats a row of published figures, after training where a config is given; exit code 1 where one differs."""
    if (parsed.config is None) == (parsed.checkpoint is None):
        raise ValueError("verify needs either --checkpoint, e.g. --checkpoint=mnist, or --config, which trains first")
    checkpoint = workdir_of(parsed) if parsed.checkpoint is None else existing(parsed.checkpoint)
    published = checkpoint if parsed.published is None else expand(parsed.published)
    row = verification.read_row(published, parsed.row)  # refused now, not after the training
    if parsed.config is not None:
        train(parsed, overrides)
        overrides = ()
    cli.use_compilation_cache()
    sampler = samplers.load(checkpoint, average=row["settings"].get("average"), trust=parsed.trust)
    dataset = load_data(sampler.info.config, overrides, trust=parsed.trust or parsed.config is not None)
    folder, seed = samples_folder(checkpoint), parsed.seed if parsed["seed"].present else None
    compared = verification.verify(sampler, dataset, row, folder=folder, seed=seed)
    shutil.rmtree(folder, ignore_errors=True)
    print("\n".join([verification.HEADER, *map(str, compared)]))
    if differing := [each.name for each in compared if not each.agrees]:
        logging.error("%d of %d figures differ: %s", len(differing), len(compared), ", ".join(differing))
        cli.leave(1)
    logging.info("all %d figures agree", len(compared))


def samples_folder(checkpoint: Path) -> Path:
    """Where samples are kept while they are drawn: never a folder that a stranger made."""
    return data_cache() / "samples" / digest(str(checkpoint.resolve()).encode())


def report(result: Plain, outfile: Path) -> None:
    """Prints the figures and writes them with all that belongs to them."""
    print(evaluation.table(result))
    write_json(outfile, result)
    logging.info("written to %s", outfile)
