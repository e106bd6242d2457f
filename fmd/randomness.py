"""Randomness as a pure function of (seed, step, global example index).

Nothing carries a key from one step to the next, so a resumed run draws what an uninterrupted one would have drawn,
and an example draws the same numbers on whichever device it lands.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key, PyTree

from fmd.types import Index, TypedKey

# One stream of keys per use, so that two uses never share numbers. Append only: the places are part of every run.
STREAMS = ("init", "noise", "time", "label_dropout", "dropout", "coupling", "augment", "sample", "eval")


def key(seed: int) -> TypedKey:
    """The key of a seed, by the generator that all draws are defined by, whatever JAX's default is."""
    return jax.random.key(seed, impl="threefry2x32")


def stream(seed: int, name: str) -> TypedKey:
    """The base key of one use of randomness, e.g. `stream(0, "noise")`; any other name will do, too."""
    return named(key(seed), name)


def check_switches() -> None:
    """Raises ValueError where a switch of JAX is set that would change every draw, or float32 to float64."""
    if jax.config.values["jax_enable_x64"]:
        raise ValueError("jax_enable_x64 is on; training and sampling are in float32: unset JAX_ENABLE_X64")
    if not jax.config.values["jax_threefry_partitionable"]:
        raise ValueError("jax_threefry_partitionable is off, which changes all draws: unset JAX_THREEFRY_PARTITIONABLE")


def named(key: TypedKey, name: str) -> TypedKey:
    """A key of one use from a common one: by its place in STREAMS, or by a hash of its name."""
    return jax.random.fold_in(key, STREAMS.index(name) if name in STREAMS else zlib.crc32(name.encode()))


def example_keys(key: TypedKey, index: Index) -> Key[Array, " B"]:
    """One key per example from its global index [B]: independent of the batch that the example sits in."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def example_normal(key: TypedKey, index: Index, shape: tuple[int, ...]) -> Float[Array, "B ..."]:
    """Standard normal noise [B, *shape], float32, drawn per example."""
    return jax.vmap(lambda k: jax.random.normal(k, shape, jnp.float32))(example_keys(key, index))


def example_uniform(key: TypedKey, index: Index) -> Float[Array, " B"]:
    """Uniform numbers in [0, 1), [B], float32, drawn per example."""
    return jax.vmap(lambda k: jax.random.uniform(k, (), jnp.float32))(example_keys(key, index))


@dataclass(frozen=True)
class ExampleRng:
    """The `fmd.types.Rng` of a batch: `key_of` gives the key of each use, `axis_name` the mapped axis under `pmap`."""

    key_of: Callable[[str], TypedKey]
    index: Index
    batch_size: int
    axis_name: str | None = None
    step: Int[Array, ""] | int = 0

    def key(self, name: str) -> TypedKey:
        return self.key_of(name)

    def normal(self, name: str, shape: tuple[int, ...]) -> Float[Array, "B ..."]:
        return example_normal(self.key(name), self.index, shape)

    def uniform(self, name: str) -> Float[Array, " B"]:
        return example_uniform(self.key(name), self.index)

    def whole_batch(self, function: Callable[..., PyTree], *parts: PyTree) -> PyTree:
        if self.axis_name is None:
            return function(*parts)
        gathered = lax.all_gather(parts, self.axis_name, tiled=True)
        count = len(self.index)
        start = lax.axis_index(self.axis_name) * count
        return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, count), function(*gathered))


def step_rng(seed: int, step: Array, index: Index, batch_size: int, axis_name: str | None = None) -> ExampleRng:
    """The random numbers of a training step."""
    return ExampleRng(lambda name: jax.random.fold_in(stream(seed, name), step), index, batch_size, axis_name, step)


def request_rng(key: TypedKey, index: Index, batch_size: int) -> ExampleRng:
    """The random numbers of a request for samples, beside the noise that it starts from."""
    return ExampleRng(lambda name: named(key, name), index, batch_size)
