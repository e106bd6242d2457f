"""Images per second of a training step (forward, backward, Adam, EMA) for variants of the network and its compilation.

    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python experiments/benchmarks/train_step.py models --seconds=20

All variants of a group are compiled first and then run in turn, step by step, in one process: what else the machine
does meets all of them alike. Ratios of medians are against the first variant. "cpu" is processor time per step over
all threads, the steadier number on a shared machine; "best" is the fastest step, the one nearest to a quiet machine.
"""

import argparse
import math
import os
import resource
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from bench import machine, save

from fmd.devices import cpu_compiler_options
from fmd.models.registry import build_model

MNIST = {"patch_size": 2, "base_channels": 48, "num_res_blocks": 1, "embedding_dim": 192}


def with_ynn(*kinds: str) -> dict[str, str]:
    """Hands these kinds of operations to the YNN library."""
    return {"xla_cpu_experimental_ynn_fusion_type": ",".join(f"LIBRARY_FUSION_TYPE_{kind}" for kind in kinds)}


REDUCE = with_ynn("REDUCE")


@dataclass
class Variant:
    """A candidate: a network, compiler options, and a patch that is in force while it is traced."""

    model: dict[str, Any] = field(default_factory=lambda: MNIST)
    options: dict[str, Any] | None = None  # None: cpu_compiler_options()
    patch: Callable[[], AbstractContextManager] = nullcontext


class FlaxGroupNorm(nn.Module):
    """The plain form: Flax's group normalisation, then scale and shift."""

    @nn.compact
    def __call__(self, x, condition=None):
        groups = math.gcd(32, x.shape[-1])
        h = nn.GroupNorm(groups, epsilon=1e-5, use_fast_variance=False, name="norm")(x)
        if condition is None:
            return h
        scale, shift = jnp.split(condition[:, None, None, :], 2, axis=-1)
        return h * (1 + scale) + shift


def with_flax_group_norm() -> AbstractContextManager:
    return mock.patch.multiple("fmd.models.unet", GroupNorm=FlaxGroupNorm)


GROUPS = {
    "options": {
        "fmd's options": Variant(),
        "none": Variant(options={}),
        "reductions only": Variant(options=REDUCE),
        "and convolutions": Variant(options=with_ynn("INDIVIDUAL_DOT", "REDUCE", "INDIVIDUAL_CONVOLUTION")),
        "and elementwise": Variant(options=with_ynn("INDIVIDUAL_DOT", "REDUCE", "ELTWISE")),
        "and fast math": Variant(options={**REDUCE, "xla_cpu_enable_fast_math": True}),
    },
    "norm": {"one pass": Variant(), "flax.linen.GroupNorm": Variant(patch=with_flax_group_norm)},
    "models": {
        "patch 2, 48 96": Variant(),
        "patch 2, 64 64": Variant({**MNIST, "base_channels": 64, "channel_multipliers": (1, 1)}),
        "patch 2, 64 128": Variant({**MNIST, "base_channels": 64}),
        "patch 2, 32 96": Variant({**MNIST, "base_channels": 32, "channel_multipliers": (1, 3)}),
        "patch 2, 32 128": Variant({**MNIST, "base_channels": 32, "channel_multipliers": (1, 4)}),
        "patch 4, 128": Variant({**MNIST, "patch_size": 4, "base_channels": 128, "channel_multipliers": (1,)}),
        "patch 1, 32 64 96": Variant({**MNIST, "patch_size": 1, "base_channels": 32, "channel_multipliers": (1, 2, 3)}),
        "patch 2, 48 96, bfloat16": Variant({**MNIST, "dtype": "bfloat16"}),
    },
    "digits": {
        "32 64": Variant({"base_channels": 32, "num_res_blocks": 1, "embedding_dim": 128}),
        "48 96": Variant({"base_channels": 48, "num_res_blocks": 1, "embedding_dim": 128}),
        "64 128": Variant({"base_channels": 64, "num_res_blocks": 1, "embedding_dim": 128}),
        "patch 2, 96": Variant({**MNIST, "base_channels": 96, "channel_multipliers": (1,)}),
    },
}


