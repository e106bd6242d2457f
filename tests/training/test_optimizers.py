"""Optimisers: what decays, how the learning rate moves, where the gradient is clipped."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fmd.models.registry import build_model
from fmd.training import optimizers


def unet_params():
    model = build_model("unet", {"num_classes": 4, "base_channels": 8, "num_res_blocks": 1, "embedding_dim": 16})
    example = jnp.zeros((1, 8, 8, 1)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    return jax.eval_shape(model.init, jax.random.key(0), *example)["params"]


def test_weight_decay_is_for_kernels_and_not_for_biases_norms_and_embeddings():
    mask = jax.tree_util.tree_leaves_with_path(optimizers.kernels(unet_params()))
    decayed = {path[-1].key for path, yes in mask if yes}
    spared = {path[-1].key for path, yes in mask if not yes}
    assert decayed == {"kernel"}
    assert spared == {"bias", "scale", "embedding"}


def test_decay_shrinks_kernels_by_learning_rate_times_weight_decay():
    params = {"layer": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    optimizer = optimizers.get("adamw", schedule=optax.constant_schedule(0.1), weight_decay=0.5)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    np.testing.assert_allclose(updates["layer"]["kernel"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["layer"]["bias"], 0.0)


@pytest.mark.parametrize("decay", ["cosine", "linear", "constant"])
def test_the_learning_rate_rises_linearly_and_falls_to_its_final_fraction(decay):
    rate = optimizers.learning_rate(2.0, 110, warmup_steps=10, decay=decay, final_fraction=0.25)
    np.testing.assert_allclose([float(rate(s)) for s in range(10)], 0.2 * np.arange(1, 11), rtol=1e-6)
    share = {"cosine": 0.5, "linear": 0.5, "constant": 1.0}[decay]
    middle, end = {"constant": (2.0, 2.0)}.get(decay, (0.5 + 1.5 * share, 0.5))
    assert float(rate(10)) == pytest.approx(2.0)
    assert float(rate(60)) == pytest.approx(middle)
    assert float(rate(110)) == pytest.approx(end)


def test_the_gradient_is_clipped_by_its_global_norm():
    params = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    gradient = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([0.0, 4.0])}
    optimizer = optimizers.get("sgd", schedule=optax.constant_schedule(1.0), clip_norm=1.0)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    np.testing.assert_allclose(optax.tree.norm(updates), 1.0, rtol=1e-6)
    np.testing.assert_allclose(updates["a"], [-0.6, 0.0], rtol=1e-6)


@pytest.mark.parametrize("name", list(optimizers.DIRECTIONS))
def test_every_optimiser_goes_downhill(name):
    params = {"layer": {"kernel": jnp.array([1.0, -2.0])}}
    optimizer = optimizers.get(name, schedule=optax.constant_schedule(0.05), weight_decay=1e-3, clip_norm=10.0)
    state, square = optimizer.init(params), lambda p: jnp.sum(p["layer"]["kernel"] ** 2)
    before = square(params)
    for _ in range(20):
        updates, state = optimizer.update(jax.grad(square)(params), state, params)
        params = optax.apply_updates(params, updates)
    assert square(params) < before


def test_muon_orthogonalises_kernels_as_matrices_and_leaves_the_rest_to_adam():
    """Of the gradient U S V^T of a kernel the update is -c U V^T, nearly, of the size that Adam's updates have."""
    rng = np.random.default_rng(0)
    gradient = {"kernel": jnp.float32(rng.normal(size=(3, 3, 4, 8))), "bias": jnp.float32(rng.normal(size=8))}
    muon, adam = optimizers.get("muon", schedule=optax.constant_schedule(1.0)), optax.nadam(1.0)
    update, adams = (optimizer.update(gradient, optimizer.init(gradient), gradient)[0] for optimizer in (muon, adam))
    np.testing.assert_allclose(update["bias"], adams["bias"], rtol=1e-5)
    u, _, v = np.linalg.svd(np.reshape(gradient["kernel"], (36, 8)), full_matrices=False)
    found = -u.T @ np.reshape(update["kernel"], (36, 8)) @ v.T / (0.2 * 36**0.5)
    values = np.diag(found)
    np.testing.assert_allclose(found, np.diag(values), atol=1e-3)  # the singular vectors are the gradient's
    assert np.all((values > 0.6) & (values < 1.3))  # what five iterations promise


def test_unknown_optimiser_and_too_long_a_warm_up_are_one_line():
    with pytest.raises(ValueError, match="choose one of adam, adamw"):
        optimizers.get("adamax", schedule=optax.constant_schedule(1.0))
    with pytest.raises(ValueError, match=r"must be below config\.train\.num_steps = 5"):
        optimizers.learning_rate(1.0, 5, warmup_steps=5)


def test_muon_takes_stacked_and_fused_kernels_as_the_matrices_they_are():
    """Each block's query, key and value has an update of its own, as if it were a kernel by itself."""
    generator = np.random.default_rng(0)

    def gradient(*shape):
        return {"kernel": jnp.float32(generator.normal(size=shape))}

    def update(tree):
        muon = optimizers.get("muon", schedule=optax.constant_schedule(1.0))
        return jax.jit(lambda tree: muon.update(tree, muon.init(tree), tree)[0])(tree)

    whole = {"blocks": {"query_key_value": gradient(2, 4, 18), "out": gradient(2, 6, 4)}}
    split = {}
    for block in range(2):
        fused = whole["blocks"]["query_key_value"]["kernel"][block]
        split |= {f"{block} {part}": {"kernel": fused[:, 6 * part : 6 * part + 6]} for part in range(3)}
        split |= {f"{block} out": {"kernel": whole["blocks"]["out"]["kernel"][block]}}
    found, alone = update(whole)["blocks"], update(split)
    for block in range(2):
        fused = np.concatenate([alone[f"{block} {part}"]["kernel"] for part in range(3)], axis=1)
        np.testing.assert_allclose(found["query_key_value"]["kernel"][block], fused, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(found["out"]["kernel"][block], alone[f"{block} out"]["kernel"], rtol=1e-3, atol=1e-5)


def test_muon_is_that_of_optax_on_every_backend(monkeypatch):
    """A CPU takes the short way to the same updates, accelerators optax's own; the states are alike."""
    rng = np.random.default_rng(0)
    spread = np.logspace(0, -3, 12)  # of the singular values
    shapes = {"tall": (3, 3, 16, 12), "wide": (4, 12), "square": (12, 12), "query_key_value": (2, 5, 12), "bias": (12,)}
    tree = {
        "blocks" if len(shape) == 3 else name: {name: {"kernel": jnp.float32(rng.normal(size=shape) * spread)}}
        for name, shape in shapes.items()
    }

    def two_steps():
        muon = optimizers.get("muon", schedule=optax.constant_schedule(1.0))
        state = muon.init(tree)
        for _ in range(2):
            found, state = muon.update(tree, state, tree)
        return found, state

    short = two_steps()
    assert short[0]["blocks"]["query_key_value"]["kernel"].shape == (2, 5, 12)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    chex.assert_trees_all_close(short, two_steps(), rtol=1e-3, atol=1e-4)
