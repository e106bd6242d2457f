"""A state in parts on eight devices: what is split, what a device holds and sends, and the same numbers."""

import collections
import re
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import P

from experiments import scale_plan
from fmd import devices, sharding
from fmd.checkpoints.store import Store
from fmd.evaluation.validation import make_validation
from fmd.models.contract import check_contract
from fmd.models.registry import register_model
from fmd.models.stacks import scanned
from fmd.sampling.sampler import Sampler
from fmd.training import optimizers
from fmd.training import recipe as recipes
from tests.helpers import toys

WIDTH = 128  # a kernel of 128 x 128 is the smallest that is split
FLOATS = re.compile(r"f32\[([\d,]*)\]")
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
    depth: int = 8
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


def lab(*layout, **model):
    """Steps by plain gradients: Adam's first ones are signs, and double the smallest difference of rounding."""
    averages = {"decays": [0.9], "power_stds": []}
    config = toys.config(model={"name": "stack", **model}, optimizer={"name": "sgd"}, ema=averages)
    return toys.Lab(config, toys.layout(*layout))


@pytest.fixture(scope="module")
def alone():
    """The lab on one device, compiled in the quick way of all tests."""
    made = lab("jit", 1)
    made.program = made.program.lower(made.start(), made.resident, next(made.feed())).compile()
    return made


@pytest.fixture(scope="module")
def programs(alone, full_compilation):
    """Labs with their compiled programs, by layout and remat."""
    made = {}

    def get(*layout, remat=True):
        if (layout, remat) not in made:
            new = made[layout, remat] = lab(*layout, remat=remat)
            new.program = new.program.lower(new.start(), new.resident, next(new.feed())).compile()
        return made[layout, remat]

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
    (("mesh", 8, 8), True),
    pytest.param(("mesh", 2, 2), True, marks=pytest.mark.slow),
    pytest.param(("mesh", 8, 4), False, marks=pytest.mark.slow),
], ids=str)  # fmt: skip
def test_steps_are_those_of_one_device(alone, programs, layout, remat):
    assert_same(alone.run(2), programs(*layout, remat=remat).run(2))


def assert_same(one, other):
    """Equal to a millionth."""
    one, other = jax.device_get((one, other))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-6, err_msg=jax.tree_util.keystr(path))


def sent(made):
    """(where, kind) of each collective, and the bytes of all results by kind; a loop's count once per block."""
    places, sizes, loop = collections.Counter(), collections.Counter(), False
    for line in made.program.as_text().splitlines():
        loop = not line.startswith("ENTRY") if line[:1] in ("%", "E") else loop
        if found := COLLECTIVE.search(line):
            result, kind = found.groups()
            places["loop" if loop else "once", kind] += 1
            numbers = sum(np.prod([int(n) for n in shape.split(",") if n]) for shape in FLOATS.findall(result))
            sizes[kind] += 4 * int(numbers) * (made.model.depth if loop else 1)
    return places, sizes


def counts(made):
    """Numbers of parameters of one block and of the rest, split and not."""
    network = jax.eval_shape(made.init).params
    blocks = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), network.pop("blocks"))

    def count(tree):
        sizes = [leaf.size for leaf in jax.tree.leaves(tree)]
        large = sum(size for size in sizes if size >= devices.SMALLEST_SHARDED)
        return scale_plan.Count(large, sum(sizes) - large)

    return count(blocks), made.model.depth, count(network)


def test_each_block_is_gathered_inside_the_loops_and_its_gradient_summed_there(programs):
    made = programs("mesh", 8, 8)
    places, sizes = sent(made)
    # Two kernels forward, the same backward; outside the loops that of "told". XLA for GPU and TPU may turn an
    # all-reduce and the slicing after it into a reduce-scatter.
    assert places == {
        ("loop", "all-gather"): 4,
        ("loop", "all-reduce"): 1,
        ("once", "all-gather"): 1,
        ("once", "all-reduce"): 1,
    }
    planned = scale_plan.wire_bytes(*counts(made))
    assert sizes["all-gather"] == planned["all-gather"]
    assert sizes["all-reduce"] == pytest.approx(planned["all-reduce"], rel=1e-3)  # and a few figures for the log


