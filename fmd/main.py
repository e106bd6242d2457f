"""The command line: flags to one function per mode.

    python -m fmd.main --config=configs/mnist_cfg_strong.py [--workdir=runs/NAME] [--config.train.num_steps=500]
    python -m fmd.main --mode=sample --checkpoint=runs/NAME --n_samples=64 --outfile=samples.png [--label=7 --weight=3]
    python -m fmd.main --mode=eval   --checkpoint=runs/NAME
    python -m fmd.main --mode=export --checkpoint=runs/NAME --out=models/NAME
    python -m fmd.main --mode=restore --checkpoint=runs/NAME --operator=mask:hidden=lower_half --outfile=restored.png
    python -m fmd.main --mode=prepare --source=folder --config.data.params.path=photos --out=photos_256
    python -m fmd.main --mode=verify --checkpoint=mnist

This file is short on purpose: each mode is one function in `fmd.commands`, imported only when it runs.
"""

import sys
import traceback
from collections.abc import Sequence

from absl import app, flags, logging

from fmd import cli

FLAGS = flags.FLAGS
flags.DEFINE_enum("mode", "train", ["train", "sample", "eval", "export", "restore", "prepare", "verify"], "What to do.")
flags.DEFINE_string("config", None, "Config file (train). Override a key with --config.key=value.")
flags.DEFINE_string("workdir", None, "Folder of the run (train). Default: runs/<name of the config file>.")
flags.DEFINE_string(
    "checkpoint", None, "A workdir, one step inside it, an export, a shipped model (mnist), or hf://owner/name."
)
flags.DEFINE_string("average", None, "Average of the weights: a name, or std=0.1 for any width. Default: the first.")
flags.DEFINE_integer(
    "n_samples", None, "How many images. Default: 64 (sample), 5000 (eval).", lower_bound=1, upper_bound=2**31 - 1
)
flags.DEFINE_string("outfile", "samples.png", "A .png, .npz arrays `images` and `labels`, or a .gif or .webp (sample).")
flags.DEFINE_string(
    "label", None, "A class by name or number, several as 1,2,3, or `null` for unconditional; default: all in turn."
)
flags.DEFINE_float("weight", None, "Guidance weight: 1 conditional, 0 unconditional. Default: the config's.")
flags.DEFINE_string("solver", None, "Solver (sample, eval). Default: the config's.")
flags.DEFINE_integer("steps", None, "Solver steps (sample, eval). Default: the config's.")
flags.DEFINE_float("shift", None, "Time shift of the solver's grid: above 1 has more steps near noise (sample, eval).")
flags.DEFINE_float("tolerance", None, "Error that an adaptive solver allows (sample, eval). Default: 1e-5.")
flags.DEFINE_integer("seed", 0, "Seed of the noise (sample, eval).", lower_bound=0, upper_bound=2**31 - 1)
flags.DEFINE_bool("overwrite", False, "Replace --outfile if it exists.")
flags.DEFINE_string("samples", None, "An .npz of images and labels to judge in place of a checkpoint's (eval).")
flags.DEFINE_string("source", None, "Data source: of the real images for --samples (eval), of what is prepared.")
flags.DEFINE_string("reference", "test", "Real images to compare with: test, train, or test,train (eval).")
flags.DEFINE_string("features", "auto", "Compared by: auto, domain, pixels, blocks, inception, or yours (eval).")
flags.DEFINE_integer("bits_per_dim", 0, "Test images whose likelihood is computed: slow (eval).", lower_bound=0)
flags.DEFINE_integer("bits_draws", 1, "Dequantisations of each of them: a tighter bound, much slower.", lower_bound=1)
flags.DEFINE_enum(
    "classes",
    "reference",
    ["reference", "balanced"],
    "Ask for classes as often as the first --reference has, or equally.",
)
flags.DEFINE_string("teacher", None, "A model whose images from the same noise are compared with, e.g. a run (eval).")
flags.DEFINE_string("sweep", None, "Quality against weight, steps, shift or average; also weight=1,2,3 (eval).")
flags.DEFINE_integer("classify", 0, "Test images that the model itself classifies (eval).", lower_bound=0)
flags.DEFINE_string("against", None, "Data source whose images shall look strange, e.g. fashion_mnist (eval).")
flags.DEFINE_string("operator", None, "What is measured: mask:hidden=lower_half, block_average:factor=4, blur:std=2.")
flags.DEFINE_float("noise_std", 0.1, "Noise of the measurement, for pixels in [-1, 1] (restore).", lower_bound=0.0)
flags.DEFINE_string("method", "tweedie", "tweedie, pigdm, flower, projection, d_flow, or yours (restore).")
flags.DEFINE_integer("draws", 4, "Answers for each image (restore, sample and eval of paired tasks).", lower_bound=1)
flags.DEFINE_string("images", None, "A folder or an .npz of images to measure and restore. Default: test images.")
flags.DEFINE_string("condition", None, "A folder or an .npz of the conditions themselves, by name (sample).")
flags.DEFINE_integer("paired", 0, "Test images compared with what is made of their condition (eval).", lower_bound=0)
flags.DEFINE_string("out", None, "Folder to make (export, prepare).")
flags.DEFINE_string("push", None, "hf://owner/name: the model on the Hub to upload the export to (export).")
flags.DEFINE_bool("compact", False, "Weights once, in float16, and no portable program (export).")
flags.DEFINE_string("published", None, "Figures to repeat: an eval.json. Default: those of the export (verify).")
flags.DEFINE_string("row", None, "Row of the published figures of an export. Default: its first (verify).")
flags.DEFINE_string("coordinator", None, "host:port of process 0 of several, or auto where JAX knows the cluster.")
flags.DEFINE_integer("num_processes", None, "How many processes train together.")
flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")
flags.DEFINE_bool("trust", False, "Run code that a checkpoint names: its imports, its TFDS data set.")
flags.DEFINE_bool("traceback", False, "Show the whole traceback of an error instead of one line.")


def main(argv: Sequence[str], overrides: Sequence[tuple[str, str]]) -> None:
    if len(argv) > 1:
        raise ValueError(f"unexpected argument {argv[1]!r}; every option is a flag, see --help")
    cli.check_flags(FLAGS, overrides)
    logging.set_verbosity(logging.INFO)
    cli.log_plainly()

    from fmd import commands  # after the flags are known to be good: this import loads JAX

    commands.MODES[FLAGS.mode](FLAGS, overrides)


def run() -> None:
    """Entry point of `fmd` and `python -m fmd.main`. Exit code 2, and one line, for what the user can put right."""
    cli.use_huge_pages()
    arguments, overrides = cli.split_overrides(sys.argv)
    try:
        app.run(lambda argv: main(argv, overrides), argv=arguments, flags_parser=cli.parse_flags)
    except KeyboardInterrupt as interrupt:
        print(": ".join(["fmd: interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        cli.leave(130, at_once=True)
    except Exception as error:
        if (FLAGS.is_parsed() and FLAGS.traceback) or not cli.is_users_to_fix(error):
            traceback.print_exc()
            cli.leave(1)
        print(f"fmd: {cli.one_line(error)}", file=sys.stderr)
        cli.leave(2)


if __name__ == "__main__":
    run()
