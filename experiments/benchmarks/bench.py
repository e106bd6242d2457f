"""Shared by the benchmarks: facts about the machine, workers that are timed in turn, tables and files of numbers."""

import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # what `python -m fmd.main` sets for itself on a CPU


class Worker:
    """A process that prepares something and then does it as often as it is told; it sleeps while others are timed."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        surroundings = {**os.environ, **HUGE_PAGES, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", **(environment or {})}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=surroundings
        )
        self.facts: dict[str, Any] = self._answer()
        self.seconds: list[float] = []

    def run(self, calls: int) -> None:
        self._process.stdin.write(f"{calls}\n")
        self._process.stdin.flush()
        self.seconds += self._answer()["seconds"]

    def close(self) -> None:
        self._process.stdin.close()
        self.facts |= self._answer()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self._process.args)} ended with {self._process.wait()}")
        return json.loads(line)


def serve(
    prepare: Callable[[], tuple[Callable[[], Any], dict[str, Any]]], closing: Callable[[], dict[str, Any]] = dict
) -> None:
    """The other side of a Worker.

    `prepare` returns what to do, which must wait for its result, and facts to report; `closing` returns more of them
    at the end.
    """
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing but answers on stdout

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    started = time.perf_counter()
    act, facts = prepare()
    act()  # compilation, where it happens at the first call
    facts["prepare_seconds"] = time.perf_counter() - started
    act()
    answer(**facts)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            started = time.perf_counter()
            act()
            seconds.append(time.perf_counter() - started)
        answer(seconds=seconds)
    answer(peak_resident_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, **closing())


def time_in_turn(workers: Mapping[str, Worker], seconds: float, calls: int = 5) -> None:
    """Lets the workers act in turn, `calls` times each, for `seconds` per worker; then ends them."""
    end = time.monotonic() + seconds * len(workers)
    while time.monotonic() < end:
        for worker in workers.values():
            worker.run(calls)
    for worker in workers.values():
        worker.close()


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns as wide as they need to be, the first to the left and numbers to the right."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )


def machine() -> dict[str, Any]:
    """Facts without which the numbers mean little."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit of the working tree, with a mark where it was changed since; nothing where git is not at hand."""
    if shutil.which("git") is None:
        return ""
    told = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True)
    return told.stdout.strip()


def save(path: Path | None, numbers: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Writes numbers with the command, the commit and the machine that they come from."""
    if path is not None:
        # Where another environment lies is nobody's business.
        command = " ".join(["python", *(re.sub("=/.*", "=PATH", argument) for argument in sys.argv)])
        path.write_text(
            json.dumps({"command": command, "commit": commit(), "machine": facts, **numbers}, indent=2) + "\n"
        )
