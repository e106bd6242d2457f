"""Trainings that take turns on one machine: each a process group, stopped by signals while others run.

A second counts for the training whose turn it is, from its command on. The folder of a training has `run/checkpoints`,
where a checkpoint appears under the number of its step, `cache` for what is compiled, `log.txt`, and in the end
`times.json`: {"checkpoints": {step: seconds}, "end": seconds}.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import HUGE_PAGES

POLL = 0.1  # seconds


@dataclass
class Runner:
    """A training that runs in its turns only."""

    command: Sequence[str]
    folder: Path
    seconds: float = 0.0  # that it has run
    reached: dict[int, float] = field(default_factory=dict)  # seconds until the checkpoint of a step was there
    process: subprocess.Popen | None = None

    def turn(self, seconds: float) -> bool:
        """Lets it run for a while; False once it has come to its end, or has failed."""
        began = time.monotonic()
        if self.process is None:
            self.process = self.start()
        else:
            os.killpg(self.process.pid, signal.SIGCONT)
        running = True
        while running and time.monotonic() - began < seconds:
            time.sleep(POLL)
            running = self.process.poll() is None
            for path in (self.folder / "run" / "checkpoints").glob("*"):
                if path.name.isdigit():
                    self.reached.setdefault(int(path.name), self.seconds + time.monotonic() - began)
        if running:
            os.killpg(self.process.pid, signal.SIGSTOP)
        self.seconds += time.monotonic() - began
        return running

    @property
    def failed(self) -> bool:
        return self.process is not None and bool(self.process.returncode)

    def start(self) -> subprocess.Popen:
        caches = {f"{name}_CACHE_DIR": str(self.folder / "cache") for name in ("JAX_COMPILATION", "TORCHINDUCTOR")}
        with (self.folder / "log.txt").open("w") as log:
            return subprocess.Popen(
                self.command, env={**os.environ, **HUGE_PAGES, **caches}, start_new_session=True,
                stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def take_turns(runners: Sequence[Runner], seconds: float) -> None:
    """Lets the trainings take turns until each has ended, with its times.json, or has failed, which one line says."""
    going = list(runners)
    try:
        while going:
            for runner in list(going):
                if runner.turn(seconds):
                    continue
                going.remove(runner)
                minutes = f"{runner.seconds / 60:.2f} minutes"
                if runner.failed:
                    print(f"{runner.folder}: failed after {minutes}; see {runner.folder}/log.txt", flush=True)
                    continue
                print(f"{runner.folder}: {minutes}", flush=True)
                times = {"checkpoints": runner.reached, "end": runner.seconds}
                (runner.folder / "times.json").write_text(json.dumps(times))
    finally:
        for runner in runners:
            runner.kill()
