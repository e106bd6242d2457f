"""Stage: what the device is, what is installed, and the rates that everything else is compared with."""

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import jax.numpy as jnp
import stage as stages
from bench import machine

from fmd.models.flops import peak

PACKAGES = ("jax", "jaxlib", "flax", "optax", "diffrax", "orbax-checkpoint", "numpy", "torch", "ml_collections")


def main(stage: stages.Stage) -> None:
    device = jax.devices()[0]
    kind = device.device_kind
    stage.record(
        device=kind,
        platform=device.platform,
        count=jax.device_count(),
        memory=device.memory_stats(),
        peak_bfloat16=peak(kind),
        machine=machine() | {"memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")},
        versions={name: installed(name) for name in PACKAGES},
        driver=driver(),
    )
    stage.row("device", f"{jax.device_count()} x {kind}, jax {jax.__version__}")
    for name, (dtype, precision) in KINDS.items():
        rate = product_rate(256 if stage.tiny else 8192, dtype, precision)
        stage.record(**{name: rate})
        share = f", {rate / peak(kind):.0%} of the maker's" if peak(kind) and dtype == jnp.bfloat16 else ""
        stage.row(f"matrix product, {name}", f"{rate / 1e12:.3g} TFLOP/s{share}")
    bandwidth = copy_rate(2**20 if stage.tiny else 2**30)
    stage.record(copy_bytes_per_second=bandwidth)
    stage.row("copy, bytes read and written", f"{bandwidth / 1e12:.3g} TB/s")


KINDS: dict[str, tuple[Any, str]] = {
    "bfloat16": (jnp.bfloat16, "default"),
    "float32 by default": (jnp.float32, "default"),
    "float32 at highest": (jnp.float32, "highest"),
}


def product_rate(size: int, dtype: Any, precision: str) -> float:
    """Operations per second of a product of two random square matrices: the median of five rounds of ten."""
    a, b = (jax.random.normal(jax.random.key(i), (size, size), dtype) for i in range(2))
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))
    return 2 * size**3 / seconds(lambda: product(a, b))


def copy_rate(count: int) -> float:
    """Bytes read and written per second by a pass over `count` float32 numbers."""
    x = jnp.ones(count, jnp.float32)
    add = jax.jit(lambda x: x + 1)
    return 2 * x.nbytes / seconds(lambda: add(x))


def seconds(act: Callable[[], jax.Array], calls: int = 10, rounds: int = 5) -> float:
    """Seconds per call, the median over rounds."""
    for _ in range(3):
        act().block_until_ready()
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(calls):
            result = act()
        result.block_until_ready()
        found.append((time.perf_counter() - started) / calls)
    return statistics.median(found)


def installed(package: str) -> str | None:
    """The version of a package, None where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def driver() -> str | None:
    """The words of nvidia-smi on the card, its driver, clocks and power; None without it."""
    if shutil.which("nvidia-smi") is None:
        return None
    asked = "name,driver_version,memory.total,clocks.sm,clocks.max.sm,power.limit,temperature.gpu"
    told = subprocess.run(["nvidia-smi", f"--query-gpu={asked}", "--format=csv"], capture_output=True, text=True)
    return told.stdout.strip() or told.stderr.strip()


if __name__ == "__main__":
    stages.run(main)
