"""Blocks in a scan, whose parameters [blocks, ...] may be split over devices: each is gathered where it is used.

A model that runs its blocks as one `nn.scan` names the stack in `stacked`, and makes the block with `scanned`:

    class Model(nn.Module):
        stacked = ("blocks",)  # names of its scans, no field

        @nn.compact
        def __call__(self, x, t, y, train=False):
            block = scanned(Block, remat=self.remat)
            x, _ = nn.scan(block, variable_axes={"params": 0}, split_rngs={"params": True}, length=12)(name="blocks")(x)

Without `gathering` around it, `scanned` changes nothing but for `remat`. Inside, the block's slice of the stack first
passes through the function given there. What is gathered is not kept for the backward pass, or all of it would be there
at once: without `remat` the results of matrix products are, and the rest of a block is computed again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import flax.linen as nn
import jax

from fmd.types import Params

Gather = Callable[[Params], Params]

_gather: ContextVar[Gather | None] = ContextVar("gather", default=None)


@contextmanager
def gathering(gather: Gather) -> Iterator[None]:
    """Has every scanned block that is traced inside use its parameters as `gather` returns them."""
    token = _gather.set(gather)
    try:
        yield
    finally:
        _gather.reset(token)


def scanned(block: type[nn.Module], remat: bool, static_argnums: tuple[int, ...] = ()) -> type[nn.Module]:
    """The block for `nn.scan`, gathered where that is asked for, computed again in the backward pass under `remat`.

    `static_argnums` are those of `nn.remat`: arguments of the block's call that are no arrays, itself number 0.
    """
    gather, policy = _gather.get(), None
    if gather is not None:
        block = nn.map_variables(block, "params", trans_in_fn=gather)
        policy = None if remat else jax.checkpoint_policies.dots_saveable
    elif not remat:
        return block
    return nn.remat(block, prevent_cse=False, policy=policy, static_argnums=static_argnums)
