"""fmd's UNet in PyTorch, layer by layer, as a user of PyTorch would write it: the other side of the comparison.

    python experiments/benchmarks/pytorch_unet.py     # needs torch and fmd: same parameters, same output

It takes images [B, C, H, W] whose sides the coarsest grid divides. Resampling is pixel_unshuffle and pixel_shuffle with
1x1 convolutions, normalisation is torch's own; nothing is left out and nothing is slower than it has to be.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ScaleShiftNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(math.gcd(32, width), width, eps=1e-5)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        h = self.norm(x)
        if condition is None:
            return h
        scale, shift = condition[:, :, None, None].chunk(2, dim=1)
        return h * (1 + scale) + shift


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, width: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm_1 = ScaleShiftNorm(inputs)
        self.conv_1 = nn.Conv2d(inputs, width, 3, padding=1)
        self.condition = nn.Linear(embedding, 2 * width)
        self.norm_2 = ScaleShiftNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = zeroed(nn.Conv2d(width, width, 3, padding=1))
        self.skip = nn.Conv2d(inputs, width, 1) if inputs != width else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv_1(F.silu(self.norm_1(x)))
        h = F.silu(self.norm_2(h, self.condition(F.silu(embedding))))
        return self.skip(x) + self.conv_2(self.dropout(h))


class SelfAttention(nn.Module):
    def __init__(self, width: int, head_dim: int) -> None:
        super().__init__()
        self.heads = math.gcd(width, max(1, width // head_dim))
        self.norm = ScaleShiftNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        flat = self.norm(x).permute(0, 2, 3, 1).reshape(b, h * w, c)
        qkv = self.query_key_value(flat).reshape(b, h * w, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h, w, c)
        return x + self.out(out).permute(0, 3, 1, 2)


class UNet(nn.Module):
    """Arguments as in fmd.models.unet."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int = 10,
        base_channels: int = 64,
        channel_multipliers: tuple[int, ...] = (1, 2),
        num_res_blocks: int = 2,
        patch_size: int = 1,
        attention_resolutions: tuple[int, ...] = (),
        head_dim: int = 64,
        embedding_dim: int = 256,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        height, _, channels = image_shape
        widths = [base_channels * m for m in channel_multipliers]
        attends = [height // (patch_size * 2**i) in attention_resolutions for i in range(len(widths))]
        folded = channels * patch_size**2
        self.patch_size, self.num_res_blocks, self.half = patch_size, num_res_blocks, embedding_dim // 2
        self.time = nn.Sequential(
            nn.Linear(embedding_dim, embedding_dim), nn.SiLU(), nn.Linear(embedding_dim, embedding_dim)
        )
        self.label = nn.Embedding(num_classes + 1, embedding_dim)
        nn.init.normal_(self.label.weight, std=0.02)

        def block(inputs: int, width: int) -> ResidualBlock:
            return ResidualBlock(inputs, width, embedding_dim, dropout)

        def attention(level: int) -> nn.Module:
            return SelfAttention(widths[level], head_dim) if attends[level] else nn.Identity()

        self.conv_in = nn.Conv2d(folded, widths[0], 3, padding=1)
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        now, skips = widths[0], []
        for i, width in enumerate(widths):
            level = nn.ModuleDict()
            if i > 0:
                level["sample"] = nn.Conv2d(4 * now, width, 1)
                now = width
            for j in range(num_res_blocks):
                level[f"block_{j}"], level[f"attention_{j}"] = block(now, width), attention(i)
                now = width
                skips.append(width)
            self.downs.append(level)
        self.middle = nn.ModuleList([block(now, now), attention(-1), block(now, now)])
        for i in reversed(range(len(widths))):
            level = nn.ModuleDict()
            for j in range(num_res_blocks):
                level[f"block_{j}"], level[f"attention_{j}"] = block(now + skips.pop(), widths[i]), attention(i)
                now = widths[i]
            if i > 0:
                level["sample"] = nn.Conv2d(now, 4 * widths[i - 1], 1)
                now = widths[i - 1]
            self.ups.append(level)
        self.norm_out = ScaleShiftNorm(now)
        self.conv_out = zeroed(nn.Conv2d(now, folded, 3, padding=1))
        self.register_buffer("frequencies", torch.from_numpy(np.geomspace(1, 1000, self.half, dtype=np.float32)))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        phase = t[:, None] * self.frequencies
        embedding = self.time(torch.cat([phase.sin(), phase.cos()], dim=1)) + self.label(y)
        h = self.conv_in(F.pixel_unshuffle(x, self.patch_size))
        skips = []
        for level in self.downs:
            if "sample" in level:
                h = level["sample"](F.pixel_unshuffle(h, 2))
            for j in range(self.num_res_blocks):
                h = level[f"attention_{j}"](level[f"block_{j}"](h, embedding))
                skips.append(h)
        first, attention, second = self.middle
        h = second(attention(first(h, embedding)), embedding)
        for level in self.ups:
            for j in range(self.num_res_blocks):
                h = level[f"block_{j}"](torch.cat([h, skips.pop()], dim=1), embedding)
                h = level[f"attention_{j}"](h)
            if "sample" in level:
                h = F.pixel_shuffle(level["sample"](h), 2)
        with torch.autocast(x.device.type, enabled=False):
            h = self.conv_out(F.silu(self.norm_out(h.float())))
        return F.pixel_shuffle(h, self.patch_size)

    def load_flax(self, params: dict) -> None:
        """Takes the parameters of fmd's UNet, for images of one channel.

        pixel_unshuffle orders channels (c, row, column), fold orders them (row, column, c).
        """

        def put(layer: nn.Module, source: dict, *, folded_in: int = 1, folded_out: int = 1) -> None:
            kernel, bias = (np.asarray(source[k]) for k in ("kernel", "bias"))
            if folded_in > 1:
                kernel = np.swapaxes(kernel.reshape(folded_in, -1, kernel.shape[-1]), 0, 1).reshape(kernel.shape)
            if folded_out > 1:
                kernel = np.swapaxes(kernel.reshape(*kernel.shape[:-1], folded_out, -1), -1, -2).reshape(kernel.shape)
                bias = bias.reshape(folded_out, -1).T.reshape(-1)
            axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
            kernel = kernel.transpose(axes)
            layer.weight.data.copy_(torch.tensor(kernel).reshape(layer.weight.shape))
            layer.bias.data.copy_(torch.tensor(bias))

        def put_norm(layer: ScaleShiftNorm, source: dict) -> None:
            layer.norm.weight.data.copy_(torch.tensor(np.asarray(source["scale"])))
            layer.norm.bias.data.copy_(torch.tensor(np.asarray(source["bias"])))

        def put_block(layer: ResidualBlock, source: dict) -> None:
            put_norm(layer.norm_1, source["norm_1"])
            put_norm(layer.norm_2, source["norm_2"])
            for name in ("conv_1", "conv_2", "condition", *(["skip"] if "skip" in source else [])):
                put(getattr(layer, name), source[name])

        def put_attention(layer: nn.Module, source: dict | None) -> None:
            if source is not None:
                put_norm(layer.norm, source["norm"])
                put(layer.query_key_value, source["query_key_value"])
                put(layer.out, source["out"])

        put(self.time[0], params["time"]["dense_1"])
        put(self.time[2], params["time"]["dense_2"])
        self.label.weight.data.copy_(torch.tensor(np.asarray(params["label"]["table"]["embedding"])))
        put(self.conv_in, params["conv_in"])
        for i, (down, up) in enumerate(zip(self.downs, reversed(self.ups), strict=True)):
            for j in range(self.num_res_blocks):
                put_block(down[f"block_{j}"], params[f"down_{i}_block_{j}"])
                put_block(up[f"block_{j}"], params[f"up_{i}_block_{j}"])
                put_attention(down[f"attention_{j}"], params.get(f"down_{i}_attention_{j}"))
                put_attention(up[f"attention_{j}"], params.get(f"up_{i}_attention_{j}"))
            if i > 0:
                put(down["sample"], params[f"down_{i}_sample"]["linear"], folded_in=4)
                put(up["sample"], params[f"up_{i}_sample"]["linear"], folded_out=4)
        put_block(self.middle[0], params["middle_block_0"])
        put_attention(self.middle[1], params.get("middle_attention"))
        put_block(self.middle[2], params["middle_block_1"])
        put_norm(self.norm_out, params["norm_out"])
        put(self.conv_out, params["conv_out"])


def zeroed(layer: nn.Module) -> nn.Module:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def main() -> None:
    import jax

    from fmd.models.registry import build_model

    for settings in (
        {"patch_size": 2, "base_channels": 32, "num_res_blocks": 1, "embedding_dim": 96},
        {"base_channels": 16, "channel_multipliers": (1, 2, 3), "attention_resolutions": (7, 14), "head_dim": 16},
    ):
        model = build_model("unet", settings | {"num_classes": 10})
        rng = np.random.default_rng(0)
        x, t = rng.normal(size=(4, 28, 28, 1)).astype(np.float32), rng.uniform(size=4).astype(np.float32)
        y = np.array([0, 3, 9, 10], np.int32)
        shapes = jax.eval_shape(model.init, jax.random.key(0), x, t, y)["params"]
        leaves, tree = jax.tree.flatten(shapes)
        drawn = [rng.normal(0, leaf.shape[0] ** -0.5 / 3, leaf.shape).astype(np.float32) for leaf in leaves]
        params = jax.tree.unflatten(tree, drawn)
        expected = np.asarray(jax.jit(model.apply)({"params": params}, x, t, y))
        other = UNet((28, 28, 1), **settings)
        other.load_flax(params)
        with torch.no_grad():
            got = other(torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(t), torch.tensor(y, dtype=torch.long))
        counts = sum(p.size for p in jax.tree.leaves(params)), sum(p.numel() for p in other.parameters())
        error = np.abs(got.permute(0, 2, 3, 1).numpy() - expected).max() / np.abs(expected).max()
        print(f"{settings}: {counts[0]:,} and {counts[1]:,} parameters, largest relative difference {error:.1e}")
        if counts[0] != counts[1] or error > 1e-4:
            raise SystemExit("they differ")


if __name__ == "__main__":
    main()
