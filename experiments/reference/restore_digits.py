"""Test digits measured, restored by a trained model that is not told their labels, and read by a classifier.

    accuracy    of fmd's classifier on single draws, and on their mean; on the digits themselves it is 99.6 %
    coverage    pixels of the truth within 3 standard deviations of the mean of the draws
    seconds     for all draws, the compilation included

The picture has an operator below the other and its noises side by side: truth, measurement, draws, mean and spread.

python experiments/reference/restore_digits.py runs/mnist_cfg_strong
"""

import argparse
from pathlib import Path

import numpy as np

from fmd.data import load as load_data
from fmd.evaluation.features import domain
from fmd.evaluation.restored import Restored, measure_and_restore, parse_operator
from fmd.files import write_json
from fmd.pictures.grids import save_png
from fmd.randomness import key
from fmd.sampling.sampler import load

HERE = Path(__file__).parent
OPERATORS = {
    "lower half hidden": "mask:hidden=lower_half",
    "4x super-resolution": "block_average:factor=4",
    "blur of 2 pixels": "blur:std=2.0",
}
NOISE = (0.1, 0.5)
SHOWN = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a run or an export of a model of MNIST or Fashion-MNIST")
    parser.add_argument("--methods", default="flower", help="separated by commas")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=123)
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder")
    args = parser.parse_args()

    sampler = load(args.checkpoint)
    source = sampler.info.config.data.source
    test, classifier = load_data(source).test.take(np.arange(args.images)), domain.load(source)
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    settings["checkpoint"] = args.checkpoint.name
    rows: list[dict[str, object]] = []
    pictures: dict[str, list[np.ndarray]] = {operator: [] for operator in OPERATORS}
    for operator, words in OPERATORS.items():
        for noise_std in NOISE:
            for method in args.methods.split(","):
                done = measure_and_restore(
                    sampler, test.images, None, parse_operator(words), key(args.seed),
                    noise_std=noise_std, draws=args.draws, method=method, steps=args.steps,
                )  # fmt: skip
                found = {"of_draw": done.draws, "of_mean": np.round(done.mean).astype(np.uint8)[:, None]}
                row = {"operator": operator, "noise_std": noise_std, "method": method} | done.figures()
                for name, images in found.items():
                    read = domain.classify(classifier, images.reshape(-1, *sampler.image_shape))
                    right = read.reshape(args.images, -1) == test.labels[:, None]
                    row[f"accuracy_{name}"] = float(right.mean())
                rows.append(row)
                print(
                    f"| {operator}, s = {noise_std} | {method} | {row['accuracy_of_draw']:.1%} | "
                    f"{row['accuracy_of_mean']:.1%} | {row['psnr_of_mean']:.1f} | {row['psnr_of_draw']:.1f} | "
                    f"{row['coverage']:.1%} | {row['seconds']:.0f} |",
                    flush=True,
                )
                write_json(args.out / "restore_digits.json", {"settings": settings, "rows": rows})
                few = Restored(*(part[:SHOWN] for part in (done.truth, done.measured, done.draws)), done.seconds)
                pictures[operator].append(few.picture(2))
    picture = np.concatenate([np.concatenate(part, axis=1) for part in pictures.values()])
    save_png(args.out / "restore_digits.png", picture, overwrite=True)


if __name__ == "__main__":
    main()
