"""Seconds for 1,000 digits of the model `mnist`: by one jump, and by the 20 evaluations of a guided flow, in turn.

    python experiments/benchmarks/jumps.py --json=jumps.json

Both are the same network. Its flow is sampled as that of `configs/mnist_cfg_strong.py`, by five midpoint steps of four
evaluations, guidance among them. A call of the sampler is timed, until the images are NumPy's.
"""

import argparse
import statistics
import time
from pathlib import Path

import jax
import numpy as np
from bench import machine, save, table

import fmd

WAYS = {"one jump": {}, "the flow": {"solver": "midpoint", "steps": 5, "weight": 1.3}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--count", type=int, default=1000, help="digits per call")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()
    facts = machine() | {"jax": jax.__version__}

    sampler, labels = fmd.load("mnist"), np.arange(args.count) % 10
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    evaluations = {}
    for turn in range(args.turns + 1):  # the first compiles
        for name, settings in WAYS.items():
            start = time.perf_counter()
            drawn = sampler.sample(labels, jax.random.key(turn), **settings)
            if turn:
                seconds[name].append(time.perf_counter() - start)
            evaluations[name] = int(drawn.evaluations[0])
    ratios = [flow / jump for jump, flow in zip(*seconds.values(), strict=True)]
    ratio = statistics.median(ratios)
    rows = {
        name: {"evaluations": evaluations[name], "median_seconds": statistics.median(taken), "seconds": taken}
        for name, taken in seconds.items()
    }
    shown = [[name, row["evaluations"], f"{row['median_seconds']:.3f}"] for name, row in rows.items()]
    print(table(["", "evaluations", "seconds"], shown))
    print(f"one jump is {ratio:.1f} times as fast, {min(ratios):.1f} to {max(ratios):.1f}")
    numbers = {"count": args.count, "ways": rows, "ratio": ratio, "ratios": ratios}
    save(args.json, numbers, facts)


if __name__ == "__main__":
    main()