@pytest.mark.parametrize(("layout", "remat"), [
    (("mesh", 8, 8), True),
    pytest.param(("mesh", 8, 4), False, marks=pytest.mark.slow),
], ids=str)  # fmt: skip
def test_a_device_holds_what_the_formulas_say(programs, layout, remat):
    made = programs(*layout, remat=remat)
    memory, fsdp = made.program.memory_analysis(), layout[2]
    state = sharding.bytes_per_device(made.abstract, made.shardings)
    resident = sum(leaf.nbytes for leaf in made.resident.values())
    feed = sum(leaf.nbytes // layout[1] for leaf in next(made.feed()).values())
    assert memory.argument_size_in_bytes == state + resident + feed
    assert memory.alias_size_in_bytes >= state  # all of the state is donated, so that it exists once
    assert scale_plan.state_bytes(*counts(made), fsdp=fsdp, averages=1, moments=1) == pytest.approx(state, rel=1e-3)
    assert scale_plan.gradient_bytes(*counts(made), fsdp=fsdp) == pytest.approx(memory.temp_size_in_bytes, rel=0.1)
    share = f"{state / 2**20:.1f} of the 3.3 MiB"
    assert share in sharding.describe(made.layout, made.abstract, made.shardings)


def test_moments_lie_where_their_parameters_lie(programs):
    made = programs("mesh", 8, 8)
    own = sorted(str(sharding.spec) for sharding in jax.tree.leaves(made.shardings.params))
    assert own.count("P(None, 'fsdp')") + own.count("P(None, None, 'fsdp')") + own.count("P('fsdp',)") == 3
    for average in made.shardings.ema.values():
        assert average == made.shardings.params
    for name, copies in {"sgd": 1, "lion": 1, "adam": 2}.items():
        optimizer = optimizers.get(name, schedule=lambda step: step)
        moments = jax.eval_shape(optimizer.init, made.abstract.params)
        found = sharding.state_shardings(made.layout, moments, made.model.stacked)
        specs = [s.spec for s, leaf in zip(*map(jax.tree.leaves, (found, moments)), strict=True) if leaf.ndim]
        assert sorted(map(str, specs)) == sorted(own * copies)


def test_one_device_to_eight_and_back_ends_where_one_alone_does(alone, programs, tmp_path):
    assert_same(alone.run(3)[0], to_and_fro(alone, programs("mesh", 8, 8), alone.start(), tmp_path))


def to_and_fro(one, eight, state, folder):
    """The state after a step on one device, one on eight, and another on one, saved and restored in between."""
    for step, made in enumerate([one, eight, one]):
        if step:
            placed = made.placed()
            ema, train = Store(folder).restore(ema=placed.ema, train=placed.replace(ema={}))
            state = train.replace(ema=ema)
            assert jax.tree.map(lambda x: x.sharding, state) == made.shardings
        state, _ = made.run(1, state)
        store = Store(folder)
        store.save(step + 1, ema=state.ema, train=state.replace(ema={}))
        store.close()
    return state


TRANSFORMER = {"name": "transformer", "depth": 4, "width": WIDTH, "heads": 4, "patch_size": 4, "bottleneck": WIDTH,
               "class_tokens": 4, "class_tokens_from": 2}  # fmt: skip


@pytest.mark.slow
def test_a_transformer_in_parts_is_the_one_on_a_single_device(tmp_path):
    """Its two stacks are gathered block by block, forward and backward; parameters are noise, so that all is heard."""
    random, made = np.random.default_rng(0), {}
    for name, layout in {"one": ("jit", 1), "eight": ("mesh", 8, 8)}.items():
        made[name] = lab(*layout, **TRANSFORMER)
        with mock.patch("jax.default_backend", return_value="gpu"):  # on a CPU the loops are unrolled
            given = made[name].abstract, made[name].resident, next(made[name].feed())
            made[name].program = made[name].program.lower(*given).compile()
    one, eight = made.values()
    start = jax.device_get(one.start())
    start = start.replace(params=jax.tree.map(lambda a: random.normal(0, 0.1, a.shape).astype(a.dtype), start.params))

    def begin():
        return jax.device_put(jax.tree.map(jnp.array, start), one.shardings)

    whole, _ = one.run(3, begin())
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), whole.params, start.params)
    assert min(jax.tree.leaves(moved)) > 0
    assert_same(whole, to_and_fro(one, eight, begin(), tmp_path))

    places, _ = sent(eight)
    # Kernels: five of a block in each of two loops, twice; outside patch_in, two of the time, and modulation_out.
    assert (places["loop", "all-gather"], places["once", "all-gather"]) == (20, 4)
    state = sharding.bytes_per_device(eight.abstract, eight.shardings)
    resident = sum(leaf.nbytes for leaf in eight.resident.values())
    feed = sum(leaf.nbytes for leaf in next(eight.feed()).values())
    assert eight.program.memory_analysis().argument_size_in_bytes == state + resident + feed // 8
    shape = {key: TRANSFORMER[key] for key in ("depth", "width", "heads", "bottleneck", "class_tokens")}
    net = scale_plan.Transformer(**shape, class_tokens_from=2, patch=4, side=8, channels=1, classes=toys.CLASSES)
    parts = scale_plan.block_parameters(net), net.depth, scale_plan.outside_parameters(net)
    # Of so small an image and so few classes, patches and tables are not split.
    assert scale_plan.state_bytes(*parts, fsdp=8, averages=1, moments=1) == pytest.approx(state, rel=0.03)


