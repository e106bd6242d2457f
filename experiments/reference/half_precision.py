"""Short trainings in bfloat16 beside float32, both networks, by the seed: is half precision within the seeds' spread?

    python experiments/reference/half_precision.py --seeds 0 1 2 --json=half_precision.json

The 8x8 digits that are installed with fmd, by the recipes of a CPU but for `model.dtype`. A figure is the validation
loss of the averages at the end. Seeds change the start, the noise, the order of the images and what is validated, so
each run in bfloat16 is held against that in float32 of the same seed, and against how far seeds lie apart.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fmd import commands
from fmd import config as configs
from fmd.arguments import resolve_for_this_machine
from fmd.files import write_json

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "unet": ("digits.py", {}),
    "transformer": ("mnist_transformer.py", {"data.source": "digits", "model.patch_size": 2}),
}
DTYPES = ("float32", "bfloat16")


def trained(recipe: str, dtype: str, seed: int, steps: int) -> float:
    """The validation loss after `steps` steps."""
    name, changes = RECIPES[recipe]
    told = {
        **changes,
        "model.dtype": dtype,
        "seed": seed,
        "train.num_steps": steps,
        "checkpoint.every": steps,
        "log.eval_every": 0,
        "log.samples_every": 0,
    }
    overrides = [(key, str(value)) for key, value in told.items()]
    with tempfile.TemporaryDirectory() as workdir:
        commands.train_config(resolve_for_this_machine(configs.load_file(CONFIGS / name), overrides), Path(workdir))
        last = json.loads((Path(workdir) / "validation.jsonl").read_text().splitlines()[-1])
    return float(last["validation_loss"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path, default=Path("half_precision.json"))
    args = parser.parse_args()
    rows: dict[str, object] = {}
    for recipe in RECIPES:
        losses = {dtype: [trained(recipe, dtype, seed, args.steps) for seed in args.seeds] for dtype in DTYPES}
        moved = [half - full for full, half in zip(*(losses[dtype] for dtype in DTYPES), strict=True)]
        spread = statistics.stdev(losses["float32"]) if len(args.seeds) > 1 else None
        rows[recipe] = {"validation_loss": losses, "bfloat16_less_float32": moved, "spread_of_seeds": spread}
        print(recipe, json.dumps(rows[recipe]))
    write_json(args.json, {"steps": args.steps, "seeds": args.seeds, "networks": rows})


if __name__ == "__main__":
    main()
