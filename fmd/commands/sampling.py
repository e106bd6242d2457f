"""Images of a trained model, `--mode=sample`."""

from pathlib import Path

import numpy as np
from absl import flags, logging

from fmd import cli, data, devices
from fmd.arguments import Overrides, load_data, outfile_of, parse_labels, refuse_data, settings_of
from fmd.config import Settings
from fmd.files import atomic_path, expand
from fmd.pictures import animation
from fmd.pictures.grids import image_grid, save_png
from fmd.randomness import key
from fmd.run_info import RunInfo
from fmd.sampling import inputs
from fmd.sampling import sampler as samplers
from fmd.telling import rows_like, tell_rows

N_SAMPLES, N_PAIRED = 64, 8
FRAMES = 41  # of an animation; what most solvers have as steps divides 40


def sample(parsed: flags.FlagValues, overrides: Overrides) -> None:
    """Draws images to a PNG, to an .npz with their labels, or their way from noise to data to a .gif or .webp."""
    cli.need(parsed, "checkpoint", "sample needs --checkpoint: a workdir, one step inside it, an export, or mnist")
    outfile = outfile_of(parsed, (".png", ".npz", *animation.SUFFIXES))
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
        "%d images in %s; network evaluations per image: %.0f (both halves of guidance counted)%s",
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
