"""The work of the training step and the sampler, counted from what they trace to; stored in tests/operations.json.

python -m tests.helpers.operations          # writes the counts anew; the commit says why they changed

Floating-point operations of convolutions, dense layers and attention (`fmd.models.flops`); "equations", the other
operations that are written down, loops once; "numbers", all elements that these give, loops as often as they run. The
last two are what convolutions leave: passes over images that were not there before show in them.
"""

import json
import math
import os
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "operations.json"
PROGRAMS = ("training step", "sampler")
CONFIGS = ("mnist_cfg_strong", "mnist_transformer")
ROUGH = {"equations": 0.02, "numbers": 0.003}  # shares by which versions of JAX may differ; the others are exact
AGAIN = "if that is meant, say so in the commit and run python -m tests.helpers.operations"


def counted(name: str) -> dict[str, dict[str, int]]:
    """The counts of both programs of a config's CPU recipe, by kind."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from fmd import config as configs
    from fmd.data import ImageDataset, Split
    from fmd.models import flops
    from fmd.sampling.sampler import Sampler
    from fmd.training import recipe as recipes
    from tests.helpers import toys

    config = configs.resolve(configs.apply_on_cpu(configs.load_file(ROOT / "configs" / f"{name}.py")))
    split = Split(np.zeros((10, 28, 28, 1), np.uint8), np.arange(10, dtype=np.int32))
    lab = toys.Lab(config, toys.layout("jit", 1), ImageDataset("zeros", split, split, 10, "the tests"))
    sampler = Sampler(lab.model, None, recipes.make_info(config, lab.data), lab.layout)
    batch = config.train.batch_size
    rows = jax.ShapeDtypeStruct((config.train.steps_per_dispatch, batch), jnp.int32)
    labels, weight = jax.ShapeDtypeStruct((batch,), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32)
    key, params = jax.eval_shape(lambda: jax.random.key(0)), lab.abstract.params
    step = lab.program.trace(lab.abstract, lab.resident, {"index": rows, "rows": rows})
    sample = sampler.program(config.sample).trace(params, None, key, weight, labels, labels)
    programs = dict(zip(PROGRAMS, (step.jaxpr, sample.jaxpr), strict=True))
    return {what: dict(flops.count(program) + written(program)) for what, program in programs.items()}


def written(program) -> Counter[str]:
    """The equations of a traced program and the numbers that they give."""
    from jax.extend.core import jaxprs_in_params

    from fmd.models import flops

    found = Counter()
    for equation in program.eqns:
        inner = list(jaxprs_in_params(equation.params))
        for part in map(written, inner):
            found += Counter(equations=part["equations"], numbers=flops.times(equation) * part["numbers"])
        if not inner:
            found += Counter(equations=1, numbers=sum(math.prod(flops.shape(out)) for out in equation.outvars))
    return found


def changes(expected: dict[str, int], found: dict[str, int]) -> list[str]:
    """The differences beyond those of JAX's versions, in words."""
    kinds = sorted(expected.keys() | found.keys())
    pairs = [(kind, expected.get(kind, 0), found.get(kind, 0)) for kind in kinds]
    return [
        f"{kind} {old:,} -> {new:,}{f' ({new / old - 1:+.1%})' if old else ''}"
        for kind, old, new in pairs
        if abs(new - old) > ROUGH.get(kind, 0.0) * old
    ]


def stored(name: str) -> dict[str, dict[str, int]]:
    """The counts of the file."""
    return json.loads(FILE.read_text())[name]


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    FILE.write_text(json.dumps({name: counted(name) for name in CONFIGS}, indent=2) + "\n")
    print(f"written to {FILE}")
