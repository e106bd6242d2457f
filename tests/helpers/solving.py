"""Shared by the tests of solvers."""

import jax

from fmd.math.simulators import solve_ode


def solve(field, x0, args=None, **options):
    """solve_ode as one compiled program, as samplers call it; for a test also the faster way."""
    return jax.jit(lambda x0, args: solve_ode(field, x0, args=args, **options))(x0, args)


def gaussian_field(variance):
    """Velocity of the linear path to N(0, variance): x(1) = sqrt(variance) x(0)."""

    def field(t, x, args=None):
        return (t * variance - (1 - t)) / (t**2 * variance + (1 - t) ** 2) * x

    return field
