"""The parts that every stage of prove.py shares: its order, its findings, its commands and the time it has left.

A stage is a file with a function `main(stage)` and, at its end, `if __name__ == "__main__": run(main)`. It is started
as `python NAME.py ORDER`, where ORDER is a line of JSON from prove.py: the name, the folders `work` and `out`, the
`seconds` it may take, `tiny` for the rehearsal, and the paths of the data. What it finds is in WORK/NAME.json at once.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BENCHMARKS = HERE.parent / "benchmarks"


@dataclass
class Stage:
    """One stage at work."""

    order: dict[str, Any]
    started: float = field(default_factory=time.monotonic)
    found: dict[str, Any] = field(default_factory=lambda: {"rows": []})

    @property
    def tiny(self) -> bool:
        """True in the rehearsal."""
        return self.order["tiny"]

    @property
    def work(self) -> Path:
        """The folder for what does not come back: runs, caches, unpacked data."""
        return Path(self.order["work"])

    @property
    def out(self) -> Path:
        """The folder for what comes back."""
        return Path(self.order["out"])

    def known(self, name: str) -> dict[str, Any]:
        """The files that another stage or part has left in the folder `work`; nothing where it has not run."""
        file = self.work / f"{name}.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def left(self) -> float:
        """Seconds left to this stage."""
        return self.order["seconds"] - (time.monotonic() - self.started)

    def record(self, **found: Any) -> None:
        """Adds findings, and writes all of them."""
        self.found |= found
        write_json(self.work / f"{self.order['name']}.json", self.found)

    def row(self, what: str, value: str, target: str = "", met: bool | None = None) -> None:
        """Adds a line to the table at the end; `met` says whether its target is."""
        self.found["rows"].append({"what": what, "value": value, "target": target, "met": met})
        self.record()


def write_json(path: Path, value: Any) -> None:
    """Writes a file that is never half there."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    temporary.replace(path)


def run(main: Callable[[Stage], None]) -> None:
    """Runs a stage with the order of the command line."""
    stage = Stage(json.loads(sys.argv[1]))
    stage.record()
    main(stage)
    stage.record(seconds=round(time.monotonic() - stage.started, 1))


def run_command(command: Sequence[Any], seconds: float, *, env: Mapping[str, Any] | None = None) -> float:
    """Runs a command to its end and returns how many seconds it took.

    Raises:
        RuntimeError: where it failed, or ran over; then all that it had started is ended, too.
    """
    started = time.monotonic()
    process = start_command(command, env=env)
    try:
        code = process.wait(max(seconds, 1.0))
    except subprocess.TimeoutExpired:
        end(process)
        raise RuntimeError(f"{show(command)} took longer than {seconds:.0f} s") from None
    if code:
        raise RuntimeError(f"{show(command)} ended with {code}; the log has its last words")
    return time.monotonic() - started


def start_command(command: Sequence[Any], *, env: Mapping[str, Any] | None = None) -> subprocess.Popen:
    """Starts a command in a process group of its own; what it prints goes to the log."""
    surroundings = {**os.environ, **{key: str(value) for key, value in (env or {}).items()}}
    return subprocess.Popen([str(part) for part in command], env=surroundings, cwd=ROOT, process_group=0)


def end(process: subprocess.Popen) -> None:
    """Ends a command and what it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def show(command: Sequence[Any]) -> str:
    """The part of a command that says what it is, without the folders of this machine."""
    return " ".join(Path(str(part)).name if "/" in str(part) else str(part) for part in command[1:5])


def fmd(*arguments: Any, memory: Path | None = None) -> list[Any]:
    """fmd's command line as a command; with `memory` it leaves the peak of the device's memory in that file."""
    if memory is None:
        return [sys.executable, "-m", "fmd.main", *arguments]
    return [sys.executable, HERE / "with_memory.py", memory, *arguments]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
