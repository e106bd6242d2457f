"""Kills a short training run again and again, and compares what it ends with to an uninterrupted run, bit for bit.

    python experiments/reliability/kills.py --folder /tmp/kills [--kills 30] [--seed 0]

Half of the kills (SIGKILL) are aimed at a save: up to 30 ms after the temporary folder of a checkpoint appears. The
others come up to two seconds after a new checkpoint, which often is during a save, too. Where a run ends before all
kills are spent, another begins.
Takes about 25 seconds per kill on two busy cores; the recorded figures are in README.md beside this file.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

COMMAND = [
    sys.executable, "-m", "fmd.main", "--config=configs/digits.py",
    "--config.model.base_channels=8", "--config.model.embedding_dim=32", "--config.train.num_steps=240",
    "--config.train.batch_size=32", "--config.optimizer.warmup_steps=20", "--config.checkpoint.every=8",
    "--config.log.every=6", "--config.log.eval_every=24", "--config.log.eval_examples=50",
    "--config.log.samples_every=40", "--config.log.samples_per_class=1", "--config.sample.steps=4",
]  # fmt: skip
REPOSITORY = Path(__file__).parents[2]


def start(workdir: Path) -> subprocess.Popen:
    with open(workdir.with_suffix(".log"), "a") as log:
        return subprocess.Popen([*COMMAND, f"--workdir={workdir}"], cwd=REPOSITORY, stdout=log, stderr=log)


def saved_steps(workdir: Path) -> set[str]:
    return {path.name for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()}


def is_saving(workdir: Path) -> bool:
    return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def kill_once(workdir: Path, draw: random.Random) -> str | None:
    """Runs until a moment drawn at random and kills there: "save" or "step"; None where the run ended before."""
    process, before = start(workdir), saved_steps(workdir)
    during_save, delay = draw.random() < 0.5, draw.random()
    while process.poll() is None:
        if during_save and is_saving(workdir) and saved_steps(workdir) - before:
            time.sleep(0.03 * delay)
            break
        if not during_save and saved_steps(workdir) - before:
            time.sleep(2.0 * delay)
            break
        time.sleep(0.0005)
    process.kill()
    if process.wait() == 0:
        return None
    if process.returncode != -9:
        raise RuntimeError(f"{workdir}: the run ended with code {process.returncode}; see {workdir}.log")
    return "save" if is_saving(workdir) else "step"


def arrays(workdir: Path) -> dict[str, np.ndarray]:
    """Every array of the newest checkpoint by its path."""
    newest = max(saved_steps(workdir), key=int)
    found = {"newest": np.array(int(newest))}
    with ocp.PyTreeCheckpointer() as checkpointer:
        for item in ("ema", "train"):
            tree = checkpointer.restore((workdir / "checkpoints" / newest / item).absolute())
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                found[item + jax.tree_util.keystr(path)] = np.asarray(leaf)
    return found


def differences(one: Path, other: Path) -> list[str]:
    """The differences between two finished runs: arrays, logs without a clock, pictures, names of files."""
    a, b = arrays(one), arrays(other)
    found = sorted(a.keys() ^ b.keys())
    found += [key for key in a.keys() & b.keys() if a[key].tobytes() != b[key].tobytes()]

    def files(workdir: Path) -> dict[str, bytes]:
        kept = [p for p in workdir.rglob("*") if p.is_file() and "checkpoints" not in p.parts]
        timed = ("timing", "report", ".lock")  # files with times of day in them
        return {str(p.relative_to(workdir)): b"" if p.name.startswith(timed) else p.read_bytes() for p in kept}

    a_files, b_files = files(one), files(other)
    return found + [name for name in sorted(a_files.keys() | b_files.keys()) if a_files.get(name) != b_files.get(name)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the runs go; must not exist")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True)

    reference = options.folder / "uninterrupted"
    if start(reference).wait() != 0:
        raise RuntimeError(f"the uninterrupted run failed; see {reference}.log")
    draw, kills, runs = random.Random(options.seed), {"save": 0, "step": 0}, []
    while sum(kills.values()) < options.kills:
        workdir = options.folder / f"killed{len(runs)}"
        while sum(kills.values()) < options.kills and (what := kill_once(workdir, draw)):
            kills[what] += 1
            newest = max(map(int, saved_steps(workdir)))
            print(f"kill {sum(kills.values())} ({what}) in {workdir.name}, newest checkpoint: {newest}")
        if start(workdir).wait() != 0:
            raise RuntimeError(f"{workdir}: the last start failed; see {workdir}.log")
        differing = differences(reference, workdir)
        runs.append({"run": workdir.name, "differing": differing})
        print(f"{workdir.name}: {differing or 'identical'}")
    print(json.dumps({"kills": kills, "runs": runs}, indent=2))
    sys.exit(any(run["differing"] for run in runs))


if __name__ == "__main__":
    main()
