"""The side of fmd in a comparison: one task of a config, timed when told (see bench.Worker).

    python experiments/benchmarks/jax_worker.py '{"task": "train", "config": "configs/digits.py", "overrides": {}}'

Tasks: "train" is the step that the trainer runs, with all that it computes for its log; "sample" draws "count" images
by the config's guided sampler with weights that have not been trained. The "train_images" are random numbers: they cost
the same.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from bench import serve

from fmd import config as configs
from fmd import devices
from fmd.data import ImageDataset, Split
from fmd.models import flops
from fmd.sampling.sampler import Sampler
from fmd.training import feed as feeds
from fmd.training import trainer
from fmd.training.step import train_steps

SHAPES = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "tfds": (32, 32, 3)}


def random_dataset(shape: tuple[int, int, int], count: int) -> ImageDataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    split = Split(images, np.arange(count, dtype=np.int32) % 10)
    return ImageDataset("random numbers", split, split, 10, "a generator")


def resolve(order: dict[str, Any]) -> configs.Config:
    raw = configs.load_file(order["config"])
    if jax.default_backend() == "cpu":
        raw = configs.apply_on_cpu(raw)
    return configs.resolve(configs.override(raw, [(k, str(v)) for k, v in order.get("overrides", {}).items()]))


def prepare(order: dict[str, Any]) -> tuple[Callable[[], Any], dict[str, Any]]:
    config = resolve(order)
    shape = tuple(order.get("shape") or SHAPES[config.data.source])
    dataset = random_dataset(shape, order.get("train_images", 2048))
    with tempfile.TemporaryDirectory() as folder:
        run = trainer.start(config, Path(folder), dataset)
    act, facts = prepare_train(run) if order["task"] == "train" else prepare_sample(run, order.get("count", 64))
    facts |= {
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "forward_flops": flops.forward(run.model, shape).total(),  # of an image
        "parameters": sum(p.size for p in jax.tree.leaves(run.state.params)),
        "peak_flops": flops.peak(jax.devices()[0].device_kind) or measured_peak(),
        "settings": settings_of(config, shape),
    }
    return act, facts


def settings_of(config: configs.Config, shape: tuple[int, ...]) -> dict[str, Any]:
    """The part of a config that PyTorch's side is told (torch_worker.py)."""
    return {
        "shape": shape,
        "model": configs.plain(config.model),
        "batch": config.train.batch_size,
        "learning_rate": config.optimizer.learning_rate,
        "clip_norm": config.optimizer.clip_norm,
        "decay": config.ema.decays[0],
        "label_dropout": config.train.label_dropout,
        "margin": config.method.get("margin", 0.0),
        "weight": config.sample.weight,
        "steps": config.sample.steps,
    }


def bare_step(run: trainer.Run) -> tuple[Callable[..., Any], Any, Any]:
    """(the jitted step as the trainer makes it, its resident data, the feed of the first dispatch)."""
    step = partial(train_steps, recipe=run.recipe, axis_name=run.layout.axis_name)
    program = devices.compile_step(step, run.layout, run.shardings)
    feed = devices.place_feed(run.layout, next(feeds.feed(run.config, run.dataset, 0)))
    return program, trainer.resident_arrays(run), feed


def prepare_train(run: trainer.Run) -> tuple[Callable[[], Any], dict[str, Any]]:
    """One call is one dispatch; `images` says of how many images."""
    program, resident, feed = bare_step(run)
    lowered = program.lower(run.state, resident, feed)
    dispatch = run.config.train.steps_per_dispatch
    compiled = lowered.compile()
    memory = compiled.memory_analysis()

    def act() -> None:
        run.state, report = compiled(run.state, resident, feed)
        jax.block_until_ready(report)

    facts = {"images": dispatch * run.config.train.batch_size, "dispatch": dispatch}
    # XLA counts the body of a loop once, so this is one step whatever the dispatch.
    facts["flops"] = dispatch * (lowered.cost_analysis() or {}).get("flops", 0.0)
    facts["program_bytes"] = memory.temp_size_in_bytes + memory.argument_size_in_bytes
    return act, facts


def prepare_sample(run: trainer.Run, count: int) -> tuple[Callable[[], Any], dict[str, Any]]:
    sampler = Sampler(run.model, run.weights, run.info, run.layout)
    labels, key = np.arange(count) % 10, jax.random.key(0)
    return lambda: sampler(labels, key), {"images": count}


def measured_peak(size: int = 3072) -> float:
    """Multiplications and additions per second of a large float32 matrix product: what this device can reach."""
    a = jnp.ones((size, size))
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        product(a).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def device_memory() -> dict[str, Any]:
    """The most bytes in use at once on the first device; none where the backend does not tell."""
    told = jax.devices()[0].memory_stats() or {}
    return {"peak_device_bytes": told.get("peak_bytes_in_use")}


if __name__ == "__main__":
    serve(lambda: prepare(json.loads(sys.argv[1])), device_memory)
