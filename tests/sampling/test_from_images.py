"""Models that begin at an image of their condition, or predict from it: sampled, exported, and refused as priors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from fmd.evaluation.validation import make_validation
from fmd.export import describe, portable
from fmd.sampling import checks
from fmd.sampling.sampler import Sampler, model_of
from tests.helpers import half_trained, toys

LOW = {"low": {"kind": "image", "height": 4, "width": 4, "channels": 1}}
BOTH = {"label": {"kind": "label", "num_classes": toys.CLASSES}, **LOW}
BRIDGE = {"name": "bridge", "source": "low", "noise_std": 0.3}
METHODS = {"bridge": {**BRIDGE, "gamma": 0.2}, "regression": {"name": "regression"}}
REASONS = {"bridge": "begins at an image and not at N", "regression": "predicts the mean"}
SAMPLE = {"solver": "euler", "steps": 2, "guidance": {"name": "cfg", "weight": 1.0}}
PLAIN = {"path": {"times": {"name": "uniform"}}, "sample": SAMPLE}


def made(method, conditions=BOTH):
    info = half_trained.make_info(**PLAIN, method=method, conditions=conditions)
    return info, Sampler.from_info(info, params=half_trained.make_params(info))


@pytest.fixture(scope="module", params=METHODS)
def model(request):
    return made(METHODS[request.param])


def asked(count=6):
    random = np.random.default_rng(1)
    low = random.uniform(-1, 1, (count, 4, 4, 1)).astype(np.float32)
    return {"label": np.arange(count, dtype=np.int32) % toys.CLASSES, "low": low}


def test_the_portable_program_draws_what_the_sampler_draws(model):
    info, sampler = model
    y, noise = asked(), np.random.default_rng(5).standard_normal((6, 8, 8, 1)).astype(np.float32)
    images = sampler(y, noise=noise)
    program = export.deserialize(bytearray(portable.serialize(sampler.model, sampler.params, info, sampler.settings)))
    assert [str(aval) for aval in program.in_avals] == [
        "float32[b,8,8,1]", "int32[b]", "float32[b,4,4,1]", "float32[]",
    ]  # fmt: skip
    alone = np.asarray(jax.jit(program.call)(noise, y["label"], y["low"], np.float32(1)))
    assert np.abs(alone.astype(int) - images).max() <= 1
    grey = (127.5 * (y["low"] + 1)).round().astype(np.uint8)  # as a data set holds it
    assert np.abs(sampler({**y, "low": grey}, noise=noise).astype(int) - images).mean() < 2
    assert np.abs(sampler({**y, "low": -y["low"]}, noise=noise).astype(int) - images).mean() > 5
    assert np.array_equal(sampler(y, noise=-noise), images) == (info.config.method.name == "regression")


def test_the_card_says_how_it_samples(model):
    solved = "solver euler with 2 steps, guidance rule cfg"
    assert describe.sampling(model[0]) == (solved if model[0].config.method.name == "bridge" else "one evaluation")


def test_it_is_no_prior_and_says_why(model):
    info, sampler = model
    pixels, reason = np.zeros((2, 8, 8, 1), np.uint8), REASONS[info.config.method.name]
    for ask in (
        lambda: sampler.bits_per_dim(pixels, asked(2)),
        lambda: sampler.edit(pixels, asked(2), jax.random.key(0), source=asked(2)),
        lambda: sampler.restore(jnp.zeros((2, 8, 8, 1)), lambda x: x, jax.random.key(0), asked(2)),
    ):
        with pytest.raises(ValueError, match=f"needs the velocity field of a method, and .* has none: it {reason}"):
            ask()


@pytest.mark.parametrize(
    ("conditions", "told", "refused"),
    [(LOW, "always", True), (LOW, "never", True), (LOW, "sometimes", False), (BOTH, "always", False)],
)
def test_guidance_needs_a_part_to_leave_out(conditions, told, refused):
    info = half_trained.make_info(**PLAIN, method={**BRIDGE, "told": told}, conditions=conditions)
    method = Sampler.from_info(info).method
    checks.check(method, info, info.config.sample)
    if not refused:
        return checks.check(method, info, info.config.sample.replace(weight=2.0))
    with pytest.raises(ValueError, match=r"weight 2\.0 has no effect: the network is told nothing but 'low'"):
        checks.check(method, info, info.config.sample.replace(weight=2.0))


@pytest.mark.parametrize("paired", [True, False])
def test_the_validation_loss_depends_on_no_batch(paired):
    coupling = {"name": "independent" if paired else "optimal_transport"}
    path = {"times": {"name": "uniform"}, "coupling": coupling}
    method = {**METHODS["bridge"], "paired": paired}
    info = half_trained.make_info(sample=SAMPLE, path=path, method=method, conditions=BOTH)
    model, params = model_of(info), half_trained.make_params(info)
    test, layout = toys.pairs().test, toys.layout("jit", 1)
    found = [make_validation(model, info, test, layout, examples=20, batch_size=size)(params) for size in (20, 5)]
    assert found[0]["validation_loss"] == pytest.approx(found[1]["validation_loss"], rel=1e-5)
