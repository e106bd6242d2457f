"""The guided sampler as one file that JAX alone runs: StableHLO with the weights inside, written by `jax.export`.

    noise float32 [b, H, W, C], labels int32 [b], weight float32 [] -> images uint8 [b, H, W, C]

A model that is told more than labels takes an array per part in their place, in the order of its conditions. The batch
size b and the platform (cpu, cuda, tpu) are open; solver, steps and guidance rule are fixed. It takes noise, not a key:
whoever calls it draws standard normal numbers with any generator of any language, and the same numbers give the same
images wherever they were drawn; a key would bind the file to one generator and to its way of drawing.

Such a program cannot raise an error. Where `Sampler` refuses an input (a label outside [0, num_classes], a weight that
is not finite, or other than 1 for a model that cannot be guided) or an image fails (its pixels are not finite, the
solver did not arrive), the image is black.
"""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree, UInt8

from fmd import methods
from fmd.checkpoints.checksums import first_line
from fmd.config import Settings
from fmd.methods import Method
from fmd.models import conditions
from fmd.models.contract import Model
from fmd.run_info import RunInfo
from fmd.sampling.checks import check
from fmd.sampling.sampler import make_program
from fmd.types import Condition, Images, Params

PLATFORMS = ("cpu", "cuda", "tpu")


def serialize(model: Model, params: Params, info: RunInfo, settings: Settings) -> bytes:
    """The file's bytes, the same each time with one version of JAX.

    Raises:
        ValueError: for settings that need a key or other weights, a model that cannot be traced for any batch size, or
            one that does not run on all PLATFORMS.
    """
    from jax import export  # needs flatbuffers

    method = methods.from_config(info.config)
    refuse(settings)
    guided = takes_weight(method, info, settings)
    draw = make_program(model, method, info, settings, traced_weight=guided)

    def sampler(noise: Images, *told_and_weight: Array) -> UInt8[Array, "B ..."]:
        *told, weight = told_and_weight
        y = told[0] if info.conditions is None else dict(zip(info.conditions, told, strict=True))
        drawn = draw(params, noise, y, weight)
        good_weight = jnp.isfinite(weight) if guided else weight == 1.0
        good = drawn.success & in_range(y, info) & good_weight
        return jnp.where(good[:, None, None, None], drawn.images, jnp.uint8(0))

    (batch,) = export.symbolic_shape("b")
    arguments = [jax.ShapeDtypeStruct((batch, *shape[1:]), dtype) for shape, dtype in shapes(info).values()]
    try:
        with _without_source_locations():
            program = export.export(jax.jit(sampler), platforms=PLATFORMS)
            return bytes(program(*arguments, jax.ShapeDtypeStruct((), jnp.float32)).serialize())
    except Exception as error:  # whatever a model raises that does not lower
        raise ValueError(
            f"the sampler of model {info.config.model.name!r} cannot be exported for any batch size on "
            f"{', '.join(PLATFORMS)} ({first_line(error)}); let the model take its shapes from x alone, "
            f"with plain JAX operations"
        ) from error


def refuse(settings: Settings) -> None:
    """Raises ValueError for settings that need more than noise and one model."""
    if settings.sde is not None:
        raise ValueError(
            "sample.sde draws random numbers on the way, and an exported program has no key: "
            "export with --config.sample.sde=None"
        )
    if settings.guidance.get("weak") is not None:
        raise ValueError(
            "guidance.weak names a second model, and an export holds one: "
            "export with --config.sample.guidance.weak=None"
        )


def takes_weight(method: Method, info: RunInfo, settings: Settings) -> bool:
    """True where other guidance weights than 1 have an effect."""
    try:
        check(method, info, settings.replace(weight=2.0))
    except ValueError:
        return False
    return True


def shapes(info: RunInfo) -> dict[str, tuple[tuple[int, ...], jnp.dtype]]:
    """Shape, with 1 for the batch, and dtype of each input of the program but the weight, by name and in order."""
    told = {"labels": jnp.zeros(1, jnp.int32)}
    if info.conditions is not None:
        example = conditions.example(info.conditions, 1)
        told = {name: example[name] for name in info.conditions}
    noise = {"noise": ((1, *info.image_shape), jnp.dtype(jnp.float32))}
    return noise | {name: (array.shape, array.dtype) for name, array in told.items()}


def in_range(y: Condition, info: RunInfo) -> Bool[Array, " B"]:
    """True where all labels are classes, or the null label of a model that has seen it."""
    null = int(info.can_be_guided)
    if info.conditions is None:
        return jnp.logical_and(y >= 0, y < max(info.num_classes + null, 1))
    counts = {name: spec["num_classes"] for name, spec in info.conditions.items() if spec["kind"] == "label"}
    good: PyTree = True
    for name, count in counts.items():
        good = good & (y[name] >= 0) & (y[name] < count + null)
    return jnp.broadcast_to(good, jax.tree.leaves(y)[0].shape[:1])


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
