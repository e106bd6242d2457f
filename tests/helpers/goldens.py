"""Golden numbers: the first training step of each method, stored in tests/goldens.json.

python -m tests.helpers.goldens          # writes them anew; the commit says why they changed
"""

import dataclasses
import json
import os
from pathlib import Path

FILE = Path(__file__).parents[1] / "goldens.json"
METHODS = ("flow_matching", "mean_flow", "shortcut", "bridge", "regression")
FROM_IMAGES = {"bridge": {"source": "low", "gamma": 0.3, "paired": False}, "regression": {}}
MEANING = """
The first training step no longer gives the numbers stored in tests/goldens.json. Every result made with this version
differs from those of the versions before, and a run that they began would not go on as it was. If only the order of
float sums changed (another XLA), the differences are near 1e-6. Larger ones mean that the draws, the initial
parameters, the loss, the optimiser or the averages changed: if that is meant, say so in the commit and store the new
numbers."""


def first_step(method: str) -> dict[str, float]:
    """Loss, gradient norm and the sum of absolute parameters after one step of a toy run."""
    import jax
    import jax.numpy as jnp

    from fmd.config import ProbabilityPath
    from fmd.devices import make_layout
    from tests.helpers import toys

    block = {"name": method, **FROM_IMAGES.get(method, {})}
    config = toys.config() if method == "flow_matching" else toys.config(method=block, model=toys.UNET)
    if method == "regression":  # draws no times
        config = dataclasses.replace(config, path=ProbabilityPath())
    data = toys.pairs() if method in FROM_IMAGES else toys.dataset()
    state, report = toys.Lab(config, make_layout("jit", devices=jax.devices()[:1]), data).run(1)
    return {
        "loss": float(report.window.loss),
        "grad_norm": float(report.window.grad_norm),
        "parameters": sum(float(jnp.sum(jnp.abs(leaf))) for leaf in jax.tree.leaves(state.params)),
    }


def stored(method: str) -> dict[str, float]:
    """The numbers of the file."""
    return json.loads(FILE.read_text())[method]


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    found = {method: {name: round(x, 7) for name, x in first_step(method).items()} for method in METHODS}
    FILE.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written to {FILE}")
