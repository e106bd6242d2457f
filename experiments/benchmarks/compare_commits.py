"""Two commits side by side: images per second of the training step or the guided sampler, and their ratio.

    python experiments/benchmarks/compare_commits.py HEAD~1 HEAD train mnist --record

Each commit is checked out into a folder of its own and timed in turn with the other, in the environment that runs this
script, both with the same optimiser, solver and steps. Each brings its own jax_worker.py, which knows its names: look
at that file's changes, too. A commit may also be `.`, the working tree as it is. --record adds the ratio to
results/history.jsonl, a line per comparison: at the end of a round of work, compare with the one before.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from against_pytorch import CASES, ROOT, order_for
from bench import HERE, Worker, commit, machine, table, time_in_turn

HISTORY = HERE / "results" / "history.jsonl"


def check_out(name: str, folder: Path) -> Path:
    if name == ".":
        return ROOT
    archive = subprocess.run(["git", "archive", name], cwd=ROOT, check=True, capture_output=True).stdout
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", folder], check=True, input=archive)
    return folder


def describe(name: str) -> str:
    if name == ".":
        return commit()
    told = subprocess.run(["git", "rev-parse", "--short", name], cwd=ROOT, check=True, capture_output=True, text=True)
    return told.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("task", choices=["train", "sample"])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--seconds", type=float, default=40, help="time to measure, per commit")
    parser.add_argument("--record", action="store_true", help=f"add a line to {HISTORY.name}")
    args = parser.parse_args()
    facts = machine()
    with tempfile.TemporaryDirectory() as scratch:
        workers = {}
        for side in ("before", "after"):
            tree = check_out(getattr(args, side), Path(scratch) / side)
            order = order_for(args.task, args.case, tree)
            worker = tree / "experiments" / "benchmarks" / "jax_worker.py"
            command = [sys.executable, str(worker), json.dumps(order)]
            workers[side] = Worker(command, {"PYTHONPATH": str(tree)})
        time_in_turn(workers, args.seconds, calls=2)
    rates = {side: w.facts["images"] / statistics.median(w.seconds) for side, w in workers.items()}
    names = {side: describe(getattr(args, side)) for side in workers}
    versions = {"jax": workers["after"].facts["jax"]}
    ratio = rates["after"] / rates["before"]
    print(table(["", "commit", "images/s"], [[side, names[side], f"{rates[side]:.1f}"] for side in workers]))
    print(f"after / before: {ratio:.3f}")
    if args.record:
        line = {"date": str(date.today()), **names, "task": args.task, "case": args.case, "ratio": round(ratio, 4)}
        line |= {"images_per_second": {k: round(v, 1) for k, v in rates.items()}, "machine": facts | versions}
        with HISTORY.open("a") as history:
            history.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
