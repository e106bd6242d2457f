"""Folders for others: a model, `--mode=export`, and a data set for streaming, `--mode=prepare`."""

from absl import flags, logging

from fmd import cli, data
from fmd import config as configs
from fmd.arguments import Overrides, load_data, refuse_data, settings_of
from fmd.checkpoints import hub
from fmd.checkpoints.locate import locate
from fmd.checkpoints.weights import is_export
from fmd.config import Settings
from fmd.data.prepare import prepare
from fmd.export.exporter import export
from fmd.files import expand
from fmd.run_info import RunInfo
from fmd.sampling import inputs
from fmd.sampling.overview import Overview

DRAWS = 4  # of a test image, in the picture of a model that is told one


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

        def change(usual: Settings) -> Settings:
            return settings_of(parsed, overrides, usual)

        def overview(info: RunInfo) -> Overview:
            if not inputs.told_an_image(info):
                refuse_data(overrides, "an export reads no data but to show what a model that is told an image makes")
                return Overview.of(info, None)
            try:
                return Overview.of(info, load_data(info.config, overrides, trust=parsed.trust), DRAWS)
            except (OSError, ValueError) as error:
                if any(name.split(".")[0] == "data" for name, _ in overrides):  # somebody said where it lies
                    raise
                logging.warning("the picture is of a model that is told nothing, for want of its data set: %s", error)
                return Overview.of(info, None)

        options = {"average": parsed.average, "compact": parsed.compact, "trust": parsed.trust}
        folder = export(folder, expand(parsed.out), change=change, overview=overview, **options)
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
