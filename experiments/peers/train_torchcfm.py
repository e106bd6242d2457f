"""Trains torchcfm's packaged UNet on MNIST as its notebook does, and draws samples from it for `fmd`'s metrics.

    python -m venv peer && peer/bin/pip install torch==2.13.0 torchcfm==1.0.7
    KEEP=glibc.malloc.mmap_threshold=17179869184:glibc.malloc.trim_threshold=17179869184
    export GLIBC_TUNABLES=glibc.malloc.hugetlb=1:$KEEP
    peer/bin/python experiments/peers/train_torchcfm.py --data=DATA --steps=850 --out=runs/torchcfm

The allocator keeps its memory between steps, then: without that, page faults take nearly half of a CPU's time, as the
network's larger arrays are handed back and fetched again at every step.

The recipe is torchcfm's conditional MNIST example: `UNetModel(dim=(1, 28, 28), num_channels=32, num_res_blocks=1,
num_classes=10, class_cond=True)`, straight paths with independent pairs, Adam at 1e-3, batches of 128, no average of
the weights, no guidance. DATA is a folder with MNIST's four IDX files. Training goes by steps, so that what else the
machine does changes the time and not the result; --stop_at names earlier steps whose weights are judged, too.

Writes OUT/step_N.pt (weights) and OUT/run.json (losses, times) while training, and then OUT/step_N_heunH_n_seed.npz
(`images` uint8 [n, 28, 28, 1], `labels` int32 [n], balanced). Where OUT has run.json, only samples are drawn.
"""

import argparse
import gzip
import itertools
import json
import os
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import torchcfm
from torchcfm.conditional_flow_matching import ConditionalFlowMatcher
from torchcfm.models.unet import UNetModel

BATCH = 128


def read_idx(folder: Path, name: str) -> np.ndarray:
    path = next(p for p in (folder / name, folder / f"{name}.gz") if p.exists())
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    dimensions = data[3]
    shape = np.frombuffer(data, ">i4", dimensions, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


@torch.no_grad()
def draw(network: UNetModel, count: int, heun_steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images [count, 28, 28, 1] of all classes in turn, with their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 10
    noise = torch.randn(count, 1, 28, 28, generator=generator)
    times = torch.linspace(0, 1, heun_steps + 1)
    images = []
    for x, y in zip(noise.split(250), labels.split(250), strict=True):
        for now, then in itertools.pairwise(times):
            first = network(now.expand(len(x)), x, y)
            second = network(then.expand(len(x)), x + (then - now) * first, y)
            x = x + (then - now) * (first + second) / 2
        images.append(((x + 1) * 127.5).round().clamp(0, 255).byte())
    return torch.cat(images).permute(0, 2, 3, 1).numpy(), labels.int().numpy()


def train(network: UNetModel, args: argparse.Namespace) -> None:
    images = torch.from_numpy(read_idx(args.data, "train-images-idx3-ubyte").astype(np.float32) / 127.5 - 1)[:, None]
    labels = torch.from_numpy(read_idx(args.data, "train-labels-idx1-ubyte").astype(np.int64))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    matcher = ConditionalFlowMatcher(sigma=0.0)

    losses, seconds, order = [], [], torch.empty(0, dtype=torch.long)
    for step in range(1, args.steps + 1):
        if len(order) < BATCH:
            order = torch.randperm(len(images))
        rows, order = order[:BATCH], order[BATCH:]
        started = time.perf_counter()
        x1 = images[rows]
        t, x_t, target = matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
        loss = torch.mean((network(t, x_t, labels[rows]) - target) ** 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - started)
        if step % 25 == 0:
            rate = BATCH / statistics.median(seconds[-25:])
            print(f"step {step}: loss {np.mean(losses[-25:]):.4f}, {rate:.1f} images/s", flush=True)
        if step in (*args.stop_at, args.steps):
            torch.save(network.state_dict(), args.out / f"step_{step}.pt")
    facts = {
        "steps": args.steps,
        "parameters": sum(p.numel() for p in network.parameters()),
        "median_seconds_per_step": statistics.median(seconds),
        "fastest_seconds_per_step": min(seconds),
        "training_seconds": sum(seconds),
        "last_100_losses": float(np.mean(losses[-100:])),
        "cores": os.cpu_count(),
        "processor": platform.processor(),
        "torch": torch.__version__,
        "torchcfm": getattr(torchcfm, "__version__", None),
    }
    (args.out / "run.json").write_text(json.dumps(facts, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with MNIST's IDX files, gzipped or not")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--steps", type=int, default=850)
    parser.add_argument("--stop_at", type=int, nargs="*", default=[], help="earlier steps to draw samples at, too")
    parser.add_argument("--n_samples", type=int, default=5000)
    parser.add_argument("--heun_steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    network = UNetModel(dim=(1, 28, 28), num_channels=32, num_res_blocks=1, num_classes=10, class_cond=True)
    if not (args.out / "run.json").exists():
        args.out.mkdir(parents=True, exist_ok=True)
        train(network, args)
    for weights in sorted(args.out.glob("step_*.pt")):
        samples = args.out / f"{weights.stem}_heun{args.heun_steps}_{args.n_samples}_{args.seed}.npz"
        if not samples.exists():
            network.load_state_dict(torch.load(weights, weights_only=True))
            images, labels = draw(network.eval(), args.n_samples, args.heun_steps, args.seed)
            np.savez_compressed(samples, images=images, labels=labels)


if __name__ == "__main__":
    main()
