"""The table of a network's parameters, printed when a run starts."""

import math

import jax
from jaxtyping import PyTree


def parameter_table(params: PyTree, depth: int = 1, trained: int | None = None) -> str:
    """A line per module: number, names and shapes of parameters; a total.

    Args:
        params: the collection "params", a tree of arrays or ShapeDtypeStructs.
        depth: how many names of a parameter's path make up its module.
        trained: how many numbers are trained, said behind the total where these are not all.
    """
    rows: dict[str, list[tuple[str, int]]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [str(getattr(entry, "key", entry)) for entry in path]
        module, rest = "/".join(names[:-1][:depth]), "/".join(names[min(depth, len(names) - 1) :])
        rows.setdefault(module, []).append((f"{rest} {'x'.join(map(str, leaf.shape))}", math.prod(leaf.shape)))

    lines = [(module, ", ".join(text for text, _ in group), sum(n for _, n in group)) for module, group in rows.items()]
    total = sum(n for _, _, n in lines)
    name_width = max(map(len, ["module", *rows]))
    count_width = len(f"{total:,}")
    table = [f"{module:<{name_width}}  {count:>{count_width},}  {text}" for module, text, count in lines]
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params)) / 2**20
    header = f"{'module':<{name_width}}  {'count':>{count_width}}  parameters"
    some = "" if trained in (None, total) else f", {trained:,} trained"
    return "\n".join([header, *table, f"{'total':<{name_width}}  {total:,}  ({size:.1f} MiB){some}"])
