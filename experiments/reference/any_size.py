"""Folders of drawn shapes in three sizes, each trained by configs/folder.py: not square, odd, grey and in colour.

    grey, 20x36        narrow images in steps of two
    colour, 27x41      odd in both directions
    grey, 33x33        square and odd

Discs, squares and triangles are the classes, of any place, size and shade. The picture has five draws of each class
from each of the three models; the validation losses are in the JSON beside it.

python experiments/reference/any_size.py --out=any_size.png
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fmd import commands
from fmd import config as configs
from fmd.arguments import resolve_for_this_machine
from fmd.files import write_json
from fmd.pictures.grids import image_grid, save_png
from fmd.randomness import key
from fmd.sampling.sampler import load

CONFIG = Path(__file__).parents[2] / "configs" / "folder.py"
SIZES = {"grey_20x36": (20, 36, 1), "colour_27x41": (27, 41, 3), "grey_33x33": (33, 33, 1)}
CLASSES = ("disc", "square", "triangle")
FINER = 4  # pixels drawn per pixel, which soften the edges
SHOWN = 5


def shape_image(rng: np.random.Generator, kind: str, height: int, width: int, channels: int) -> Image.Image:
    """One shape of a kind on a darker ground."""
    ground, shade = (tuple(int(v) for v in rng.integers(*span, 3)) for span in ((0, 60), (120, 256)))
    image = Image.new("RGB", (width * FINER, height * FINER), ground)
    radius = FINER * min(height, width) * rng.uniform(0.2, 0.4)
    x, y = (rng.uniform(radius, FINER * n - radius) for n in (width, height))
    draw = ImageDraw.Draw(image)
    if kind == "disc":
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=shade)
    elif kind == "square":
        draw.rectangle((x - radius, y - radius, x + radius, y + radius), fill=shade)
    else:
        draw.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=shade)
    small = image.resize((width, height), Image.Resampling.LANCZOS)
    return small.convert("L") if channels == 1 else small


def draw_folder(folder: Path, per_class: int, height: int, width: int, channels: int) -> None:
    rng = np.random.default_rng(0)
    for kind in CLASSES:
        (folder / kind).mkdir(parents=True)
        for n in range(per_class):
            shape_image(rng, kind, height, width, channels).save(folder / kind / f"{n}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("any_size.png"), help="the picture; its JSON lies beside it")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--per_class", type=int, default=600)
    args = parser.parse_args()
    grids, rows = [], {}
    with tempfile.TemporaryDirectory() as work:
        for name, (height, width, channels) in SIZES.items():
            folder, workdir = Path(work) / name, Path(work) / f"run_{name}"
            draw_folder(folder, args.per_class, height, width, channels)
            params = {"path": str(folder), "image_size": (height, width), "channels": channels}
            changes = {
                "data.params": params,
                "train.num_steps": args.steps,
                "checkpoint.every": args.steps,
                "optimizer.warmup_steps": args.steps // 20,
                "log.eval_every": 0,
                "log.samples_every": 0,
            }
            overrides = [(name, str(value)) for name, value in changes.items()]
            config = resolve_for_this_machine(configs.load_file(CONFIG), overrides)
            commands.train_config(config, workdir)
            labels = np.repeat(np.arange(len(CLASSES)), SHOWN)
            drawn = load(workdir)(labels, key(123), weight=2.0)
            last = json.loads((workdir / "validation.jsonl").read_text().splitlines()[-1])
            rows[name] = {"image_shape": drawn.shape[1:], "validation_loss": last["validation_loss"]}
            grid = image_grid(drawn, columns=SHOWN, scale=2)
            grids.append(np.broadcast_to(grid, (*grid.shape[:2], 3)))
    widest = max(grid.shape[1] for grid in grids)
    padded = [np.pad(grid, ((0, 6), (0, widest - grid.shape[1]), (0, 0)), constant_values=255) for grid in grids]
    save_png(args.out, np.concatenate(padded), overwrite=True)
    write_json(args.out.with_suffix(".json"), {"steps": args.steps, "per_class": args.per_class, "models": rows})


if __name__ == "__main__":
    main()
