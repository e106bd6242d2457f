"""Where arrays live: one device, `pmap` over all of them, or a mesh with `data` and `fsdp` axes; one host or many.

The training step is the same pure function in all three. Only this file knows how it is compiled and how its inputs
are placed:

- `jit`: one device.
- `pmap`: data parallel. The state keeps its natural shapes and is replicated; each device gets a slice of the batch.
- `mesh`: `jax.jit` over a mesh. The batch is split over both axes, and each large parameter (with its EMA and
  optimiser moments) over `fsdp`: see `fmd.sharding`.

XLA's CPU backend is slow by default at what a UNet does between its convolutions:

jax.jit(step, compiler_options=cpu_compiler_options())

hands reductions (group normalisation, bias gradients) and matrix products to the YNN library: on two AVX-512 cores
the UNet's train step became 1.6 times as fast. The numbers stay the same to rounding.

XLA's CPU backend brings the convolutions of a gradient into its fast form in the main computation only, not in the
body of a loop, where they run 20 to 50 times slower. `unroll_gradients` says by how much to unroll such a loop.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree
from tqdm.auto import tqdm

MODES = ("auto", "jit", "pmap", "mesh")
BATCH_AXES = ("data", "fsdp")
SMALLEST_SHARDED = 2**14  # elements; splitting smaller leaves costs more in latency than it saves in memory


class Vote:
    """True once any process has said yes, the same answer on all of them.

    Several processes answer one call late, so that nobody waits for the devices: each call starts a small reduction
    and reads the one before.
    """

    def __init__(self, layout: "Layout") -> None:
        self._sharding = layout.batch_sharding(0)
        self._any = jax.jit(jax.numpy.max, out_shardings=layout.replicated)
        self._last: jax.Array | None = None

    def __call__(self, mine: bool) -> bool:
        if jax.process_count() == 1:
            return mine
        ballot = np.full(jax.local_device_count(), mine, np.int32)
        before, self._last = self._last, self._any(jax.make_array_from_process_local_data(self._sharding, ballot))
        return before is not None and bool(jax.device_get(before))


@dataclass(frozen=True)
class Layout:
    """A mode ("jit", "pmap" or "mesh") and the mesh of devices it runs on."""

    mode: str
    mesh: Mesh
    smallest: int = SMALLEST_SHARDED  # leaves of fewer elements are not split over `fsdp`

    @property
    def axis_name(self) -> str | None:
        """The axis over which the step must average its gradients itself; None where the compiler does it."""
        return "data" if self.mode == "pmap" else None

    @property
    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, P())

    def batch_sharding(self, axis: int) -> NamedSharding:
        """Splits the batch, which is axis number `axis`, over all devices."""
        return NamedSharding(self.mesh, P(*[None] * axis, BATCH_AXES))

    def check_batch(self, batch_size: int, what: str) -> None:
        if batch_size % self.mesh.size:
            below = batch_size - batch_size % self.mesh.size
            raise ValueError(
                f"{what} = {batch_size} cannot be split over {self.mesh.size} devices; "
                f"the nearest sizes that can are {below or self.mesh.size} and {below + self.mesh.size}"
            )


def make_layout(mode: str = "auto", *, fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Layout:
    """Builds the layout for `devices` (default: all of them; mode "jit" takes the first).

    Raises ValueError for an unknown mode, or an fsdp size that does not divide the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    if mode not in MODES:
        raise ValueError(f"parallel.mode = {mode!r}; choose one of {', '.join(MODES)}")
    if mode == "auto":
        mode = "mesh" if len(devices) > 1 else "jit"
    if mode != "mesh" and jax.process_count() > 1:
        raise ValueError(f"parallel.mode = {mode!r} is for one process, there are {jax.process_count()}; use mesh")
    if mode == "jit":
        devices = devices[:1]
    if fsdp < 1 or len(devices) % fsdp or (mode != "mesh" and fsdp != 1):
        raise ValueError(
            f"parallel.fsdp = {fsdp} with mode {mode!r} on {len(devices)} devices; "
            f'use mode "mesh" and a divisor of the number of devices, or 1'
        )
    shape = (len(devices) // fsdp, fsdp)
    return Layout(mode, jax.make_mesh(shape, BATCH_AXES, devices=devices, axis_types=(AxisType.Auto,) * 2))


@runtime_checkable
class Lowerable(Protocol):
    """A function under `jit` or `pmap`."""

    def __call__(self, *arguments: PyTree) -> PyTree: ...

    def lower(self, *arguments: PyTree) -> jax.stages.Lowered: ...


def compile_step(step: Callable[..., PyTree], layout: Layout, shardings: PyTree) -> Lowerable:
    """Compiles `step(state, resident, feed) -> (state, metrics)`; the state is donated.

    `resident` is replicated; the leaves of `feed` are [steps, batch, ...] as `place_feed` leaves them.
    """
    if layout.mode == "pmap":
        devices = list(layout.mesh.devices.flat)
        mapped = jax.pmap(
            step, axis_name="data", in_axes=(None, None, 1), out_axes=(None, None), donate_argnums=0, devices=devices
        )
        return cast(Lowerable, mapped)
    return jax.jit(
        step,
        in_shardings=(shardings, layout.replicated, layout.batch_sharding(1)),
        out_shardings=(shardings, layout.replicated),
        donate_argnums=0,
        compiler_options=cpu_compiler_options(),
    )


def place_feed(layout: Layout, feed: PyTree) -> PyTree:
    """Puts host arrays [steps, this process's part of the batch, ...] on the devices, split along the batch."""
    if layout.mode == "pmap":
        # [steps, batch] -> [steps, devices, batch per device]; pmap maps over axis 1.
        feed = jax.tree.map(lambda x: x.reshape(len(x), layout.mesh.size, -1, *x.shape[2:]), feed)
    sharding = layout.batch_sharding(1)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), feed)


