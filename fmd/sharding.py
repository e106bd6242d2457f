"""How the state of a run is split over the `fsdp` axis of a mesh, and where it is gathered.

Each large leaf, a parameter with its averages and moments, lies in equal parts along its longest axis that the axis of
the mesh divides:

    bytes per device = sum of large leaves / fsdp + sum of the rest.

In a stack [blocks, ...] of a model's scan (`fmd.models.stacks`) a leaf is one block's slice; the first axis is never
split. The step gathers the parameters that it uses: those of a stack block by block inside the scan, so that one whole
block exists at a time; the others when the network is called. Gradients are summed where they arise, and each device
keeps its part. The optimiser and the averages work on the parts.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree

from fmd.devices import Layout
from fmd.models.contract import Model
from fmd.models.stacks import gathering
from fmd.types import Params


def stacks_of(model: Model) -> tuple[str, ...]:
    """Names of a model's parameters that are stacks [blocks, ...]."""
    return tuple(getattr(model, "stacked", ()))


def state_shardings(layout: Layout, abstract_state: PyTree, stacked: Sequence[str] = ()) -> PyTree:
    """A sharding for each leaf: those of `layout.smallest` elements or more are split over `fsdp`.

    `abstract_state` has the shapes, of the whole state or a part. Of leaves below `stacked`, the names of stacks, the
    first axis counts the blocks.
    """

    def place(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        if not _below(path, stacked):
            return NamedSharding(layout.mesh, _split(layout, leaf.shape))
        spec = _split(layout, leaf.shape[1:])
        return NamedSharding(layout.mesh, P(None, *spec) if spec else spec)

    return jax.tree_util.tree_map_with_path(place, abstract_state)


def gather_params(layout: Layout | None, model: Model) -> Callable[..., Array]:
    """`model.apply` that gathers split parameters before it uses them; without a layout, itself.

    Without it XLA may follow the parameters and split the matrix products, too, which costs a collective in each layer.
    """
    apply: Callable[..., Array] = model.apply
    if layout is None or layout.mesh.shape["fsdp"] == 1:
        return apply

    def gathered(variables: Params, *args: Any, **kwargs: Any) -> Array:
        whole = jax.tree_util.tree_map_with_path(place, variables)
        with gathering(partial(_gather_block, layout)):
            return apply(whole, *args, **kwargs)

    def place(path: tuple[Any, ...], leaf: Array) -> Array:
        return leaf if _below(path, stacked) else jax.lax.with_sharding_constraint(leaf, layout.replicated)

    stacked = stacks_of(model)
    return gathered


def bytes_per_device(abstract: PyTree, shardings: PyTree) -> int:
    """Bytes of a tree of shapes on one device."""
    leaves = zip(jax.tree.leaves(abstract), jax.tree.leaves(shardings), strict=True)
    return sum(math.prod(s.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf, s in leaves)


def describe(layout: Layout, abstract: PyTree, shardings: PyTree) -> str:
    """A line for the log: how much of a split state one device holds."""
    everywhere = jax.tree.map(lambda _: layout.replicated, shardings)
    part, whole = bytes_per_device(abstract, shardings), bytes_per_device(abstract, everywhere)
    parts = layout.mesh.shape["fsdp"]
    if part == whole:
        return (
            f"parallel.fsdp = {parts} splits nothing: no parameter has {layout.smallest} numbers or more and "
            f"an axis that {parts} divides"
        )
    return f"parallel.fsdp = {parts}: each device holds {part / 2**20:.1f} of the {whole / 2**20:.1f} MiB of the state"


def _gather_block(layout: Layout, params: Params) -> Params:
    """One block's slice of a stack, whole on every device.

    The first constraint counts backwards: the gradient leaves the block in parts.
    """

    def gather(leaf: Array) -> Array:
        parts = jax.lax.with_sharding_constraint(leaf, NamedSharding(layout.mesh, _split(layout, leaf.shape)))
        whole: Array = jax.lax.with_sharding_constraint(parts, layout.replicated)
        return whole

    return jax.tree.map(gather, params)


def _split(layout: Layout, shape: Sequence[int]) -> P:
    parts = layout.mesh.shape["fsdp"]
    axes = [axis for axis, size in enumerate(shape) if size % parts == 0]
    if parts == 1 or not axes or math.prod(shape) < layout.smallest:
        return P()
    longest = max(axes, key=lambda axis: shape[axis])
    return P(*[None] * longest, "fsdp")


def _below(path: tuple[Any, ...], stacked: Sequence[str]) -> bool:
    return any(getattr(entry, "key", None) in stacked for entry in path)
