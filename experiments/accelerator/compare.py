"""Variants of a training step, compiled side by side and timed in turn; the first one's kernels and program, too.

    python compare.py '{"config": "mnist_cfg_strong", "variants": {"as it is": {}, "no dropout": {"overrides":
        {"model.dropout": 0.0}}}, "seconds": 5}' FILE

A variant has `overrides` of the config, a `change` of the network (programs.variant), options for the `compiler`, or
nothing. One that fails says why, and the others go on. FILE is written after each step of the way.
"""

import json
import statistics
import sys
import time
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import kernels
import programs
from stage import write_json

from fmd.models.flops import TRAINING, forward, peak, utilisation


@dataclass
class Compiled:
    """One variant's program with the state it works on."""

    call: Any
    state: Any
    arguments: tuple[Any, ...]
    images: int  # per call
    facts: dict[str, Any]
    seconds: list[float] = field(default_factory=list)

    def step(self) -> None:
        started = time.perf_counter()
        self.state, report = self.call(self.state, *self.arguments)
        jax.block_until_ready(report)
        self.seconds.append(time.perf_counter() - started)


def prepare(order: dict[str, Any], variant: dict[str, Any], pool: ThreadPoolExecutor) -> Future[Compiled]:
    """Traces a variant, has it compiled beside the next one's tracing, and says what that took and what came out."""
    config = programs.config_of(order["config"], order.get("overrides", {}) | variant.get("overrides", {}))
    with programs.variant(variant.get("change", "as it is")), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = programs.start(config, train_images=order.get("train_images", 2048))
        program, resident, feed = programs.bare_step(run)
        started = time.perf_counter()
        lowered = program.trace(run.state, resident, feed).lower()
        traced = time.perf_counter() - started
    per_image = forward(run.model, run.dataset.image_shape).total() * TRAINING
    images = config.train.batch_size * config.train.steps_per_dispatch

    def finish() -> Compiled:
        started = time.perf_counter()
        compiled = lowered.compile(variant.get("compiler"))
        memory = compiled.memory_analysis()
        facts = {
            "trace_seconds": traced,
            "compile_seconds": time.perf_counter() - started,
            "donation_warnings": sum("donated" in str(one.message) for one in caught),
            "state_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(run.state)),
            "aliased_bytes": memory.alias_size_in_bytes,
            "temporary_bytes": memory.temp_size_in_bytes,
            "argument_bytes": memory.argument_size_in_bytes,
            "flops_per_image": per_image,
        }
        return Compiled(compiled, run.state, (resident, feed), images, facts)

    return pool.submit(finish)


def main(order: dict[str, Any], file: Path) -> None:
    found: dict[str, Any] = {"config": order["config"], "device": jax.devices()[0].device_kind, "variants": {}}
    started = time.monotonic()
    coming: dict[str, Future[Compiled]] = {}
    ready: dict[str, Compiled] = {}
    with ThreadPoolExecutor() as pool:
        for name, variant in order["variants"].items():
            if time.monotonic() - started > order.get("begin_within", float("inf")):
                found["variants"][name] = {"error": "left out: no time"}
                continue
            try:
                coming[name] = prepare(order, variant, pool)
            except Exception as error:
                found["variants"][name] = {"error": said(error)}
        for name, future in coming.items():
            try:
                one = future.result()
                found["variants"][name] = one.facts
                one.step()
                ready[name] = one
            except Exception as error:
                found["variants"][name] = found["variants"].get(name, {}) | {"error": said(error)}
            write_json(file, found)
    for one in ready.values():
        one.step()
        one.seconds.clear()
    end = time.monotonic() + order["seconds"] * len(ready)
    while time.monotonic() < end or any(len(one.seconds) < 2 for one in ready.values()):
        for one in ready.values():
            with jax.transfer_guard("disallow"):  # nothing moves between host and device in a step
                one.step()
    for name, one in ready.items():
        rate = one.images / statistics.median(one.seconds)
        share = utilisation(rate, one.facts["flops_per_image"], peak(found["device"]))
        found["variants"][name] |= {"images_per_second": rate, "calls": len(one.seconds), "utilisation": share}
    write_json(file, found)
    if order.get("kernels") and ready:
        first = next(iter(ready.values()))
        looks = {"program": lambda: kernels.layout_facts(first.call.as_text()),
                 "kernels": lambda: kernels.profile(first.step, calls=3)}  # fmt: skip
        for what, look in looks.items():
            try:
                found[what] = look()
            except Exception as error:  # a profiler needs rights that not every machine gives
                found[what] = {"error": said(error)}
            write_json(file, found)


def said(error: Exception) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {error}"[:500]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
