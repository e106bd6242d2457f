"""Seconds from the shell to the first training step done: with an empty compilation cache, then with a warm one.

    python experiments/benchmarks/start.py digits mnist --json=start.json

Each start is a process of its own, `python -m fmd.main --config=...`, stopped after its first step; the first has an
empty cache folder, the others find what it left. MNIST must be on disk already (run its config once).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
from bench import HERE, machine, save, table

from fmd.training.callbacks import Callback

CONFIGS = {
    "digits": "digits.py",
    "mnist": "mnist_cfg_strong.py",
    "mnist_baseline": "mnist_baseline.py",
    "fashion_mnist": "fashion_mnist.py",
}


class FirstStep(Callback):
    """Says how long ago the benchmark started this process, and stops it."""

    def on_train_start(self, run):
        print(f"\nbefore the first step: {time.time() - float(os.environ['STARTED']):.3f}", flush=True)

    def on_step_end(self, run):
        jax.block_until_ready(run.report)
        print(f"\nfirst step: {time.time() - float(os.environ['STARTED']):.3f}", flush=True)
        run.stop()


def start(config: str, xla_cache: str) -> tuple[float, float]:
    """(seconds to the loop, seconds to the end of the first step)."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fmd.main", f"--config={HERE.parent.parent / 'configs' / config}"]
        command += [f"--workdir={folder}/run", "--config.log.callbacks=('start:FirstStep',)"]
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": xla_cache, "STARTED": str(time.time())}
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE), environment.get("PYTHONPATH", "")])
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    said = dict(line.split(": ") for line in done.stdout.splitlines() if "first step: " in line)
    if len(said) < 2:
        raise RuntimeError(done.stderr[-2000:])
    return float(said["before the first step"]), float(said["first step"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", choices=CONFIGS)
    parser.add_argument("--warm", type=int, default=5, help="starts with a warm cache")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()
    facts, numbers, rows = machine(), {}, []
    for name in args.configs:
        with tempfile.TemporaryDirectory() as xla_cache:
            cold = start(CONFIGS[name], xla_cache)[1]
            loops, firsts = zip(*(start(CONFIGS[name], xla_cache) for _ in range(args.warm)), strict=True)
        warm = statistics.median(firsts)
        numbers[name] = {"cold_seconds": cold, "warm_seconds": firsts, "warm_seconds_to_the_loop": loops}
        rows.append([name, f"{cold:.1f}", f"{warm:.1f}", f"{statistics.median(loops):.1f}"])
    print(table(["config", "cold s", "warm s", "of it to the loop"], rows))
    save(args.json, {"starts": numbers}, facts)


if __name__ == "__main__":
    main()