@dataclass
class Compiled:
    step: Any
    state: Any
    arguments: tuple
    parameters: int
    compile_seconds: float
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def run(self) -> None:
        before, start = processor_seconds(), time.perf_counter()
        self.state, loss = self.step(self.state, *self.arguments)
        loss.block_until_ready()
        self.seconds.append(time.perf_counter() - start)
        self.cpu_seconds.append(processor_seconds() - before)


def prepare(variant: Variant, batch: int, shape: tuple[int, int, int]) -> Compiled:
    """The compiled step and everything that it needs."""
    optimizer = optax.adam(2e-3)

    def step(state: Any, x1: jax.Array, y: jax.Array, key: jax.Array) -> tuple[Any, jax.Array]:
        params, moments, average = state
        noise_key, time_key = jax.random.split(key)
        x0, t = jax.random.normal(noise_key, x1.shape), jax.random.uniform(time_key, (batch,))
        x_t = t[:, None, None, None] * x1 + (1 - t[:, None, None, None]) * x0

        def loss_of(params: Any) -> jax.Array:
            return jnp.mean(jnp.square(model.apply(params, x_t, t, y, train=True) - (x1 - x0)))

        loss, gradient = jax.value_and_grad(loss_of)(params)
        updates, moments = optimizer.update(gradient, moments, params)
        params = optax.apply_updates(params, updates)
        return (params, moments, optax.incremental_update(params, average, 0.01)), loss

    key = jax.random.key(0)
    x1, y = jax.random.uniform(key, (batch, *shape), minval=-1), jnp.arange(batch) % 10
    with variant.patch():
        model = build_model("unet", variant.model)
        params = jax.jit(model.init)(key, x1[:1], jnp.zeros(1), y[:1])
        state = (params, optimizer.init(params), jax.tree.map(jnp.copy, params))
        options = cpu_compiler_options() if variant.options is None else variant.options
        start = time.perf_counter()
        compiled = jax.jit(step, donate_argnums=0, compiler_options=options).lower(state, x1, y, key).compile()
    seconds = time.perf_counter() - start
    return Compiled(compiled, state, (x1, y, key), sum(p.size for p in jax.tree.leaves(params)), seconds)


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, help="height and width; 28, or 8 for the group digits")
    parser.add_argument("--seconds", type=float, default=20, help="time to measure, per variant")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()
    facts = machine() | {"jax": jax.__version__, "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "")}

    size = args.size or (8 if args.group == "digits" else 28)
    runs = {name: prepare(variant, args.batch, (size, size, 1)) for name, variant in GROUPS[args.group].items()}
    for run in runs.values():
        run.run()  # not counted
        run.seconds.clear()
        run.cpu_seconds.clear()
    end = time.monotonic() + args.seconds * len(runs)
    while time.monotonic() < end:
        for run in runs.values():
            run.run()

    rows, first = {}, None
    columns = ("parameters", "images/s", "best", "cpu ms", "ratio", "cpu ratio", "compile s")
    print(f"{'variant':26}" + "".join(f"{column:>11}" for column in columns))
    for name, run in runs.items():
        median, best, cpu = statistics.median(run.seconds), min(run.seconds), statistics.median(run.cpu_seconds)
        first = first or (median, cpu)
        row = {
            "parameters": run.parameters,
            "images_per_second": args.batch / median,
            "best_images_per_second": args.batch / best,
            "cpu_milliseconds": cpu * 1e3,
            "ratio": first[0] / median,
            "cpu_ratio": first[1] / cpu,
            "compile_seconds": run.compile_seconds,
            "steps": len(run.seconds),
        }
        rows[name] = row
        print(
            f"{name:26}{run.parameters:11,}{args.batch / median:11.1f}{args.batch / best:11.1f}{cpu * 1e3:11.1f}"
            f"{row['ratio']:11.2f}{row['cpu_ratio']:11.2f}{run.compile_seconds:11.1f}"
        )
    save(args.json, {"group": args.group, "batch": args.batch, "size": size, "variants": rows}, facts)


if __name__ == "__main__":
    main()
