"""Real training images as if they were samples: the floor below which a difference to the test split is noise.

python experiments/reference/real_images.py mnist real.npz
python -m fmd.main --mode=eval --samples=real.npz --source=mnist
"""

import argparse
from pathlib import Path

import numpy as np

from fmd import data
from fmd.data.split import hold_out
from fmd.files import atomic_path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a data source, e.g. mnist")
    parser.add_argument("out", type=Path, help="the .npz to write")
    parser.add_argument("--per_class", type=int, default=500)
    args = parser.parse_args()
    train = data.load(args.source).train
    chosen = hold_out(train.labels, lambda count: min(args.per_class, count))
    with atomic_path(args.out) as temporary, open(temporary, "wb") as file:
        np.savez(file, images=train.images[chosen], labels=train.labels[chosen])


if __name__ == "__main__":
    main()
