"""Derivatives of whole networks against differences, in float64."""

import jax
import jax.numpy as jnp
import numpy as np

STEP = 1e-5


def check_forward_mode(model, x, t, y, *, scale, jit):
    """The derivative of a network with a second time in (x, t, r) is that of central differences, to 1e-6.

    Parameters are noise of deviation `scale`, so that no path is silent as at initialisation.
    """
    generator = np.random.default_rng(0)
    with jax.enable_x64(True):
        shapes = jax.eval_shape(model.init, jax.random.key(0), x, t, y)
        params = jax.tree.map(lambda a: jnp.asarray(generator.normal(0, scale, a.shape)), shapes)
        point = [jnp.asarray(np.asarray(a), jnp.float64) for a in (x, t * 0.5, 0.6 + t * 0.3)]
        direction = [jnp.asarray(generator.normal(size=a.shape)) for a in point]
        y = jax.tree.map(lambda part: jnp.asarray(np.asarray(part)), y)

        @jit
        def both(point, direction):
            field = lambda x, t, r: model.apply(params, x, t, y, train=True, r=r)  # noqa: E731
            forward = jax.jvp(field, tuple(point), tuple(direction))[1]
            moved = (jax.tree.map(lambda a, d, h=h: a + h * d, point, direction) for h in (STEP, -STEP))
            ahead, behind = (field(*where) for where in moved)
            return forward, (ahead - behind) / (2 * STEP)

        forward, difference = both(point, direction)
    assert forward.dtype == np.float64
    np.testing.assert_allclose(forward, difference, rtol=1e-6, atol=1e-6 * np.abs(difference).max())
