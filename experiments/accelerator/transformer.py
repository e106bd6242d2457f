"""Stage: the training step of a transformer, S/2 on CIFAR-10 in bfloat16: utilisation, attention, recomputing."""

import jax
import jax.numpy as jnp
import stage as stages
from variants import compare

from fmd.models.layers import attention

TINY = {"model.depth": 2, "model.width": 16, "model.heads": 2, "train.batch_size": 8, "train.steps_per_dispatch": 1}
VARIANTS = {
    "as it is": {},
    "cuDNN attention": {"overrides": {"model.attention": "cudnn"}},
    "blocks not recomputed": {"overrides": {"model.remat": False}},
    "no dropout": {"overrides": {"model.dropout": 0.0}},
}
TARGET = 0.4
NEAR = 2e-2  # relative difference of attention by cuDNN and by XLA, of its value and its gradient


def main(stage: stages.Stage) -> None:
    apart = attention_by_cudnn()
    stage.row("attention, cuDNN against XLA", f"{apart:.1e}", f"{NEAR:.0e}", None if stage.tiny else apart <= NEAR)
    name = "variants of the transformer"
    chosen = {name: VARIANTS[name] for name in (("as it is", "blocks not recomputed") if stage.tiny else VARIANTS)}
    compare(stage, name, "cifar10_transformer", chosen, TINY if stage.tiny else {},
            train_images=64 if stage.tiny else 50_000, kernels=not stage.tiny)  # fmt: skip
    shares = [one.get("utilisation") for one in stage.found[name]["variants"].values()]
    best = max((share for share in shares if share is not None), default=None)
    if best is not None:
        stage.row("transformer S/2, utilisation", f"{best:.1%} at best", f"{TARGET:.0%}", best >= TARGET)


def attention_by_cudnn() -> float:
    """The largest relative difference of value and gradients, in bfloat16; 0 where there is no cuDNN."""
    q, k, v, g = (
        jax.random.normal(key, (8, 256, 6, 64), jnp.bfloat16) for key in jax.random.split(jax.random.key(0), 4)
    )

    @jax.jit
    def difference() -> jax.Array:
        both = []
        for implementation in ("xla", "cudnn"):
            value, backward = jax.vjp(lambda *qkv, by=implementation: attention(*qkv, by), q, k, v)
            both.append((value, *backward(g)))
        parts = [[part.astype(jnp.float32) for part in one] for one in both]
        errors = [jnp.linalg.norm((a - b).ravel()) / jnp.linalg.norm(a.ravel()) for a, b in zip(*parts, strict=True)]
        return jnp.max(jnp.stack(errors))

    return float(difference())


if __name__ == "__main__":
    stages.run(main)
