"""fmd against PyTorch in one run: the training step or the guided sampler, images per second and their ratio.

    pip install -e '.[benchmark]'
    python experiments/benchmarks/against_pytorch.py train mnist --json=train_mnist.json
    python experiments/benchmarks/against_pytorch.py sample mnist

Every variant is a process of its own with the same environment; they are timed in turn, a few calls each, so that what
else the machine does meets all alike. The network is the same to the parameter (pytorch_unet.py proves it), so are the
batch, the optimiser, the averaging, the solver and the number of evaluations. On a machine without a GPU a config's
on_cpu block is used and all is float32. --torch_python names the interpreter of another environment that has torch.

"flops" is what XLA counts in the program before it is optimised; "of peak" divides its rate by that of a large float32
matrix product on a CPU, by the maker's bfloat16 figure on a GPU.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from bench import HERE, Worker, machine, save, table, time_in_turn

ROOT = HERE.parent.parent
CASES = {
    "digits": {"config": "configs/digits.py"},
    "mnist": {"config": "configs/mnist_cfg_strong.py"},
    "mnist_batch_128": {"config": "configs/mnist_cfg_strong.py", "overrides": {"train.batch_size": 128}},
    "plain": {
        "config": "configs/mnist_cfg_strong.py",
        "overrides": {"model.patch_size": 1, "model.base_channels": 32, "model.channel_multipliers": (1, 2, 3)},
    },
    "cifar10": {"config": "configs/cifar10.py"},
}
# The same work whatever a config of another day asks for, and what torch_worker.py has written out.
SAME = {"optimizer.name": "adam", "sample.solver": "midpoint", "sample.steps": 10}
VARIANTS = ("eager", "channels_last", "compile")


def order_for(task: str, case: str, tree: Path, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """The request to jax_worker.py, for the config of a source tree."""
    chosen = CASES[case]
    overrides = SAME | chosen.get("overrides", {}) | (overrides or {})
    return {"task": task, "config": str(tree / chosen["config"]), "overrides": overrides}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["train", "sample"])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--torch_python", default=sys.executable)
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--seconds", type=float, default=30, help="time to measure, per variant")
    parser.add_argument("--calls", type=int, default=5, help="calls of one variant before it is the next one's turn")
    parser.add_argument("--count", type=int, default=64, help="images to sample per call")
    parser.add_argument("--train_images", type=int, default=2048, help="images to train on, on the device")
    parser.add_argument("--overrides", type=json.loads, default={}, help='more keys of the config: {"a.b": value}')
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()

    facts = machine()
    order = order_for(args.task, args.case, ROOT, args.overrides)
    order |= {"count": args.count, "train_images": args.train_images}
    workers = {"fmd": Worker([sys.executable, str(HERE / "jax_worker.py"), json.dumps(order)])}
    told = workers["fmd"].facts
    for variant in args.variants:
        order = {key: told.get(key) for key in ("images", "dispatch", "settings")}
        order |= {"task": args.task, "variant": variant}
        workers[variant] = Worker([args.torch_python, str(HERE / "torch_worker.py"), json.dumps(order)])
    time_in_turn(workers, args.seconds, args.calls)

    rows, numbers = [], {}
    ours = statistics.median(workers["fmd"].seconds)
    for name, worker in workers.items():
        median, best = statistics.median(worker.seconds), min(worker.seconds)
        number = worker.facts | {
            "images_per_second": worker.facts["images"] / median,
            "best_images_per_second": worker.facts["images"] / best,
            "fmd_is_faster_by": median / ours,
            "calls": len(worker.seconds),
        }
        if number.get("flops"):
            number["of_peak"] = number["flops"] / median / number["peak_flops"]
        numbers[name] = number
        rows.append(
            [
                name,
                f"{number['parameters']:,}",
                f"{number['images_per_second']:.1f}",
                f"{number['best_images_per_second']:.1f}",
                f"{number['fmd_is_faster_by']:.2f}",
                f"{number['prepare_seconds']:.1f}",
                f"{(number['peak_device_bytes'] or number['peak_resident_bytes']) / 2**20:.0f}",
                f"{number['of_peak']:.0%}" if "of_peak" in number else "",
            ]
        )
    head = ["", "parameters", "images/s", "best", "fmd / it", "start s", "peak MiB", "of peak"]
    print(f"{args.task} {args.case}, batch {told['images'] // told.get('dispatch', 1)}\n{table(head, rows)}")
    save(args.json, {"task": args.task, "case": args.case, "variants": numbers}, facts)


if __name__ == "__main__":
    main()
