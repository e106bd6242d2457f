"""The guided sampler as one file that JAX alone runs: StableHLO with the weights inside, written by `jax.export`.

    noise float32 [b, H, W, C], labels int32 [b], weight float32 [] -> images uint8 [b, H, W, C]

The batch size b and the platform (cpu, cuda, tpu) are open; solver, steps and guidance rule are fixed. It takes noise,
not a key: whoever calls it draws standard normal numbers with any generator of any language, and the same numbers give
the same images wherever they were drawn; a key would bind the file to one generator and to its way of drawing.

Such a program cannot raise an error. Where `Sampler` refuses an input (a label outside [0, num_classes], a weight that
is not finite, or other than 1 for a model that cannot be guided) or an image fails (its pixels are not finite, the
solver did not arrive), the image is black.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fmd.checkpoints.checksums import first_line
from fmd.sampling.program import Samples, Settings, can_be_guided, make_program

PLATFORMS = ("cpu", "cuda", "tpu")


def serialize(model: Any, params: Any, facts: Mapping[str, Any], settings: Settings) -> bytes:
    """The file's bytes, the same each time with one version of JAX.

    Raises:
        ValueError: for a model that cannot be traced for any batch size or does not run on all PLATFORMS.
    """
    from jax import export  # needs flatbuffers

    guided = can_be_guided(facts)
    draw = make_program(model, facts, settings, None if guided else 1.0)

    def sampler(noise: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
        drawn: Samples = draw(params, noise, labels, weight)
        good_labels = (labels >= 0) & (labels <= facts["num_classes"])
        good_weight = jnp.isfinite(weight) if guided else weight == 1.0
        good = drawn.success & good_labels & good_weight
        return jnp.where(good[:, None, None, None], drawn.images, jnp.uint8(0))

    (batch,) = export.symbolic_shape("b")
    arguments = (
        jax.ShapeDtypeStruct((batch, *facts["image_shape"]), jnp.float32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
        jax.ShapeDtypeStruct((), jnp.float32),
    )
    try:
        with _without_source_locations():
            return bytes(export.export(jax.jit(sampler), platforms=PLATFORMS)(*arguments).serialize())
    except Exception as error:  # whatever a model raises that does not lower
        raise ValueError(
            f"the sampler of model {facts['config']['model']['name']!r} cannot be exported for any batch size on "
            f"{', '.join(PLATFORMS)} ({first_line(error)}); let the model take its shapes from x alone, "
            f"with plain JAX operations"
        ) from error


@contextlib.contextmanager
def _without_source_locations() -> Iterator[None]:
    """Otherwise the file tells, operation by operation, in which folders its source lay, and differs with them."""
    wanted = {"jax_include_full_tracebacks_in_locations": False, "jax_hlo_source_file_canonicalization_regex": ".+"}
    before = {name: jax.config.values[name] for name in wanted}
    try:
        for name, value in wanted.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
