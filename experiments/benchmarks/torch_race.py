"""PyTorch's side of the race: trains by the recipe of configs/mnist_cfg_strong.py, or draws digits from what it kept.

    python experiments/benchmarks/torch_race.py order.json

race.py writes the order. "train" keeps the average of the weights as OUT/STEP every so many steps; "draw" writes
OUT/samples_STEP.npz for each of the "steps". The recipe is fmd's: initial kernels, stratified uniform times, labels
dropped, clipping, Muon with the learning rates of the order, and an average that keeps min(decay, n / (9 + n)) at its
n-th step.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_muon import Muon
from torch import Tensor, nn
from torch_worker import DEVICE, Predict, build, draw, loss_of

LOG_EVERY = 50
DRAWN_AT_ONCE = 256
TRUNCATED_STD = 0.87962566  # of a normal distribution that is cut at 2 standard deviations


class Training:
    """A network, its optimiser and its average; made of initial weights."""

    def __init__(self, settings: dict[str, Any], network: nn.Module, predict: Predict) -> None:
        self.settings, self.network, self.predict = settings, network, predict
        self.optimizer = Muon(self.network)
        self.parameters = list(self.network.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        self.count = 0

    def step(self, x1: Tensor, y: Tensor, t: Tensor, x0: Tensor, rate: float) -> Tensor:
        """One step on a batch whose labels are dropped already; its loss."""
        self.count += 1
        loss = loss_of(self.predict, x1, y, t, x0, self.settings["margin"])
        self.network.zero_grad()
        loss.backward()
        if self.settings["clip_norm"]:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.settings["clip_norm"], foreach=True)
        self.optimizer.step(rate)
        with torch.no_grad():
            share = max(1 - self.settings["decay"], 9 / (9 + self.count))
            torch._foreach_lerp_(self.average, self.parameters, share)
        return loss.detach()


def initialise(network: nn.Module) -> None:
    """Kernels as Flax draws them: normal of variance 1 / inputs, cut at two standard deviations; biases are zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            if layer.weight.any():  # those that begin at zero stay there
                std = layer.weight[0].numel() ** -0.5 / TRUNCATED_STD
                nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(layer.bias)


def batches(count: int, batch: int) -> Iterator[Tensor]:
    """Rows of the training set, each once per epoch; batches cross the borders of epochs."""
    order = torch.empty(0, dtype=torch.long)
    while True:
        if len(order) < batch:
            order = torch.cat([order, torch.randperm(count)])
        rows, order = order[:batch], order[batch:]
        yield rows.to(DEVICE)


def train(order: dict[str, Any]) -> None:
    torch.manual_seed(order["seed"])
    settings, out = order["settings"], Path(order["out"])
    network, predict = build(settings, order["variant"], training=True)
    initialise(network)
    training = Training(settings, network, predict)
    with np.load(order["data"]) as data:
        images = torch.from_numpy(data["images"]).permute(0, 3, 1, 2).contiguous().to(DEVICE)
        labels = torch.from_numpy(data["labels"].astype(np.int64)).to(DEVICE)
    batch = settings["batch"]
    ranks = torch.arange(batch, device=DEVICE)
    feed = batches(len(images), batch)
    total = torch.zeros((), device=DEVICE)
    for step, rate in enumerate(order["rates"], 1):
        rows = next(feed)
        x1 = images[rows].float() / 127.5 - 1
        y = torch.where(torch.rand(batch, device=DEVICE) < settings["label_dropout"], 10, labels[rows])
        t = (ranks + torch.rand(batch, device=DEVICE)) / batch
        total += training.step(x1, y, t, torch.randn_like(x1), rate)
        if step % LOG_EVERY == 0:
            print(f"step {step}: loss {total.item() / LOG_EVERY:.4f}", flush=True)
            total.zero_()
        if step % order["every"] == 0 or step == len(order["rates"]):
            torch.save(training.average, out / f"{step}.unfinished")
            os.replace(out / f"{step}.unfinished", out / f"{step}")


def draw_all(order: dict[str, Any]) -> None:
    """Digits 0 to 9 in turn from the weights of each step, from the noise [N, H, W, C] of a file."""
    settings, out = order["settings"], Path(order["out"])
    network, predict = build(settings, order["variant"], training=False)
    noise = torch.from_numpy(np.load(order["noise"])).permute(0, 3, 1, 2).contiguous().to(DEVICE)
    labels = torch.arange(len(noise), device=DEVICE) % 10
    for step in order["steps"]:
        kept = torch.load(Path(order["kept"]) / str(step), weights_only=True, map_location=DEVICE)
        with torch.no_grad():
            for parameter, average in zip(network.parameters(), kept, strict=True):
                parameter.copy_(average)
        parts = zip(noise.split(DRAWN_AT_ONCE), labels.split(DRAWN_AT_ONCE), strict=True)
        images = torch.cat([draw(predict, settings, x, y) for x, y in parts]).permute(0, 2, 3, 1).numpy()
        unfinished = out / f"unfinished_{step}.npz"
        np.savez_compressed(unfinished, images=images, labels=labels.int().cpu().numpy())
        os.replace(unfinished, out / f"samples_{step}.npz")


if __name__ == "__main__":
    told = json.loads(Path(sys.argv[1]).read_text())
    {"train": train, "draw": draw_all}[told["task"]](told)
