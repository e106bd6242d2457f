"""Stage: the training step of a transformer, S/2 on CIFAR-10 in bfloat16: utilisation, attention, recomputing."""

import stage as stages
from variants import compare

TINY = {"model.depth": 2, "model.width": 16, "model.heads": 2, "train.batch_size": 8, "train.steps_per_dispatch": 1}
VARIANTS = {
    "as it is": {},
    "cuDNN attention": {"overrides": {"model.attention": "cudnn"}},
    "recomputed blocks": {"overrides": {"model.remat": True}},
    "no dropout": {"overrides": {"model.dropout": 0.0}},
}
TARGET = 0.4


def main(stage: stages.Stage) -> None:
    name = "variants of the transformer"
    chosen = {name: VARIANTS[name] for name in (("as it is", "recomputed blocks") if stage.tiny else VARIANTS)}
    compare(stage, name, "cifar10_transformer", chosen, TINY if stage.tiny else {},
            train_images=64 if stage.tiny else 50_000, kernels=not stage.tiny)  # fmt: skip
    shares = [one.get("utilisation") for one in stage.found[name]["variants"].values()]
    best = max((share for share in shares if share is not None), default=None)
    if best is not None:
        stage.row("transformer S/2, utilisation", f"{best:.1%} at best", f"{TARGET:.0%}", best >= TARGET)


if __name__ == "__main__":
    stages.run(main)
