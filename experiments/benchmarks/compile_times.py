"""How long the programs of a config take to trace and to compile, and to come back from the compilation cache.

    python experiments/benchmarks/compile_times.py digits mnist_baseline mnist --json=compile_times.json

The programs: the training step and the guided sampler (64 images), as the trainer and `--mode=sample` make them.
"compile" starts with an empty cache; "from the cache" is the same compilation again, after all that JAX remembers in
memory has been dropped.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from bench import HERE, machine, save, table
from jax_worker import SHAPES, bare_step, random_dataset, resolve
from start import CONFIGS

from fmd.sampling.sampler import Sampler
from fmd.training import trainer

SAMPLES = 64


def programs(run: trainer.Run) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The jitted functions with arguments for them."""
    step, resident, feed = bare_step(run)
    sampler = Sampler(run.model, run.weights, run.info, run.layout)
    labels, weight = np.arange(SAMPLES, dtype=np.int32) % 10, np.float32(sampler.settings.weight)
    inputs = (sampler.params, None, jax.random.key(0), weight, np.arange(SAMPLES, dtype=np.int32), labels)
    program = sampler.program(sampler.settings)
    return {"training step": (step, (run.state, resident, feed)), "sampler": (program, inputs)}


def stages(program: Any, arguments: tuple[Any, ...]) -> dict[str, float]:
    """Seconds of each stage."""

    def once() -> tuple[float, float]:
        jax.clear_caches()
        started = time.perf_counter()
        lowered = program.trace(*arguments).lower()
        traced = time.perf_counter()
        lowered.compile()
        return traced - started, time.perf_counter() - traced

    (trace, compile_), (_, cached) = once(), once()
    return {"trace": trace, "compile": compile_, "from the cache": cached}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", choices=CONFIGS)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()
    facts, numbers, rows = machine(), {}, []
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", f"{folder}/xla")  # JAX does not change it after its first use
        for name in args.configs:
            config = resolve({"config": str(HERE.parent.parent / "configs" / CONFIGS[name])})
            dataset = random_dataset(SHAPES[config.data.source], count=2048)
            workdir = Path(folder, name)
            workdir.mkdir()
            run = trainer.start(config, workdir, dataset)
            numbers[name] = {what: stages(*each) for what, each in programs(run).items()}
            for what, seconds in numbers[name].items():
                rows.append([f"{name}, {what}", *(f"{value:.1f}" for value in seconds.values())])
    print(table(["", "trace s", "compile s", "from the cache s"], rows))
    save(args.json, {"seconds": numbers, "jax": jax.__version__}, facts)


if __name__ == "__main__":
    main()
