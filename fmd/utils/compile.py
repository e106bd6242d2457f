"""Compiler options for `jax.jit` that make the CPU faster. Options that the installed XLA does not know are dropped."""

import functools

import jax

# XLA's own reductions, of which group normalisation is made, cost more than the convolutions beside them.
CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


@functools.cache
def compiler_options() -> dict[str, str]:
    """What to pass as `jax.jit(..., compiler_options=...)` for the default backend; starts it."""
    if jax.default_backend() != "cpu":
        return {}
    return {name: value for name, value in CPU_OPTIONS.items() if _is_known(name, value)}


def _is_known(name: str, value: str) -> bool:
    """Compiles an empty program with the option: XLA refuses names and values that it does not have."""
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except (jax.errors.JaxRuntimeError, ValueError):
        return False
    return True
