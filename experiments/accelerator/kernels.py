"""The most expensive kernels of a program from the profiler, and what its compiled form says of layouts."""

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

MOST = 10
MOVING = re.compile(r"transpose|copy|nchw|nhwc", re.IGNORECASE)  # kernels that only move numbers, unless these:
COMPUTING = re.compile(r"gemm|conv|[dw]grad|fprop", re.IGNORECASE)  # their names tell layouts, too
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (\w+)\[([\d,]*)\]\S* ([\w-]+)\(")
LIBRARY = re.compile(r"__(?:cudnn|cublas|triton)[$\w]*")
BYTES = {"bf16": 2, "f16": 2, "f32": 4, "f64": 8, "s32": 4, "u32": 4, "s8": 1, "u8": 1, "pred": 1}
LARGE = 2**20  # bytes


def profile(act: Callable[[], None], calls: int) -> dict[str, Any]:
    """The most expensive kernels of a few calls: seconds per call, launches, and the share of all kernels' time."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(calls):
                act()
        (file,) = Path(folder).rglob("*.xplane.pb")
        spent: Counter[str] = Counter()
        launches: Counter[str] = Counter()
        for name, seconds in events(file):
            spent[name] += seconds
            launches[name] += 1
    whole = sum(spent.values())
    return {
        "seconds_per_call": whole / calls,
        "launches_per_call": sum(launches.values()) / calls,
        "share_of_moving": sum(s for name, s in spent.items() if moves(name)) / whole if whole else None,
        "most_expensive": [
            {"kernel": name[:160], "seconds": s / calls, "launches": launches[name] / calls, "share": s / whole}
            for name, s in spent.most_common(MOST)
        ],
    }


def moves(kernel: str) -> bool:
    """True where a kernel only moves numbers, by its name."""
    return bool(MOVING.search(kernel)) and not COMPUTING.search(kernel)


def events(file: Path) -> Iterator[tuple[str, float]]:
    """(name, seconds) of each kernel that ran on a device; of each operation of XLA where that is a CPU.

    A GPU has a line per stream, a TPU one called "XLA Ops".
    """
    planes = list(jax.profiler.ProfileData.from_file(str(file)).planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    for plane in devices or planes:
        lines = list(plane.lines)
        streams = [line for line in lines if line.name.startswith("Stream")]
        for line in streams or [line for line in lines if line.name == "XLA Ops" or not devices]:
            for event in line.events:
                if devices or any(key == "hlo_op" for key, _ in event.stats):
                    yield event.name, event.duration_ns * 1e-9


def layout_facts(text: str) -> dict[str, Any]:
    """Of a compiled program: its convolutions, calls of libraries, and transposes and copies of a MiB or more.

    Those inside a fusion are counted, too: there they cost no pass of their own, but may slow the one that there is.
    """
    counts: Counter[str] = Counter()
    moved: Counter[str] = Counter()
    for line in text.splitlines():
        counts.update(LIBRARY.findall(line))
        if (parsed := INSTRUCTION.match(line)) is None:
            continue
        _, kind, shape, operation = parsed.groups()
        size = BYTES.get(kind, 4)
        for side in filter(None, shape.split(",")):
            size *= int(side)
        if "conv" in operation and operation != "convert":
            counts["convolution"] += 1
        if operation in ("transpose", "copy") and size >= LARGE:
            counts[f"large {operation}"] += 1
            moved[operation] += size
        if kind == "f64":
            counts["float64"] += 1
    return {"counts": dict(counts), "bytes": dict(moved)}
