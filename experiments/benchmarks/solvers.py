"""The cost of Diffrax over a hand-written lax.scan of the same solver around the same guided network.

    python experiments/benchmarks/solvers.py --json=solvers.json

Heun's method, 20 steps, 64 images, the network of configs/digits.py with guidance weight 2. Both programs are compiled
with the same options, run in turn and must agree.
"""

import argparse
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from bench import HERE, machine, save, table
from jax_worker import resolve

from fmd.devices import cpu_compiler_options
from fmd.math import fields, guidance
from fmd.math.simulators import solve_ode
from fmd.models.registry import build_model

STEPS, COUNT = 20, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()
    facts = machine()

    config = resolve({"config": str(HERE.parent.parent / "configs" / "digits.py")})
    model = build_model(config.model["name"], {**config.model, "num_classes": 10})
    x0, labels = jax.random.normal(jax.random.key(0), (COUNT, 8, 8, 1)), jnp.arange(COUNT) % 10
    shapes = jax.eval_shape(model.init, jax.random.key(0), x0, jnp.zeros(COUNT), labels)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.05, leaf.shape), leaf.dtype), shapes)

    def guided(params):
        velocity = lambda x, t, y: model.apply(params, x, jnp.broadcast_to(t, (len(x),)), y)  # noqa: E731
        return fields.guided_field(velocity, 10, guidance.get("cfg", weight=2.0))

    def with_diffrax(params, x0):
        return solve_ode(guided(params), x0, args=labels, solver="heun", steps=STEPS, end_epsilon=0.0).x

    def by_hand(params, x0):
        field = guided(params)

        def step(x, now):
            then = now + 1 / STEPS
            first = field(now, x, labels)
            second = field(then, x + (then - now) * first, labels)
            return x + (then - now) * (first + second) / 2, None

        return jax.lax.scan(step, x0, jnp.arange(STEPS) / STEPS)[0]

    programs, compile_seconds = {}, {}
    for name, function in {"diffrax": with_diffrax, "lax.scan": by_hand}.items():
        started = time.perf_counter()
        jitted = jax.jit(function, compiler_options=cpu_compiler_options())
        programs[name] = jitted.lower(params, x0).compile()
        compile_seconds[name] = time.perf_counter() - started
    results = {name: np.asarray(program(params, x0)) for name, program in programs.items()}
    np.testing.assert_allclose(results["diffrax"], results["lax.scan"], rtol=1e-4, atol=1e-4)

    seconds = {name: [] for name in programs}
    end = time.monotonic() + args.seconds
    while time.monotonic() < end:
        for name, program in programs.items():
            started = time.perf_counter()
            program(params, x0).block_until_ready()
            seconds[name].append(time.perf_counter() - started)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = middle["diffrax"] / middle["lax.scan"]
    rows = [
        [n, f"{m * 1e3:.1f}", f"{min(seconds[n]) * 1e3:.1f}", f"{compile_seconds[n]:.1f}"] for n, m in middle.items()
    ]
    print(table(["", "median ms", "best ms", "compile s"], rows) + f"\ndiffrax / lax.scan: {ratio:.3f}")
    save(
        args.json,
        {
            "median_seconds": middle,
            "compile_seconds": compile_seconds,
            "calls": len(seconds["diffrax"]),
            "ratio": ratio,
        },
        facts | {"jax": jax.__version__},
    )


if __name__ == "__main__":
    main()
