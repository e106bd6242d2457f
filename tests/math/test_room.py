"""The example on the room's page runs, and importing the room starts nothing."""

import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np

import fmd.math


def test_the_example_on_the_page_runs():
    example = fmd.math.__doc__[fmd.math.__doc__.index("    from fmd.math import") :]
    keys = jax.random.split(jax.random.key(0), 3)
    x0, x1, noise = (jax.random.normal(key, (3, 2, 2, 1)) for key in keys)
    scope = {"key": keys[0], "batch": 3, "x0": x0, "x1": x1, "noise": noise, "null_label": 2}
    scope |= {"labels": jnp.asarray([0, 1, 1], jnp.int32)}
    scope["predict"] = lambda x, t, y: y.astype(x.dtype)[:, None, None, None] - x
    exec(textwrap.dedent(example), scope)
    assert scope["x_t"].shape == scope["target"].shape == (3, 2, 2, 1)
    # dx/dt = c - x with c = y, and inside [0.2, 0.9] c = 2 + 3 (y - 2).
    outside, inside = np.asarray([0, 1, 1]), 2 + 3 * (np.asarray([0, 1, 1]) - 2)
    expected = np.asarray(noise)
    for length, target in ((0.2, outside), (0.7, inside), (0.1, outside)):
        target = target[:, None, None, None]
        expected = target + (expected - target) * np.exp(-length)
    np.testing.assert_allclose(scope["images"], expected, atol=0.1)  # Heun steps across the jumps


def test_importing_the_room_or_the_methods_starts_no_backend_and_loads_nothing_heavy():
    """A platform that does not exist would fail as soon as a backend started."""
    code = """
        import sys
        import fmd.math.couplings, fmd.math.few_step, fmd.math.fields, fmd.math.likelihood, fmd.math.times
        import fmd.methods.distribution_matching, fmd.methods.flow_matching, fmd.methods.mean_flow
        data = {"tensorflow", "tensorflow_datasets", "array_record", "sklearn", "PIL", "matplotlib"}
        heavy = (data | {"flax", "orbax", "diffrax", "ml_collections"}) & set(sys.modules)
        assert not heavy, heavy
    """
    environment = {"JAX_PLATFORMS": "none_such", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
