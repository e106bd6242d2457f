"""One step, any devices: the same numbers under jit, pmap and a mesh, and what the compiled programs hold and send."""

import collections
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys
from jax import P

from fmd.checkpoints.store import Store
from fmd.sampling.program import choose
from fmd.sampling.sampler import Sampler
from fmd.training import setup
from fmd.training import step as steps
from fmd.training.step import Batch, draw, train_step
from fmd.utils import distributed

pytestmark = pytest.mark.usefixtures("full_compilation")

LAYOUTS = [("pmap", 2, 1), ("pmap", 4, 1), ("pmap", 8, 1), ("mesh", 2, 1), ("mesh", 4, 2), ("mesh", 8, 4)]
COLLECTIVE = re.compile(r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


def layout(mode, count, fsdp=1):
    return distributed.make_layout(mode, fsdp=fsdp, devices=jax.devices()[:count])


@pytest.fixture(scope="module", autouse=True)
def shard_small_parameters():
    """The toy has no parameter that is worth sharding; here all that can be are."""
    before, distributed.SMALLEST_SHARDED = distributed.SMALLEST_SHARDED, 10
    yield
    distributed.SMALLEST_SHARDED = before


@pytest.fixture(scope="module")
def labs():
    """Labs by layout, made when first asked for, with their compiled program."""
    made = {}

    def get(name):
        if name not in made:
            lab = toys.Lab(toys.config(), layout(*name))
            lab.program = lab.program.lower(lab.start(), lab.resident, next(lab.feed())).compile()
            made[name] = lab
        return made[name]

    return get


@pytest.fixture(scope="module")
def alone(labs):
    return jax.device_get(labs(("jit", 1, 1)).run(3))


@pytest.mark.parametrize("name", LAYOUTS, ids=str)
def test_three_steps_give_the_same_state_and_log_as_on_one_device(labs, alone, name):
    found = jax.device_get(labs(name).run(3))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(alone), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("name", LAYOUTS, ids=str)
def test_one_step_is_the_same_to_a_millionth(labs, name):
    alone, found = (jax.device_get(labs(n).run(1)) for n in (("jit", 1, 1), name))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(alone), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-6, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("name", LAYOUTS, ids=str)
def test_gradients_meet_in_exactly_one_all_reduce(labs, name):
    lab = labs(name)
    found = collections.Counter(COLLECTIVE.findall(lab.program.as_text()))
    sharded = [s for s in jax.tree.leaves(lab.shardings.params) if s.spec != P()]
    assert bool(sharded) == (name[2] > 1)
    # On an fsdp mesh each sharded parameter is gathered once before it is used; nothing else travels. XLA for GPU and
    # TPU may turn the all-reduce and the slicing after it into a reduce-scatter.
    assert found == collections.Counter({"all-reduce": 1, "all-gather": len(sharded)} if sharded else {"all-reduce": 1})


def test_a_mesh_of_eight_holds_an_eighth_of_each_large_array_per_device():
    lab = toys.Lab(toys.config(model={"name": "toy", "width": 64}), layout("mesh", 8, 8))
    compiled = lab.program.lower(lab.start(), lab.resident, next(lab.feed())).compile()

    def parts(spec):
        return 8 if spec != P() else 1

    state = sum(
        leaf.size * leaf.dtype.itemsize // parts(sharding.spec)
        for leaf, sharding in zip(jax.tree.leaves(lab.abstract), jax.tree.leaves(lab.shardings), strict=True)
    )
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(lab.abstract))
    resident = sum(leaf.nbytes for leaf in lab.resident.values())
    feed = sum(leaf.nbytes // 8 for leaf in next(lab.feed()).values())
    memory = compiled.memory_analysis()
    assert memory.argument_size_in_bytes == state + resident + feed
    assert state < 0.2 * whole
    assert memory.alias_size_in_bytes >= state  # all of the state is donated, so that it exists once


# -- draws ------------------------------------------------------------------------------------------------------------


def global_draws(recipe, lay, batch):
    """What `draw` gives for a global batch that is split as on `lay`: images, labels, noise, times, dropped labels."""

    def drawn(batch):
        x1, labels, draws, _ = draw(jnp.int32(5), batch, recipe, lay.axis_name)
        return x1, labels, draws.x0, draws.t, draws.drop_label

    if lay.axis_name is None:
        place = lambda x: jax.device_put(x, lay.batch_sharding(0))  # noqa: E731
        return jax.jit(drawn)(jax.tree.map(place, batch))
    split = jax.tree.map(lambda x: x.reshape(lay.mesh.size, -1, *x.shape[1:]), batch)
    mapped = jax.pmap(
        drawn,
        axis_name=lay.axis_name,
        devices=list(lay.mesh.devices.flat),
    )
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), mapped(split))