def split_batch(layout: Layout, tree: PyTree) -> PyTree:
    """Splits host arrays [batch, ...], the same on every process, over all devices."""
    sharding = layout.batch_sharding(0)
    return jax.tree.map(lambda a: jax.make_array_from_callback(a.shape, sharding, a.__getitem__), tree)


def map_batches(
    layout: Layout, program: Callable[..., PyTree], size: int, *arrays: PyTree, quiet: bool = True, what: str = ""
) -> PyTree:
    """`program(*parts)` over host arrays [N, ...] in parts of one size, as one tree of host arrays [N, ...].

    Parts are split over all devices; the last one is filled up with copies, which are cut off again. Fewer than `size`
    examples are filled up to one of a few sizes, so that few programs are compiled. Results leave the devices as they
    come. A progress bar called `what` is shown unless `quiet`.

    Raises Interrupted at a Ctrl-C, once the part under way is done.
    """
    count = len(jax.tree.leaves(arrays)[0])
    batch = _round_up(min(size, few_sizes(count)), layout.mesh.size)
    parts: list[PyTree] = []

    def joined() -> PyTree:
        return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves])[:count], *parts)

    try:
        with tqdm(total=count, desc=what, unit="image", disable=quiet) as bar:
            for first in range(0, count, batch):
                rows = np.minimum(np.arange(first, first + batch), count - 1)
                part = jax.tree.map(lambda a, rows=rows: np.asarray(a)[rows], arrays)
                parts.append(program(*split_batch(layout, part)))
                if len(parts) > 1:  # one part late: the devices never wait
                    parts[-2] = jax.device_get(parts[-2])
                bar.update(min(batch, count - first))
        return joined()
    except KeyboardInterrupt:
        raise Interrupted(joined() if parts else None) from None


class Interrupted(KeyboardInterrupt):
    """A Ctrl-C; `finished` is the part of the results that was there, None where nothing was."""

    def __init__(self, finished: PyTree) -> None:
        super().__init__()
        self.finished = finished


def few_sizes(count: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: powers of two, and these and a half."""
    power = 1 << max(count - 1, 0).bit_length()
    return power * 3 // 4 if power > 2 and count <= power * 3 // 4 else power


def _round_up(count: int, divisor: int) -> int:
    return -(-count // divisor) * divisor


def replicate(layout: Layout, tree: PyTree) -> PyTree:
    """Puts the same host arrays on every device of every process."""
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(np.shape(x), layout.replicated, lambda index: np.asarray(x)[index]), tree
    )


CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"}


def cpu_compiler_options() -> dict[str, str]:
    """Options for jax.jit(..., compiler_options=...): those that help on a CPU, and {} on any other backend.

    The first call starts the backend and compiles a trivial function per option: one that this jaxlib does not know
    is left out instead of failing.
    """
    if jax.default_backend() != "cpu":
        return {}
    return {name: value for name, value in CPU_OPTIONS.items() if _compiles(name, value)}


def options_to_run_once() -> dict[str, str]:
    """Options for jax.jit(..., compiler_options=...) of a program that runs once.

    On a CPU it is compiled in a third of the time, and runs slower. The bits of random numbers stay; at level 0 they
    would not. {} on any other backend, and where few optimisations are asked for (JAX_DISABLE_MOST_OPTIMIZATIONS).
    """
    few = jax.default_backend() != "cpu" or jax.config.values["jax_disable_most_optimizations"]
    return {} if few else {"xla_backend_optimization_level": "1"}


def unroll_gradients(length: int) -> int:
    """The `unroll` of jax.lax.scan for a loop over gradients: `length` on a CPU, else 1."""
    return length if jax.default_backend() == "cpu" else 1


@functools.cache
def _compiles(name: str, value: str) -> bool:
    try:
        jax.jit(jnp.negative, compiler_options={name: value}).lower(jax.ShapeDtypeStruct((), jnp.float32)).compile()
    except Exception:  # which class depends on the version of jaxlib
        return False
    return True