@pytest.fixture(scope="module")
def shallow():
    """Labs of two blocks with their first parameters, on one device and on eight."""
    labs = [lab(*layout, depth=2) for layout in (("jit", 1), ("mesh", 8, 8))]
    return [(made, made.start().params) for made in labs]


def test_validation_and_samples_gather_each_block_where_it_is_used(shallow, monkeypatch):
    gathered, found, gather = [], [], sharding._gather_block
    monkeypatch.setattr(sharding, "_gather_block", lambda *given: gathered.append(given[1]) or gather(*given))
    for made, params in shallow:
        info = recipes.make_info(made.config, made.data)
        validate = make_validation(made.model, info, made.data.test, made.layout, examples=8, batch_size=8)
        sampler = Sampler.from_info(info, model=made.model, layout=made.layout)
        noise = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype(np.float32)
        images = sampler(np.arange(8) % 4, noise=noise, params=params, batch_size=8, steps=2)
        of_samples = len(gathered)
        found.append((images.astype(int), validate(params)["validation_loss"]))
        whole = made.layout.mode == "jit"
        assert (of_samples == 0, len(gathered) == of_samples) == (whole, whole)
    assert all(leaf.ndim < 3 for leaf in jax.tree.leaves(gathered))  # blocks, not their stack
    (images, loss), (same_images, same_loss) = found
    assert same_loss == pytest.approx(loss, rel=1e-5)
    assert abs(same_images - images).max() <= 1


def test_a_forward_derivative_passes_through_gathered_blocks(shallow):
    """The gradient of a derivative along x and t, as MeanFlow has it, is that of blocks which are not gathered."""
    x, t = jax.random.normal(jax.random.key(0), (8, 8, 8, 1)), jnp.linspace(0.0, 1.0, 8)
    found = []
    for made, params in shallow:

        def moved(params, apply=made.recipe.apply):
            def network(x, t):
                return apply({"params": params}, x, t, jnp.arange(8) % 4)

            return jnp.mean(jax.jvp(network, (x, t), (x, t))[1] ** 2)

        found.append(jax.device_get(jax.jit(jax.grad(moved))(params)))
    assert_same(*found)
    assert abs(found[0]["blocks"]["Dense_0"]["kernel"]).max() > 1e-3


def test_what_cannot_be_split_is_said():
    made = toys.Lab(toys.config(), toys.layout("mesh", 8, 8))
    line = sharding.describe(made.layout, made.abstract, made.shardings)
    assert line == (
        "parallel.fsdp = 8 splits nothing: no parameter has 16384 numbers or more and an axis that 8 divides"
    )
    wrong = type("Wrong", (Stack,), {"stacked": ("layers",)})(4)
    with pytest.raises(ValueError, match="layers is a stack of blocks, but its parameters are Embed_0, blocks, into, "):
        check_contract(wrong, (8, 8, 1))
