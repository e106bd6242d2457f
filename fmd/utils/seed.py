"""Randomness as a pure function of (seed, step, global example index).

Nothing carries a key from one step to the next, so a resumed run draws what an uninterrupted one would have drawn,
and an example draws the same numbers on whichever device it lands.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

# One stream of keys per use, so that two uses never share numbers.
STREAMS = ("init", "noise", "time", "label_dropout", "dropout", "coupling", "augment", "sample", "eval")


def stream(seed: int, name: str) -> Key[Array, ""]:
    """The base key of one use of randomness, e.g. `stream(0, "noise")`."""
    return jax.random.fold_in(jax.random.key(seed), STREAMS.index(name))


def example_keys(key: Key[Array, ""], index: Int[Array, " B"]) -> Key[Array, " B"]:
    """One key per example from its global index [B]: independent of the batch that the example sits in."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def example_normal(key: Key[Array, ""], index: Int[Array, " B"], shape: tuple[int, ...]) -> Float[Array, "B ..."]:
    """Standard normal noise [B, *shape], float32, drawn per example."""
    return jax.vmap(lambda k: jax.random.normal(k, shape, jnp.float32))(example_keys(key, index))


def example_uniform(key: Key[Array, ""], index: Int[Array, " B"]) -> Float[Array, " B"]:
    """Uniform numbers in [0, 1), [B], float32, drawn per example."""
    return jax.vmap(lambda k: jax.random.uniform(k, (), jnp.float32))(example_keys(key, index))
