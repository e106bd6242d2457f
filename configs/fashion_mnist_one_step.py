"""Fashion-MNIST in one evaluation of the network: a flow, its guidance, its jumps, then their distribution.

    python -m fmd.main --config=configs/fashion_mnist_one_step.py

Four runs by one command, each beginning with the weights of the one before. Flow matching in WORKDIR/first/first/first
teaches the last run, and a network in WORKDIR/first/first that is guided by itself. That one needs one evaluation where
guidance needs two, and teaches the jumps in WORKDIR/first: their integrals are solved, where configs/mnist_one_step.py
has MeanFlow's derivative. Distribution matching is in WORKDIR. With a trained flow, say RUN of the same model, without
the first of them:

    python -m fmd.main --config=configs/fashion_mnist_one_step.py --config.teacher=RUN \\
        --config.first.first.init_from=RUN --config.first.first.first=None

Figures are in experiments/reference; on an accelerator nothing is measured yet.

The model `fashion_mnist` that ships with fmd is of the recipe before (85b9ec1). That of this one on a CPU, with figures
of one evaluation and of 20:

    C=runs/fashion_mnist_one_step/checkpoints/250
    F="--mode=eval --checkpoint=$C --classes=balanced"
    python -m fmd.main $F --n_samples=2000 --solver=midpoint --steps=5 --weight=1.5
    mv $C/eval.json $C/eval_flow.json
    python -m fmd.main $F && rm -r fmd/shipped/fashion_mnist
    python -m fmd.main --mode=export --compact --checkpoint=$C --out=fmd/shipped/fashion_mnist
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    recipe = runpy.run_path(str(Path(__file__).with_name("mnist_one_step.py")))
    run = recipe["run"]
    config: ConfigDict = recipe["get_config"]("fashion_mnist", weight=1.5, last=1.6)
    taught = {"name": "mean_flow", "tangent": "teacher", "target": "teacher", "power": 0.0, "clip_data": True}
    guided = {"method": taught | {"equal": 1.0, "steps": 0, "guidance": {"name": "cfg", "weight": 1.5}},
              "sample": {"solver": "midpoint", "steps": 5}}  # fmt: skip
    jumps = {"method": taught | {"equal": 0.35, "ends": 0.6, "steps": 4, "guidance": {"name": "cfg", "weight": 1.0}}}
    flow, flow_on_cpu = config.first.first, config.on_cpu.first.first
    config.first = jumps | run(5000, 3e-4, 0.999) | {"first": guided | run(2000, 3e-4, 0.999) | {"first": flow}}
    config.on_cpu.first = run(600, 6e-3, 0.99) | {"first": run(400, 6e-3, 0.99) | {"first": flow_on_cpu}}
    config.teacher = "first/first/first"
    return config
