"""The whole trainer against its bare compiled step: data, logging, evaluation, grids and checkpoints included.

    python experiments/benchmarks/trainer.py --json=trainer.json      # MNIST must be on disk: run its config once

Both run the recipe of configs/mnist_cfg_strong.py, in turn, for as many steps as lie between two evaluations of it, so
that what comes every so often counts as often as in a whole run. The bare loop calls the same compiled program on one
batch over and over and waits once, at the end. Compilation is left out on both sides.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import jax
from bench import HERE, machine, save, table
from jax_worker import bare_step, resolve

from fmd import cli, commands, data
from fmd.training import trainer
from fmd.training.callbacks import Callback


class Clock(Callback):
    """When the first step was done."""

    def on_step_end(self, run):
        if not hasattr(self, "started"):
            jax.block_until_ready(run.report)
            self.started, self.first = time.perf_counter(), run.step


def whole(config) -> tuple[float, float]:
    """(seconds per step of the trainer, of these what evaluation, grids and checkpoints took)."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        run = commands.train_config(config, Path(folder) / "run", [clock])
        seconds = time.perf_counter() - clock.started
    steps = run.step - clock.first
    beside = sum(spent for what, spent in run.seconds.items() if what != "compilation")
    return seconds / steps, beside / steps


def bare_loop(config):
    """A function from a number of dispatches to seconds per step."""
    dataset = data.load(config.data.source, **config.data.params)
    with tempfile.TemporaryDirectory() as folder:
        run = trainer.start(config, Path(folder), dataset)
    program, resident, feed = bare_step(run)
    state, _ = program(run.state, resident, feed)

    def loop(dispatches: int) -> float:
        nonlocal state
        started = time.perf_counter()
        for _ in range(dispatches):
            state, report = program(state, resident, feed)
        jax.block_until_ready(report)
        return (time.perf_counter() - started) / dispatches / config.train.steps_per_dispatch

    return loop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()
    facts = machine()
    cli.use_compilation_cache()
    order = {"config": str(HERE.parent.parent / "configs" / "mnist_cfg_strong.py")}
    every = resolve(order).log.eval_every
    config = resolve(order | {"overrides": {"train.num_steps": every}})
    loop, found = bare_loop(config), []
    for _ in range(args.repeats):
        found.append((*whole(config), loop(every // config.train.steps_per_dispatch)))
    rows, numbers = [], []
    for total, beside, bare in found:
        numbers.append({"trainer": total, "of_it_beside_the_steps": beside, "bare": bare})
        rows.append([f"{total * 1e3:.1f}", f"{beside * 1e3:.1f}", f"{bare * 1e3:.1f}", f"{total / bare:.3f}",
                     f"{(total - beside) / bare:.3f}"])  # fmt: skip
    print(table(["trainer ms/step", "of it beside", "bare ms/step", "ratio", "without what is beside"], rows))
    ratios = {
        "ratio": statistics.median(n["trainer"] / n["bare"] for n in numbers),
        "ratio_without_beside": statistics.median(
            (n["trainer"] - n["of_it_beside_the_steps"]) / n["bare"] for n in numbers
        ),
    }
    print(", ".join(f"{name} {value:.3f}" for name, value in ratios.items()))
    save(args.json, {"seconds_per_step": numbers, "steps": every, **ratios}, facts | {"jax": jax.__version__})


if __name__ == "__main__":
    main()
