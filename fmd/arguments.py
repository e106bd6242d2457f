"""From flags and `--config.*` overrides to what the commands work with: a config, settings, data, labels."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from absl import flags, logging

from fmd import cli, data
from fmd import config as configs
from fmd.blocks import Plain, as_plain
from fmd.config import Config, Settings
from fmd.data.inspection import class_of
from fmd.files import expand
from fmd.run_info import RunInfo
from fmd.sampling.checks import refuse_without_effect

Overrides = Sequence[tuple[str, str]]
SHOWN = 20  # classes in a line of the log


def resolve_for_this_machine(file_config: Plain, overrides: Overrides) -> Config:
    """The file's config, its `on_cpu` block where there is no accelerator, then the command line's overrides.

    Overrides of keys inside `on_cpu` change that block before it is used. An accelerator checks the block, too.
    """
    inside = [pair for pair in overrides if pair[0].split(".")[0] == "on_cpu"]
    file_config = configs.override(file_config, inside)
    if file_config.get("on_cpu"):
        smaller = configs.apply_on_cpu(file_config)
        if jax.default_backend() == "cpu":
            logging.info("no accelerator: using the config's on_cpu block (refuse with --config.on_cpu=None)")
            file_config = smaller
        else:
            configs.resolve(smaller)
        file_config = {**file_config, "on_cpu": None}  # a block that was used would undo what the overrides say
    outside = [pair for pair in overrides if pair not in inside]
    config = configs.resolve(configs.override(file_config, outside))
    refuse_without_effect(config.sample, [name.removeprefix("sample.") for name, _ in outside])
    return config


def settings_of(parsed: flags.FlagValues, overrides: Overrides, usual: Settings) -> Settings:
    """The settings of a run, changed by `--config.sample.*` and by the flags that are short names of them.

    Raises ValueError for an override of anything else but data, or a value that does not fit.
    """
    for name, _ in overrides:
        if name.split(".")[0] not in ("sample", "data"):
            raise ValueError(f"--config.{name} only goes with --mode=train; a checkpoint carries its config")
    overrides = [pair for pair in overrides if pair[0].split(".")[0] == "sample"]
    changed = configs.override({"sample": as_plain(usual)}, overrides)
    settings = configs.resolve(changed).sample
    short = {name: parsed[name].value for name in cli.SETTINGS if parsed[name].value is not None}
    settings = settings.replace(**short)
    refuse_without_effect(settings, [*short, *(name.removeprefix("sample.") for name, _ in overrides)])
    return settings


def load_data(config: Config, overrides: Overrides = (), *, trust: bool = True) -> data.ImageDataset:
    """The data set of a config, or where `--config.data.source` and `--config.data.params.*` say that it lies.

    Raises ValueError, without `trust`, for a source that runs code which the config names, and for other keys of data.
    """
    given = [pair for pair in overrides if pair[0].split(".")[0] == "data"]
    for name, _ in given:
        if name.split(".")[1:2] not in (["source"], ["params"]):
            raise ValueError(f"--config.{name} only goes with --mode=train; of data give the source and its params")
    chosen = configs.resolve(configs.override({"data": as_plain(config.data)}, given)).data
    named = {name for name, _ in given}  # by the caller
    theirs = chosen.params.keys() - {name.removeprefix("data.params.") for name in named}
    if chosen.source == "tfds" and not trust and theirs and "data.params" not in named:
        raise ValueError(
            f"the checkpoint names the TFDS set {chosen.params.get('name')!r}, and opening one can run code of "
            f"whoever made it; if you trust the checkpoint, say --trust"
        )
    try:
        return data.load(chosen.source, **chosen.params)
    except FileNotFoundError as error:
        if "path" in chosen.params and not expand(chosen.params["path"]).exists():
            error.add_note(f"from --config.data.params.path={chosen.params['path']}; give the path of your data")
        raise


def refuse_data(overrides: Overrides, why: str) -> None:
    """Raises ValueError for a first override of data, which would have no effect."""
    for name, _ in overrides:
        if name.split(".")[0] == "data":
            raise ValueError(f"--config.{name} has no effect here: {why}; leave it out")


def outfile_of(parsed: flags.FlagValues, suffixes: Sequence[str]) -> Path:
    """The file to write. ValueError for a name with another suffix, FileExistsError for one that is there already."""
    outfile = expand(parsed.outfile)
    if outfile.suffix not in suffixes:
        *others, last = suffixes
        allowed = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(f"--outfile={outfile}: the name must end in {allowed}")
    if outfile.exists() and not parsed.overwrite:
        raise FileExistsError(f"{outfile} exists; choose another --outfile, or replace it with --overwrite")
    return outfile


def parse_labels(text: str | None, count: int, info: RunInfo) -> np.ndarray:
    """`count` labels, int32: the given names or numbers in turn, or all classes with training images in turn."""
    parts = [text] if text is None or info.label_of(text) is not None else text.split(",")  # a name may have commas
    chosen = info.classes if text is None else [info.label_of(part) for part in parts if part is not None]
    if any(label is None or label > info.num_classes > 0 for label in chosen):
        names = (info.class_names or ())[:8]
        shown = f"by name or number {', '.join(names)}{', ...' if len(names) < info.num_classes else ''}"
        known = shown if names else f"0 to {info.num_classes - 1}"
        raise ValueError(f"--label={text}; give a class, several as 1,2,3, or null; known are {known}")
    labels = np.array(chosen, np.int32)
    if empty := sorted(set(labels.tolist()) & set(info.empty_classes or ())):
        logging.warning("no training image had the label %s: nothing was learnt of it", ", ".join(map(str, empty)))
    if info.class_names is not None:
        told = [class_of(k, info.class_names[k]) for k in dict.fromkeys(labels.tolist()) if k < info.num_classes]
        logging.info("classes in turn: %s%s", ", ".join(told[:SHOWN]), ", ..." if len(told) > SHOWN else "")
    return np.resize(labels, count)
