"""One step, any devices: the same numbers under jit, pmap and a mesh, and what the compiled programs hold and send."""

import collections
import re
from functools import partial

import jax
import numpy as np
import pytest
from jax import P

from fmd.checkpoints.store import Store
from fmd.sampling.sampler import Sampler
from fmd.training import recipe
from fmd.training import step as steps
from tests.helpers import toys

pytestmark = pytest.mark.usefixtures("full_compilation")

LAYOUTS = [("pmap", 2, 1), ("pmap", 4, 1), ("pmap", 8, 1), ("mesh", 2, 1), ("mesh", 4, 2), ("mesh", 8, 4)]
COLLECTIVE = re.compile(r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


# The toy has no parameter that is worth sharding; here all that can be are.
Lab = partial(toys.Lab, smallest=10)


@pytest.fixture(scope="module")
def labs():
    """Labs by layout, made when first asked for, with their compiled program."""
    made = {}

    def get(name):
        if name not in made:
            lab = Lab(toys.config(), toys.layout(*name))
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


@pytest.mark.slow
def test_muon_takes_the_same_steps_on_split_kernels():
    config = toys.config(optimizer={"name": "muon", "learning_rate": 1e-2})
    alone, found = (jax.device_get(Lab(config, toys.layout(*n)).run(2)) for n in (("jit", 1, 1), ("mesh", 8, 4)))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(alone), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5, err_msg=jax.tree_util.keystr(path))


def test_a_mesh_of_eight_holds_an_eighth_of_each_large_array_per_device():
    lab = Lab(toys.config(model={"name": "toy", "width": 64}), toys.layout("mesh", 8, 8))
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
    lab = Lab(toys.config(), toys.layout("jit", 1))
    step = jax.jit(partial(steps.train_steps, recipe=lab.recipe), donate_argnums=0)
    arguments = lab.start(), lab.resident, next(lab.feed())
    assert "stablehlo" in step.trace(*arguments).lower(lowering_platforms=(platform,)).as_text()

    info = recipe.make_info(lab.config, lab.data)
    sampler = Sampler.from_info(info, params=lab.start().params, model=lab.model, layout=lab.layout)
    index = np.arange(2, dtype=np.int32)
    program = sampler.program(sampler.settings.replace(weight=3.0))
    traced = program.trace(sampler.params, None, jax.random.key(0), np.float32(3), index, index)
    lowered = traced.lower(lowering_platforms=(platform,))
    assert "stablehlo" in lowered.as_text()
