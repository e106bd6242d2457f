"""Compiler options for XLA's CPU backend, which by default is slow at what a UNet does between its convolutions.

    jax.jit(step, compiler_options=cpu_compiler_options())

hands reductions (group normalisation, bias gradients) and matrix products to the YNN library: on two AVX-512 cores
the UNet's train step became 1.6 times as fast. The numbers stay the same to rounding.

XLA's CPU backend brings the convolutions of a gradient into its fast form in the main computation only, not in the
body of a loop, where they run 20 to 50 times slower. `unroll_gradients` says by how much to unroll such a loop.
"""

import functools

import jax
import jax.numpy as jnp

CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE",
}


def cpu_compiler_options() -> dict[str, str]:
    """Options for jax.jit(..., compiler_options=...): those that help on a CPU, and {} on any other backend.

    The first call starts the backend and compiles a trivial function per option: one that this jaxlib does not know
    is left out instead of failing.
    """
    return dict(_known_cpu_options()) if jax.default_backend() == "cpu" else {}


def unroll_gradients(length: int) -> int:
    """What to give jax.lax.scan(unroll=...) for a loop of `length` over gradients: all of it on a CPU, else 1."""
    return length if jax.default_backend() == "cpu" else 1


@functools.cache
def _known_cpu_options() -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in CPU_OPTIONS.items() if _compiles({name: value}))


def _compiles(options: dict[str, str]) -> bool:
    try:
        jax.jit(jnp.negative, compiler_options=options).lower(jax.ShapeDtypeStruct((), jnp.float32)).compile()
    except Exception:  # which class depends on the version of jaxlib
        return False
    return True
