"""The contract's checker: what it lets through, and one line for each way to break it."""

import flax.linen as nn
import jax.numpy as jnp
import pytest

from fmd.models.conditional_vector_field import ConditionalVectorField, check_contract
from fmd.models.registry import build_model


class Linear(nn.Module):
    """A model that keeps the contract, with the ways to break it as fields."""

    num_classes: int = 3
    dtype: str = "float32"
    crop: int = 0
    statistics: bool = False

    @nn.compact
    def __call__(self, x, t, y, train=False):
        if self.statistics:
            self.variable("batch_stats", "mean", jnp.zeros, ())
        out = nn.Dense(x.shape[-1])(x)
        out = nn.Dropout(0.5, deterministic=not train)(out)
        return out[:, self.crop :].astype(self.dtype)


class NoClasses(nn.Module):
    @nn.compact
    def __call__(self, x, t, y, train=False):
        return x


class Pair(nn.Module):
    num_classes: int = 0

    @nn.compact
    def __call__(self, x, t, y, train=False):
        return x, x


@pytest.mark.parametrize("model", [Linear(), build_model("unet", {"base_channels": 8, "num_classes": 0})])
def test_good_models_pass(model):
    assert isinstance(model, ConditionalVectorField)
    check_contract(model, (6, 4, 2))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Linear(crop=1), r"Linear returned float32\[2, 5, 4, 1\] for images float32\[2, 6, 4, 1\] \(train=False\)"),
        (Linear(dtype="bfloat16"), r"returned bfloat16\[2, 6, 4, 1\].*must return a float32 array of the shape of x"),
        (Linear(statistics=True), r"keeps state in \['batch_stats'\]"),
        (NoClasses(), "NoClasses must be a flax.linen.Module with a field num_classes"),
        (Pair(), "Pair returned tuple"),
    ],
)
def test_broken_models_are_named(model, message):
    with pytest.raises(ValueError, match=message) as error:
        check_contract(model, (6, 4, 1))
    assert "\n" not in str(error.value)


def test_a_size_the_network_cannot_take_keeps_its_own_message():
    with pytest.raises(ValueError, match="below the smallest size 8x8"):
        check_contract(build_model("unet", {"channel_multipliers": (1, 1, 1, 1)}), (6, 9, 1))
