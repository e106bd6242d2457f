"""Which parameters of a run are trained: all, all but frozen ones, or low-rank factors beside the network.

`config.train.freeze` and the keys of `config.lora` are patterns of names such as down_0_block_0/conv_1/kernel, in which
* stands for any letters, slashes among them. What is not trained has no gradient, no place in the gradient's norm and
no moments of the optimiser; it passes through a step as it is.

Low-rank factors (LoRA, arXiv 2106.09685): in the place of a kernel W [..., in, out], of a dense layer or a convolution,

    W + alpha / rank * A B,    A [..., in, rank] normal of variance 1 / (product of its other axes), B [rank, out] = 0,

so that a run begins as the network it begins with, bit for bit. In a stack of blocks [blocks, ..., in, out]
(`fmd.models.stacks`) each block has factors of its own, A [blocks, ..., in, rank] and B [blocks, rank, out]. The
product is added to W inside the step. Averages are of this sum, since the product of averaged factors would be another
network, so what is stored, sampled and exported are ordinary weights.
"""

import difflib
import fnmatch
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fmd.checkpoints.fitting import names
from fmd.config import Config
from fmd.randomness import stream
from fmd.types import Params


@dataclass(frozen=True)
class LowRank:
    """Factors beside the kernels called `targets`; of those below `stacked` the first axis counts blocks."""

    targets: frozenset[str]
    rank: int
    scale: float
    seed: int
    stacked: tuple[str, ...] = ()

    def begin(self, network: Params) -> dict[str, Params]:
        """The parameters of a run: the network as "base", and "a" and "b", trees of its form with None elsewhere.

        A kernel of a lower rank than `rank` has factors of its own rank.
        """
        known, (leaves, structure) = names(network), jax.tree.flatten(network)
        shapes = {name: leaf.shape for name, leaf in zip(known, leaves, strict=True) if name in self.targets}
        blocks = {name: shape[: name.split("/")[0] in self.stacked] for name, shape in shapes.items()}  # (): no stack
        inputs = {name: math.prod(shape[len(blocks[name]) : -1]) for name, shape in shapes.items()}
        ranks = {name: min(self.rank, inputs[name], shape[-1]) for name, shape in shapes.items()}
        # One draw for all: to compile one for each takes longer than to compile the network's own.
        ends = np.cumsum([math.prod(shape[:-1]) * ranks[name] for name, shape in shapes.items()])
        draws = jnp.split(jax.random.normal(stream(self.seed, "lora"), (int(ends[-1]),)), ends[:-1])
        a = {
            name: draw.reshape(*shapes[name][:-1], ranks[name]) / math.sqrt(inputs[name])
            for name, draw in zip(shapes, draws, strict=True)
        }
        b = {name: jnp.zeros((*blocks[name], ranks[name], shape[-1])) for name, shape in shapes.items()}

        def tree(factors: dict[str, Array]) -> Params:
            return jax.tree.unflatten(structure, [factors.get(name) for name in known])

        return {"base": network, "a": tree(a), "b": tree(b)}

    def merged(self, params: dict[str, Params]) -> Params:
        """The network's parameters, factors included."""

        def add(kernel: Array, a: Array | None, b: Array | None) -> Array:
            if a is None or b is None:
                return kernel
            product = partial(jnp.tensordot, axes=1, precision=jax.lax.Precision.HIGHEST)
            return kernel + self.scale * (product if b.ndim == 2 else jax.vmap(product))(a, b)

        merged: Params = jax.tree.map(add, params["base"], params["a"], params["b"])
        return merged


