"""Stage: what a review suspects of the training step, each against the step as it is, in one process in turn."""

import stage as stages
from speed import CONFIGS, TRAIN_IMAGES, compare, overrides

SUSPECTS = {
    "as it is": {},
    "no barriers": {"change": "no barriers"},
    "layers over four axes": {"change": "layers over four axes"},
    "Flax's group normalisation": {"change": "Flax's group normalisation"},
    "no dropout": {"overrides": {"model.dropout": 0.0}},
    "deterministic": {"compiler": {"xla_gpu_deterministic_ops": True}},
}


def main(stage: stages.Stage) -> None:
    chosen = {name: one for name, one in SUSPECTS.items() if not stage.tiny or not one or "change" in one}
    for case in ("mnist",) if stage.tiny else ("cifar10", "mnist"):
        try:
            compare(stage, f"suspects of {case}", CONFIGS[case], chosen, overrides(stage, case),
                    train_images=64 if stage.tiny else TRAIN_IMAGES[case])  # fmt: skip
        except Exception as error:
            stage.row(f"suspects of {case}", f"failed: {str(error)[:200]}")


if __name__ == "__main__":
    stages.run(main)
