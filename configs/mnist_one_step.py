"""MNIST digits in one evaluation of the network: a flow, its guidance, its jumps, then their distribution.

    python -m fmd.main --config=configs/mnist_one_step.py
    python -m fmd.main --mode=sample --checkpoint=runs/mnist_one_step --n_samples=1000 --outfile=digits.npz

Four runs by one command, each beginning with the weights of the one before. Flow matching in WORKDIR/first/first/first
teaches the last run, and a network in WORKDIR/first/first that is guided by itself. That one needs one evaluation where
guidance needs two, and teaches the jumps in WORKDIR/first: their integrals are solved. Distribution matching is in
WORKDIR. With a trained flow, say RUN of the same model, `time_frequencies` included, without the first of them:

    python -m fmd.main --config=configs/mnist_one_step.py --config.teacher=RUN --config.first.first.init_from=RUN \\
        --config.first.first.first=None

More guidance in the last stage makes digits more legible and their FID worse. `--solver=midpoint --steps=5
--weight=1` solves the flow of the same network. On an accelerator the recipe is not measured yet; what it costs and
reaches on a CPU is in experiments/reference.

The model `mnist` that ships with fmd is that of this recipe on a CPU, with figures of one evaluation and of 10:

    C=runs/mnist_one_step/checkpoints/250
    F="--mode=eval --checkpoint=$C --classes=balanced"
    python -m fmd.main $F --n_samples=2000 --solver=midpoint --steps=5 --weight=1.0
    mv $C/eval.json $C/eval_flow.json
    python -m fmd.main $F && rm -r fmd/shipped/mnist
    python -m fmd.main --mode=export --compact --checkpoint=$C --out=fmd/shipped/mnist
"""

from ml_collections import ConfigDict


def get_config(source: str = "mnist", weight: float = 1.3, last: float = 1.3) -> ConfigDict:
    """`weight` is that of the guidance whose jumps are learnt, `last` that of the teacher of the last stage."""
    config = ConfigDict()
    config.seed = 123
    config.data = {"source": source}
    # Flat times: jumps are trained on the network's derivative with respect to t.
    config.model = {"name": "unet", "base_channels": 64, "channel_multipliers": (1, 2, 2), "num_res_blocks": 2,
                    "attention_resolutions": (7,), "time_frequencies": (0.1, 5.0), "dtype": "bfloat16"}  # fmt: skip
    config.path = {"times": {"name": "stratified"}}
    config.train = {"batch_size": 512, "label_dropout": 0.1}
    guidance = {"name": "cfg", "weight": weight}
    config.sample = {"guidance": {"name": "cfg", "weight": 1.0}, "solver": "jump", "steps": 1}
    config.log = {"every": 50, "eval_every": 0}

    flow = {"method": {"name": "flow_matching", "clip_data": True},
            "sample": {"guidance": guidance, "solver": "midpoint", "steps": 5}}  # fmt: skip
    taught = {"name": "mean_flow", "tangent": "teacher", "target": "teacher", "power": 0.0, "clip_data": True}
    # Runs before the last take over the parameters of a method of the same name, so steps are said in both.
    guided = {"method": taught | {"equal": 1.0, "steps": 0, "guidance": guidance},
              "sample": {"solver": "midpoint", "steps": 5}}  # fmt: skip
    jumps = {"method": taught | {"equal": 0.35, "ends": 0.6, "steps": 4, "guidance": guidance | {"weight": 1.0}}}
    config.method = {"name": "distribution_matching", "guidance": guidance | {"weight": last}, "clip_data": True,
                     "keep_flow": 0.5}  # fmt: skip
    config.teacher = "first/first/first"

    config.train.num_steps = 5000
    config.optimizer = {"name": "adam", "learning_rate": 2e-5, "b2": 0.99, "final_fraction": 0.3}
    config.ema = {"decays": (0.999,)}
    flow |= _run(20_000, 1e-3, 0.9995)
    config.first = jumps | _run(5000, 3e-4, 0.999) | {"first": guided | _run(2000, 3e-4, 0.999) | {"first": flow}}

    config.on_cpu = {
        "model": {"base_channels": 48, "channel_multipliers": (1, 2), "num_res_blocks": 1, "patch_size": 2,
                  "embedding_dim": 192, "attention_resolutions": (), "dtype": "float32"},
        "train": {"num_steps": 250, "batch_size": 64},
        "optimizer": {"name": "muon", "learning_rate": 3e-4},
        "ema": {"decays": (0.995,)},
        "first": _run(1200, 6e-3, 0.99) | {"first": _run(400, 6e-3, 0.99) | {"first": _run(6000, 6e-3, 0.995)}},
    }  # fmt: skip
    return config


def _run(steps: int, learning_rate: float, decay: float) -> dict:
    """The keys that differ between the runs before the last."""
    return {
        "train": {"num_steps": steps},
        "optimizer": {"learning_rate": learning_rate, "b2": 0.999, "final_fraction": 0.0},
        "ema": {"decays": (decay,)},
    }
