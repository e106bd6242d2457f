"""Images from measurements of them, `--mode=restore`."""

import numpy as np
from absl import flags, logging

from fmd import cli
from fmd.arguments import Overrides, load_data, outfile_of, parse_labels
from fmd.evaluation import evaluate as evaluation
from fmd.evaluation import restored
from fmd.files import expand
from fmd.pictures.grids import save_png
from fmd.randomness import key
from fmd.sampling import inputs
from fmd.sampling import sampler as samplers

N_RESTORED, RESTORING_STEPS = 8, 100


def restore(parsed: flags.FlagValues, overrides: Overrides) -> None:
    """Measures images, restores them, and writes a PNG: truth, measurement, draws, mean, spread."""
    cli.need(parsed, "checkpoint", "restore needs --checkpoint: a workdir, one step inside it, an export, or mnist")
    cli.need(parsed, "operator", "restore needs --operator: what is measured, e.g. --operator=mask:hidden=lower_half")
    outfile = outfile_of(parsed, (".png",))
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
    print(evaluation.table({"figures": done.figures()}))
    logging.info("a row each in %s: truth, measurement, draws, mean, spread", outfile)