@pytest.mark.parametrize("coupling", ["independent", "optimal_transport"])
@pytest.mark.parametrize("name", [("pmap", 4, 1), ("mesh", 8, 2)], ids=str)
def test_draws_are_bit_identical_however_the_batch_is_split(name, coupling):
    config = toys.config(
        path={"coupling": {"name": coupling}, "times": {"name": "logit_normal", "stratified": True}},
        data={"source": "toy", "flip": True, "shift": 1},
    )
    lab = toys.Lab(config, layout("jit", 1))
    images, labels = lab.data.train.images[:16], lab.data.train.labels[:16]
    batch = Batch(images, labels, np.arange(16, dtype=np.int32))
    one = jax.device_get(global_draws(lab.recipe, lab.layout, batch))
    many = jax.device_get(global_draws(lab.recipe, layout(*name), batch))
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a, b)
    x1, labels, x0, _, _ = one
    paired = transport_is_optimal_within_classes(x1, x0, labels)
    assert paired == (coupling == "optimal_transport")


def transport_is_optimal_within_classes(x1, x0, y):
    """No exchange of two noises of one class lowers the cost: the pairing saw the whole batch."""
    cost = ((x1[:, None] - x0[None]) ** 2).sum(axis=(2, 3, 4))
    swaps = [
        cost[i, i] + cost[j, j] <= cost[i, j] + cost[j, i] + 1e-3
        for i in range(len(y))
        for j in range(i)
        if y[i] == y[j]
    ]
    return all(swaps)


# -- a forgotten average ----------------------------------------------------------------------------------------------


def shard_mapped(lab, check_vma):
    def body(state, images, labels, index):
        return train_step(state, Batch(images, labels, index), lab.recipe, axis_name="data")

    split = P(("data",))
    return jax.jit(
        jax.shard_map(
            body, mesh=lab.layout.mesh, in_specs=(P(), split, split, split), out_specs=P(), check_vma=check_vma
        )
    )


@pytest.mark.parametrize("parts", [1, 2])
def test_the_step_passes_the_check_of_what_varies_over_devices(parts):
    lab = toys.Lab(toys.config(train={"grad_accumulation": parts}), layout("pmap", 4))
    data = lab.data.train
    arguments = data.images[:16], data.labels[:16], np.arange(16, dtype=np.int32)
    state, _ = shard_mapped(lab, check_vma=True)(lab.start(), *arguments)
    single, _ = jax.jit(lambda s, *b: train_step(s, Batch(*b), lab.recipe))(lab.start(), *arguments)
    for a, b in zip(jax.tree.leaves(single), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_step_that_forgets_to_average_is_caught_by_that_check(monkeypatch):
    """pmap itself would train on with the gradients of the first device."""
    lab = toys.Lab(toys.config(), layout("pmap", 4))
    data = lab.data.train
    arguments = lab.start(), data.images[:16], data.labels[:16], np.arange(16, dtype=np.int32)
    monkeypatch.setattr(steps.lax, "pmean", lambda tree, axis_name: tree)
    shard_mapped(lab, check_vma=False).lower(*arguments)
    with pytest.raises(ValueError, match="replicated"):
        shard_mapped(lab, check_vma=True).lower(*arguments)


# -- other devices, other platforms -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "target"), [
    (("mesh", 8, 4), ("jit", 1, 1)),
    (("mesh", 8, 4), ("mesh", 4, 2)),
    (("jit", 1, 1), ("mesh", 8, 4)),
    (("pmap", 4, 1), ("pmap", 2, 1)),
], ids=str)  # fmt: skip
def test_a_run_goes_on_with_other_devices_and_another_layout(labs, tmp_path, source, target):
    state, _ = labs(source).run(2)
    saved = jax.device_get(state)
    store = Store(tmp_path / "checkpoints")
    store.save(2, ema=state.ema, train=state.replace(ema={}))
    store.close()

    lab = labs(target)
    placed = lab.placed()
    ema, train = Store(tmp_path / "checkpoints").restore(ema=placed.ema, train=placed.replace(ema={}))
    restored = train.replace(ema=ema)
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (saved, restored)), strict=True))
    assert jax.tree.map(lambda x: x.sharding, restored) == lab.shardings

    on, _ = lab.run(1, restored)
    alone, _ = labs(("jit", 1, 1)).run(3)
    for a, b in zip(jax.tree.leaves(alone.params), jax.tree.leaves(on.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_step_and_the_guided_sampler_lower_for(platform):
    lab = toys.Lab(toys.config(), layout("jit", 1))
    step = jax.jit(partial(steps.train_steps, recipe=lab.recipe), donate_argnums=0)
    arguments = lab.start(), lab.resident, next(lab.feed())
    assert "stablehlo" in step.trace(*arguments).lower(lowering_platforms=(platform,)).as_text()

    facts = setup.make_facts(lab.config, lab.data)
    sampler = Sampler.from_facts(facts, params=lab.start().params, model=lab.model, layout=lab.layout)
    index = np.arange(2, dtype=np.int32)
    program = sampler._program(choose(facts, weight=3.0))
    lowered = program.trace(sampler.params, jax.random.key(0), index, index, np.float32(3)).lower(
        lowering_platforms=(platform,)
    )
    assert "stablehlo" in lowered.as_text()
