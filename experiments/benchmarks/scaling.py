"""How the cost grows: seconds against batch, resolution, width, solver steps and devices, and the log-log slope.

    python experiments/benchmarks/scaling.py --json=scaling.json

Slope 1 is proportional cost; below 1, larger is relatively cheaper. Width counts channels, whose ideal slope is 2 for
convolutions alone; resolution counts pixels along one side, ideal slope 2. The network is that of
configs/mnist_cfg_strong.py; what varies is varied alone. On a CPU, devices are parts of the same cores
(--xla_force_host_platform_device_count), so there the slope says what dividing costs or gains; elsewhere the real
devices are used, all of them, and the axis is left out.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np
from bench import HERE, Worker, machine, save, table, time_in_turn

CONFIG = str(HERE.parent.parent / "configs" / "mnist_cfg_strong.py")
AXES = {
    "batch": [{"overrides": {"train.batch_size": n}} for n in (16, 32, 64, 128)],
    "resolution": [{"shape": (n, n, 1)} for n in (16, 24, 32, 48)],
    "width": [{"overrides": {"model.base_channels": n}} for n in (16, 32, 64, 96)],
    "steps": [{"task": "sample", "overrides": {"sample.steps": n}} for n in (5, 10, 20, 40)],
    "devices": [{"devices": n} for n in (1, 2)],
}


def value(order: dict) -> int:
    """The unit of the axis."""
    if "shape" in order:
        return order["shape"][0]
    return order.get("devices") or next(iter(order["overrides"].values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--seconds", type=float, default=6, help="time to measure, per point")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()
    facts, numbers, rows = machine(), {}, []
    for axis in args.axes:
        workers = {}
        for order in AXES[axis]:
            flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={order.get('devices', 1)}"}
            command = json.dumps({"task": "train", "config": CONFIG, **order})
            workers[value(order)] = Worker([sys.executable, str(HERE / "jax_worker.py"), command], flags)
        time_in_turn(workers, args.seconds, calls=1)
        seconds = {n: statistics.median(worker.seconds) for n, worker in workers.items()}
        slope = float(np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0])
        numbers[axis] = {"seconds": seconds, "slope": slope}
        points = ", ".join(f"{n}: {1e3 * s:.0f} ms" for n, s in seconds.items())
        rows.append([axis, f"{slope:.2f}", points])
    print(table(["axis", "slope", "seconds per call"], rows))
    save(args.json, {"axes": numbers}, facts)


if __name__ == "__main__":
    main()
