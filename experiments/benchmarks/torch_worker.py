"""PyTorch's side of a comparison: the same network, step and sampler, timed when told (see bench.Worker).

    python experiments/benchmarks/torch_worker.py '{"task": "train", "variant": "eager", "settings": {...}}'

Variants: "eager", "channels_last", and "compile", which is torch.compile of the channels_last network. On a GPU the
network computes in bfloat16 under autocast, as fmd's does there. `settings` is what jax_worker.py reports.
"""

import itertools
import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from bench import serve
from pytorch_unet import UNet
from torch import Tensor

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def prepare(order: dict[str, Any]) -> tuple[Callable[[], Any], dict[str, Any]]:
    torch.manual_seed(0)
    settings = order["settings"]
    network, predict = build(settings, order["variant"], training=order["task"] == "train")
    facts = {"torch": torch.__version__, "parameters": sum(p.numel() for p in network.parameters())}
    if order["task"] == "train":
        return train(network, predict, settings, order["dispatch"]), facts | {"images": order["images"]}
    return sample(predict, settings, order["images"]), facts | {"images": order["images"]}


def build(settings: dict[str, Any], variant: str, *, training: bool) -> tuple[UNet, Predict]:
    """The network, and what is called in its place."""
    model = {key: value for key, value in settings["model"].items() if key not in ("name", "dtype", "remat")}
    layout = torch.contiguous_format if variant == "eager" else torch.channels_last
    network = UNet(tuple(settings["shape"]), **model).to(DEVICE, memory_format=layout)
    network.train(training)
    run = torch.compile(network) if variant == "compile" else network
    precision = torch.autocast(DEVICE, torch.bfloat16, enabled=settings["model"].get("dtype") == "bfloat16")

    def predict(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        with precision:
            return run(x.contiguous(memory_format=layout), t, y).float()

    return network, predict


def loss_of(predict: Predict, x1: Tensor, y: Tensor, t: Tensor, x0: Tensor, margin: float = 0.0) -> Tensor:
    """The mean squared error of the velocity on the straight path, an overshoot of `margin` forgiven."""
    at = t[:, None, None, None]
    error = predict(at * x1 + (1 - at) * x0, t, y) - (x1 - x0)
    if margin:
        overshoot = (1 - at) * error * ((x1 >= 1).float() - (x1 <= -1).float())
        beyond = overshoot > 0
        share = (overshoot - margin).clamp(min=0) / torch.where(beyond, overshoot, 1)
        error = torch.where(beyond, share * error, error)
    return torch.mean(error**2)


def train(network: UNet, predict: Predict, settings: dict[str, Any], steps: int) -> Callable[[], None]:
    """`steps` steps: batch, noise and times, loss, backward, clipping, Adam and the average of the weights."""
    height, width, channels = settings["shape"]
    images = torch.randint(0, 256, (2048, channels, height, width), dtype=torch.uint8, device=DEVICE)
    labels = torch.arange(2048, device=DEVICE) % 10
    parameters = list(network.parameters())
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.Adam(parameters, settings["learning_rate"], fused=True)
    batch = settings["batch"]
    ranks = torch.arange(batch, device=DEVICE)

    def step() -> Tensor:
        rows = torch.randint(len(images), (batch,), device=DEVICE)
        x1 = images[rows].float() / 127.5 - 1
        y = torch.where(torch.rand(batch, device=DEVICE) < settings["label_dropout"], 10, labels[rows])
        uniform = (ranks + torch.rand(batch, device=DEVICE)) / batch  # stratified, then logit-normal
        t = torch.sigmoid(torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6)))
        loss = loss_of(predict, x1, y, t, torch.randn_like(x1), settings["margin"])
        optimizer.zero_grad()
        loss.backward()
        if settings["clip_norm"]:
            torch.nn.utils.clip_grad_norm_(parameters, settings["clip_norm"], foreach=True)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1 - settings["decay"])
        return loss.detach()

    def act() -> None:
        for _ in range(steps):
            loss = step()
        loss.item()

    return act


def sample(predict: Predict, settings: dict[str, Any], count: int) -> Callable[[], None]:
    """`count` guided images with the labels 0 to 9 in turn."""
    height, width, channels = settings["shape"]
    labels = torch.arange(count, device=DEVICE) % 10
    return lambda: draw(predict, settings, torch.randn(count, channels, height, width, device=DEVICE), labels)


@torch.inference_mode()
def draw(predict: Predict, settings: dict[str, Any], x: Tensor, labels: Tensor) -> Tensor:
    """Guided images from noise by the midpoint rule, uint8, as the configs do; one doubled batch per evaluation."""
    both = torch.cat([labels, torch.full_like(labels, 10)])
    times = torch.linspace(0, 1, settings["steps"] + 1, device=DEVICE)

    def field(x: Tensor, t: Tensor) -> Tensor:
        conditional, null = predict(torch.cat([x, x]), t.expand(2 * len(x)), both).chunk(2)
        return null + settings["weight"] * (conditional - null)

    for now, then in itertools.pairwise(times):
        half = (then - now) / 2
        middle = x + half * field(x, now)
        x = x + (then - now) * field(middle, now + half)
    return ((x + 1) * 127.5).round().clamp(0, 255).byte().cpu()


def device_memory() -> dict[str, Any]:
    """The most bytes in use at once on the GPU; none on a CPU."""
    return {"peak_device_bytes": torch.cuda.max_memory_allocated() if DEVICE == "cuda" else None}


if __name__ == "__main__":
    serve(lambda: prepare(json.loads(sys.argv[1])), device_memory)
