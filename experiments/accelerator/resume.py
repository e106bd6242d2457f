"""Stage: a run that stopped and went on ends with the bits of one that did not.

Each run is a process of its own, as it would be; so it compiles again, or finds what another one compiled. A GPU's
compiler chooses the fastest of several kernels by timing them, so two compilations may differ in the order of sums,
and some kernels add in no fixed order at all. These pairs tell which of it happens:

    stopped, went on    both halves run the program that the first one compiled and kept
    compiled anew       the same run with an empty cache
    deterministic       two runs with empty caches under DETERMINISTIC

The rehearsal makes the first pair only.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import programs
import stage as stages

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
TINY = {"model.base_channels": 8, "model.channel_multipliers": "(1,)", "model.attention_resolutions": "(8,)",
        "model.embedding_dim": 16, "model.head_dim": 8, "train.steps_per_dispatch": 1}  # fmt: skip


def main(stage: stages.Stage) -> None:
    """Makes two rounds of runs, and compares weights and logs bit by bit."""
    steps, warm = (20 if stage.tiny else 200), stage.work / "resume_cache"  # which both halves of a run use
    first = [Trial(stage, "went on", steps, warm, stop_at=steps // 2)]
    if not stage.tiny:
        first += [Trial(stage, "compiled anew", steps, stage.work / "resume_cache_2")]
        first += [
            Trial(stage, name, steps, stage.work / f"resume_cache_{name[-1]}", deterministic=True)
            for name in ("deterministic 3", "deterministic 4")
        ]
    ended = finish(first)
    second = [Trial(stage, "whole", steps, warm), Trial(stage, "went on", steps, warm)]
    ended |= finish(second)
    pairs = {"stopped and went on": ("whole", "went on")}
    if not stage.tiny:
        pairs["compiled anew"] = ("whole", "compiled anew")
        pairs["deterministic, compiled twice"] = ("deterministic 3", "deterministic 4")
    compared: dict[str, Any] = {}
    for what, pair in pairs.items():
        if failed := [name for name in pair if ended[name] is None]:
            stage.row(what, f"failed: the run {failed[0]!r}; the log has its last words")
            continue
        one = compared[what] = compare(*(ended[name] for name in pair))
        value = "the same bits" if one["same"] else f"weights differ by {one['largest difference']:.1e}"
        judged = what == "stopped and went on"
        stage.row(what, value, "the same bits" if judged else "", one["same"] if judged else None)
    stage.record(resume=compared, deterministic_flag=DETERMINISTIC)


class Trial:
    """A short run of the digits with every kind of layer, in bfloat16, started at once."""

    def __init__(
        self, stage: stages.Stage, name: str, steps: int, cache: Path, stop_at: int | None = None,
        deterministic: bool = False,
    ) -> None:  # fmt: skip
        self.name, self.stage = name, stage
        self.workdir = stage.work / "resume" / name.replace(" ", "_")
        keys: dict[str, Any] = {
            "model.attention_resolutions": "(4,)", "model.dropout": 0.1, "model.dtype": "bfloat16",
            "train.num_steps": steps, "train.steps_per_dispatch": 5, "optimizer.warmup_steps": 5,
            "sample.steps": 1, "checkpoint.every": steps, "log.every": 5, "log.eval_every": 0,
            "log.samples_every": 0, "log.samples_per_class": 1, **(TINY if stage.tiny else {}),
        }  # fmt: skip
        env: dict[str, Any] = {"JAX_COMPILATION_CACHE_DIR": cache, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        if stop_at is not None:
            keys["log.callbacks"] = "('programs:StopAt',)"
            env["STOP_AT"] = stop_at
        if deterministic:
            env["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISTIC}"
        overrides = [f"--config.{key}={value}" for key, value in keys.items()]
        command = stages.fmd("--config=configs/digits.py", f"--workdir={self.workdir}", *overrides)
        self.process = stages.start_command(command, env=env)


def finish(trials: list[Trial]) -> dict[str, Path | None]:
    """Waits for runs that go side by side; their folders by name, None for one that failed."""
    codes = {trial.name: trial.process.wait() for trial in trials}
    return {trial.name: None if codes[trial.name] else trial.workdir for trial in trials}


def compare(a: Path, b: Path) -> dict[str, Any]:
    """The comparison of two runs: are weights and logs the same, and by what do the weights differ."""
    ours, theirs = (programs.averaged_weights(workdir) for workdir in (a, b))
    logs = [(workdir / "metrics.jsonl").read_bytes() for workdir in (a, b)]
    return {
        "same": bool(np.array_equal(ours, theirs) and logs[0] == logs[1]),
        "same weights": bool(np.array_equal(ours, theirs)),
        "same log": logs[0] == logs[1],
        "largest difference": float(np.abs(ours - theirs).max()),
    }


if __name__ == "__main__":
    stages.run(main)
