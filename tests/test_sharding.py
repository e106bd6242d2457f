"""A state in parts on eight devices: which leaves are split, what a device holds, what is sent, and the same numbers."""

import collections
import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import P

from fmd import devices, sharding
from fmd.checkpoints.store import Store
from fmd.models.contract import check_contract
from fmd.models.registry import register_model
from fmd.models.stacks import scanned
from tests.helpers import toys

pytestmark = pytest.mark.usefixtures("full_compilation")

WIDTH = 128  # a kernel of 128 x 128 is the smallest that is split
COLLECTIVE = re.compile(r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, c):
        h = nn.Dense(WIDTH)(nn.LayerNorm()(x) + c)
        return x + nn.Dense(WIDTH)(nn.silu(h)), None


@register_model("stack")
class Stack(nn.Module):
    """A transformer without its attention: four tokens, a wide layer outside, blocks in a scan."""

    num_classes: int
    depth: int = 4
    remat: bool = True

    stacked = ("blocks",)

    @nn.compact
    def __call__(self, x, t, y, train=False, r=None):
        batch = len(x)
        h = nn.Dense(WIDTH, name="into")(x.reshape(batch, 4, -1))
        c = nn.Dense(WIDTH, name="told")(nn.Embed(self.num_classes + 1, WIDTH)(y) + t[:, None])[:, None]
        c = c if r is None else c + r[:, None, None]
        scan = nn.scan(
            scanned(Block, remat=self.remat),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=self.depth,
        )
        h, _ = scan(name="blocks")(h, c)
        return nn.Dense(x[0].size // 4, name="out")(h).reshape(x.shape)


SPLIT = ("into", 0), ("told", 1), ("blocks", 2)  # large kernels below each


def lab(*layout, **model):
    return toys.Lab(toys.config(imports=[], model={"name": "stack", **model}), toys.layout(*layout))


def compiled(made):
    return made.program.lower(made.start(), made.resident, next(made.feed())).compile()


@pytest.fixture(scope="module")
def programs():
    """Labs with their compiled programs, by layout and remat."""
    made = {}

    def get(*layout, **model):
        key = (layout, *model.items())
        if key not in made:
            made[key] = lab(*layout, **model)
            made[key].program = compiled(made[key])
        return made[key]

    return get


def test_large_leaves_are_split_along_their_longest_divisible_axis():
    layout = devices.make_layout("mesh", fsdp=4)
    shapes = {"wide": (64, 512), "tall": (3, 3, 512, 64), "odd": (513, 511), "small": (64,), "long": (2**15, 2)}
    tree = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    blocks = {"wide": (64, 64, 512), "long": (2**15, 2), "odd": (64, 513, 511)}
    tree["blocks"] = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in blocks.items()}
    specs = jax.tree.map(lambda s: s.spec, sharding.state_shardings(layout, tree, ("blocks",)))
    assert specs.pop("blocks") == {"wide": P(None, None, "fsdp"), "long": P(), "odd": P()}
    whole = P()
    assert specs == {
        "wide": P(None, "fsdp"),
        "tall": P(None, None, "fsdp"),
        "odd": whole,
        "small": whole,
        "long": P("fsdp"),
    }
    plain = sharding.state_shardings(devices.make_layout("mesh"), tree, ("blocks",))
    assert all(sharding.spec == P() for sharding in jax.tree.leaves(plain))


@pytest.mark.parametrize(("layout", "remat"), [
    (("mesh", 2, 2), True),
    (("mesh", 8, 8), True),
    (("mesh", 8, 4), True),
    (("mesh", 8, 8), False),
], ids=str)  # fmt: skip
def test_steps_are_those_of_one_device(programs, layout, remat):
    alone, found = (jax.device_get(programs(*n, remat=r).run(2)) for n, r in ((("jit", 1), True), (layout, remat)))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(alone), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-6, err_msg=jax.tree_util.keystr(path))


def test_print(programs):
    for n, r in ((("mesh", 8, 8), True),(("mesh", 8, 8), False), (("mesh", 8, 4), True)):
        made = programs(*n, remat=r)
        place = None
        for line in made.program.as_text().splitlines():
            if line[:1] not in (" ", "", "}"):
                place = line.split(" ")[0]
            if m := COLLECTIVE.search(line):
                print(n, r, place, m.group(2), m.group(1))
        memory = made.program.memory_analysis()
        print(memory.argument_size_in_bytes, memory.temp_size_in_bytes, sharding.describe(made.layout, made.abstract, made.shardings))
