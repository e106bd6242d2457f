"""A plan on paper for large transformers: memory, operations, bytes over the wire and days, each by a formula.

    python experiments/scale_plan.py            # the table of experiments/site/pages/scaling.md

The networks are JiT's (arXiv 2511.13720) as fmd.models.transformer builds them, in bfloat16 with float32 parameters,
Adam and three averages, split over `fsdp` devices of a host (fmd.sharding); hosts hold the same. d is the width, h the
number of heads, m the hidden width of the perceptron, n the tokens. tests/experiments/test_scale_plan.py and
tests/test_sharding.py compare each formula with networks and compiled programs of small size.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

FLOAT, HALF = 4, 2  # bytes
GIB = 2**30
IMAGENET = 1_281_167  # images
BATCH = 1024
PEAK, SHARE = 989e12, 0.4  # dense bfloat16 operations per second of an H100, and the share of them that is hoped for
MEMORY = 80e9  # bytes of an H100
ROOM = 0.8  # the share of it that the sums here may take
HOST = 8  # devices of a host
WITHIN, BETWEEN = 450e9, 50e9  # bytes per second and device each way: NVLink in a host, 400 Gbit/s between hosts


class Count(NamedTuple):
    """Numbers of parameters: of leaves that are split over devices, and of those too small for it."""

    large: int
    small: int


@dataclass(frozen=True)
class Transformer:
    """A transformer of fmd with SwiGLU, RMSNorm of queries and keys, a bottleneck and class tokens."""

    depth: int
    width: int
    heads: int
    bottleneck: int = 128
    class_tokens: int = 32
    class_tokens_from: int = 4
    patch: int = 16
    side: int = 256
    channels: int = 3
    classes: int = 1000

    @property
    def hidden(self) -> int:
        return 8 * math.ceil(self.width / 3)

    @property
    def patches(self) -> int:
        return (self.side // self.patch) ** 2

    @property
    def tokens(self) -> Iterator[int]:
        """n of each block."""
        for block in range(self.depth):
            yield self.patches + self.class_tokens * (block >= self.class_tokens_from)


def block_parameters(net: Transformer) -> Count:
    """Kernels: adaLN 6 d^2, attention 4 d^2, perceptron 3 d m; then biases and scales."""
    d, m = net.width, net.hidden
    return Count(10 * d * d + 3 * d * m, 13 * d + 2 * m + 2 * d // net.heads)


def outside_parameters(net: Transformer) -> Count:
    """Kernels and tables of patches, times, labels, class tokens and the modulated output; then biases and scales."""
    d, patch = net.width, net.patch**2 * net.channels
    kernels = patch * net.bottleneck + net.bottleneck * d + d * patch + 256 * d + d * d + 2 * d * d
    tables = (net.classes + 1) * d + net.class_tokens * d
    return Count(kernels + tables, d + patch + 2 * d + 2 * d + d)


def parameters(net: Transformer) -> int:
    """All of them."""
    return net.depth * sum(block_parameters(net)) + sum(outside_parameters(net))


def forward_operations(net: Transformer) -> int:
    """Operations of one image and one forward pass; a multiplication and an addition are two.

    2 n (4 d^2 + 3 d m) + 4 n^2 d for each block, and 12 d^2 for its modulation, which is computed once per image.
    """
    d, patch = net.width, net.patch**2 * net.channels
    blocks = sum(2 * n * (4 * d * d + 3 * d * net.hidden) + 4 * n * n * d + 12 * d * d for n in net.tokens)
    ends = net.patches * (patch * net.bottleneck + net.bottleneck * d + d * patch)
    return blocks + 2 * (ends + 256 * d + d * d + 2 * d * d)


def step_operations(net: Transformer, remat: bool) -> int:
    """Operations of one image in training: forward, gradients of inputs and of weights, and forward again by remat."""
    return (4 if remat else 3) * forward_operations(net)


def state_bytes(block: Count, depth: int, outside: Count, *, fsdp: int, averages: int, moments: int = 2) -> int:
    """Bytes per device of parameters, moments and averages."""
    large, small = depth * block.large + outside.large, depth * block.small + outside.small
    return FLOAT * (1 + moments + averages) * (large // fsdp + small)


def gradient_bytes(block: Count, depth: int, outside: Count, *, fsdp: int) -> int:
    """Bytes per device that a step needs for parameters that are gathered and for gradients.

    The gradients of all blocks in parts, one block and its gradient whole, what is outside the blocks and its gradient
    whole.
    """
    return FLOAT * (depth * (block.large // fsdp + block.small) + 2 * sum(block) + 2 * sum(outside))


def wire_bytes(block: Count, depth: int, outside: Count) -> dict[str, int]:
    """Bytes in the results of a step's collectives.

    Each block is gathered twice, forward and backward, the rest once; the gradients are summed once.
    """
    gathered = FLOAT * (2 * depth * block.large + outside.large)
    return {"all-gather": gathered, "all-reduce": FLOAT * (depth * sum(block) + sum(outside))}


def block_bytes(net: Transformer, n: int) -> int:
    """Bytes per image that one block keeps between its forward and its backward pass, attention by "xla"."""
    d, m, h = net.width, net.hidden, net.heads
    return n * (68 * d + 12 * m + 16) + 6 * h * n * n + 24 * n * h + 16 * d


def kept_bytes(net: Transformer, n: int, remat: bool) -> int:
    """Bytes per image that a scanned block leaves for the backward pass.

    With remat its input, 2 n d. Without, where blocks are gathered, the results of matrix products, too: see
    fmd.models.stacks.
    """
    d, m, h = net.width, net.hidden, net.heads
    return HALF * n * d if remat else HALF * (7 * n * d + 2 * n * m + 6 * d) + FLOAT * h * n * n


def activation_bytes(net: Transformer, remat: bool) -> int:
    """Bytes per image at the peak: what all blocks leave, and all of one that is computed again."""
    return sum(kept_bytes(net, n, remat) for n in net.tokens) + block_bytes(net, max(net.tokens))


def wire_seconds(sizes: Mapping[str, int], hosts: int) -> float:
    """Seconds of a step's collectives in rings, if nothing is computed meanwhile.

    Gathering S bytes brings each of f devices (f - 1) / f S; summing them sends as much twice. Between m hosts the sum
    crosses 2 (m - 1) / m S bytes, an equal part over the link of each device.
    """
    in_host = (HOST - 1) / HOST * (sizes["all-gather"] + 2 * sizes["all-reduce"])
    return in_host / WITHIN + 2 * (hosts - 1) / hosts * sizes["all-reduce"] / HOST / BETWEEN


class Plan(NamedTuple):
    """One network on some hosts; bytes and seconds are per device and step."""

    remat: bool
    state: int
    gradients: int
    activations: int
    wire: dict[str, int]
    computing: float
    sending: float
    operations: float  # of all training
    images_per_second: float
    days: float


def plan(net: Transformer, epochs: int, devices: int) -> Plan:
    """The plan for a number of devices; computes blocks again where they would not fit otherwise."""
    parts = block_parameters(net), net.depth, outside_parameters(net)
    state, gradients = state_bytes(*parts, fsdp=HOST, averages=3), gradient_bytes(*parts, fsdp=HOST)
    images = BATCH // devices
    remat = state + gradients + images * activation_bytes(net, remat=False) > ROOM * MEMORY
    wire = wire_bytes(*parts)
    computing = images * step_operations(net, remat) / (SHARE * PEAK)
    sending = wire_seconds(wire, devices // HOST)
    speed = BATCH / max(computing, sending)
    trained = epochs * IMAGENET
    return Plan(
        remat=remat,
        state=state,
        gradients=gradients,
        activations=images * activation_bytes(net, remat),
        wire=wire,
        computing=computing,
        sending=sending,
        operations=trained * step_operations(net, remat),
        images_per_second=speed,
        days=trained / speed / 86400,
    )


JIT = {  # at patch 16 and 256 pixels, with the epochs of arXiv 2511.13720
    "B": (Transformer(12, 768, 12), 600),
    "L": (Transformer(24, 1024, 16, class_tokens_from=8), 600),
    "G": (Transformer(40, 1664, 16, bottleneck=256, class_tokens_from=10), 320),
}
COLUMNS = (
    "JiT", "devices", "remat", "state", "gradients, block", "activations", "sum, GiB", "gathered, GB", "summed, GB",
    "computing, ms", "sending, ms", "images/s", "10^18 operations", "days",
)  # fmt: skip


def table() -> str:
    """All plans in Markdown."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS)]
    for name, (net, epochs) in JIT.items():
        for devices in (8, 64, 256):
            p = plan(net, epochs, devices)
            sizes = [f"{size / GIB:.1f}" for size in (p.state, p.gradients, p.activations)]
            total = (p.state + p.gradients + p.activations) / GIB
            wire = [f"{p.wire[kind] / 1e9:.1f}" for kind in ("all-gather", "all-reduce")]
            times = [f"{1e3 * seconds:.0f}" for seconds in (p.computing, p.sending)]
            rest = f"{p.images_per_second:,.0f}", f"{p.operations / 1e18:,.0f}", f"{p.days:.2g}"
            remat = "yes" if p.remat else "no"
            rows.append((name, str(devices), remat, *sizes, f"{total:.1f}", *wire, *times, *rest))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


if __name__ == "__main__":
    print(table())