@dataclass(frozen=True)
class Tuning:
    """Which parameters of a run are trained; by default all."""

    fixed: frozenset[str] = frozenset()  # names of the network's parameters that do not change
    low_rank: LowRank | None = None
    critic: bool = False  # the run's parameters are {"network": ..., "critic": ...}; a critic is trained whole

    def begin(self, network: Params, critic: Params | None = None) -> Params:
        """The parameters of a run that begins with those of a network."""
        own = network if self.low_rank is None else self.low_rank.begin(network)
        return {"network": own, "critic": critic} if self.critic else own

    def network(self, params: Params) -> Params:
        """The parameters of the network, without those of its critic."""
        own = params["network"] if self.critic else params
        return own if self.low_rank is None else self.low_rank.merged(own)

    def split(self, params: Params) -> tuple[Params, Params]:
        """The trained and the fixed parameters, two trees with None in the places of the other."""
        prefix = "network/" * self.critic + "base/" * (self.low_rank is not None)
        fixed = {prefix + name for name in self.fixed}
        leaves, structure = jax.tree.flatten(params)
        mask = [name not in fixed for name in names(params)]
        trained = [leaf if trains else None for trains, leaf in zip(mask, leaves, strict=True)]
        rest = [None if trains else leaf for trains, leaf in zip(mask, leaves, strict=True)]
        return jax.tree.unflatten(structure, trained), jax.tree.unflatten(structure, rest)

    def join(self, trained: Params, rest: Params) -> Params:
        """The inverse of `split`."""
        return jax.tree.map(lambda a, b: b if a is None else a, trained, rest, is_leaf=lambda part: part is None)

    def count(self, params: Params) -> int:
        """How many numbers of the network and its factors are trained."""
        trained = self.split(params)[0]
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(trained["network"] if self.critic else trained))


def tuning_of(
    config: Config, init: Callable[[], Params], critic: bool = False, stacked: tuple[str, ...] = ()
) -> Tuning:
    """The tuning of a config for the network whose parameters `init` makes; these are traced where names matter.

    `stacked` are the names of its stacks of blocks.

    Raises ValueError for a pattern that matches nothing, where nothing is left to train, and for factors beside a
    network that is not trained yet.
    """
    lora, frozen = config.lora, config.train.freeze
    if lora is None and not frozen:
        return Tuning(critic=critic)
    if lora is not None and config.init_from is None and config.first is None:
        raise ValueError("config.lora goes with a trained network: name a run or an export with config.init_from")
    if lora is not None and frozen:
        raise ValueError("config.lora freezes all that config.lora.train does not name; leave config.train.freeze out")
    network = jax.eval_shape(init)
    known = names(network)
    if lora is None:
        fixed = matching(frozen, known, "train.freeze")
        if len(fixed) == len(known):
            raise ValueError(f"config.train.freeze = {frozen!r} leaves nothing to train; name less")
        return Tuning(frozenset(fixed), critic=critic)
    whole = matching(lora.train, known, "lora.train")
    matrices = [name for name, leaf in zip(known, jax.tree.leaves(network), strict=True) if leaf.ndim > 1]
    kernels = [name for name in matrices if name.split("/")[-1] == "kernel"]
    targets = matching(lora.targets, kernels, "lora.targets", "kernel") - whole
    if not targets:
        raise ValueError(f"config.lora.train = {lora.train!r} trains all of config.lora.targets whole; name less")
    low_rank = LowRank(frozenset(targets), lora.rank, lora.alpha / lora.rank, config.seed, stacked)
    return Tuning(frozenset(set(known) - whole), low_rank, critic)


def matching(patterns: Iterable[str], known: Sequence[str], key: str, what: str = "parameter") -> set[str]:
    """The names that one of the patterns matches.

    Raises ValueError, naming the key and near names, for a pattern that matches none.
    """
    found: set[str] = set()
    for pattern in patterns:
        hits = [name for name in known if fnmatch.fnmatchcase(name, pattern)]
        if not hits:
            folders = {name.rsplit("/", depth)[0] + "/*" for name in known for depth in range(1, name.count("/") + 1)}
            near = difflib.get_close_matches(pattern, [*sorted(folders), *known], n=3, cutoff=0.0)
            raise ValueError(f"config.{key}: no {what} is called {pattern!r}; the nearest names are {', '.join(near)}")
        found.update(hits)
    return found
