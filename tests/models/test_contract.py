"""The contract's checker: what it lets through, and one line for each way to break it."""

import flax.linen as nn
import jax.numpy as jnp
import pytest

from fmd.models.contract import Model, check_contract
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


class AlwaysNoisy(nn.Module):
    num_classes: int = 0

    @nn.compact
    def __call__(self, x, t, y, train=False):
        return nn.Dropout(0.5, deterministic=False)(x)


class NoClasses(nn.Module):
    @nn.compact
    def __call__(self, x, t, y, train=False):
        return x


class Pair(nn.Module):
    num_classes: int = 0

    @nn.compact
    def __call__(self, x, t, y, train=False):
        return x, x


class Later(nn.Module):
    """A model with parameters that are made only where it is told r."""

    num_classes: int = 0

    @nn.compact
    def __call__(self, x, t, y, train=False, r=None):
        return x if r is None else nn.Dense(1)(x)


def test_parameters_do_not_depend_on_what_a_call_is_told():
    with pytest.raises(ValueError, match="Later makes other parameters where it is told r; its fields must say which"):
        check_contract(Later(), (6, 4, 1), second_time=True)


@pytest.mark.parametrize("model", [Linear(), build_model("unet", {"base_channels": 8, "num_classes": 0})])
def test_good_models_pass(model):
    assert isinstance(model, Model)
    check_contract(model, (6, 4, 2))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Linear(crop=1), r"Linear returned float32\[2, 5, 4, 1\] for images float32\[2, 6, 4, 1\] \(train=False\)"),
        (Linear(dtype="bfloat16"), r"returned bfloat16\[2, 6, 4, 1\].*must return a float32 array of the shape of x"),
        (Linear(statistics=True), r"keeps state in \['batch_stats'\]"),
        (NoClasses(), "NoClasses must be a flax.linen.Module with a field num_classes"),
        (Pair(), "Pair returned tuple"),
        (AlwaysNoisy(), "AlwaysNoisy draws random numbers with train=False"),
    ],
)
def test_broken_models_are_named(model, message):
    with pytest.raises(ValueError, match=message) as error:
        check_contract(model, (6, 4, 1))
    assert "\n" not in str(error.value)


class Noisy(nn.Module):
    """A user's model with a name of its own for its dropout, None for no dropout."""

    dropout_rate: float | None = 0.5
    num_classes: int = 3

    @nn.compact
    def __call__(self, x, t, y, train=False):
        x = nn.Dense(x.shape[-1])(x)
        return x if self.dropout_rate is None else nn.Dropout(self.dropout_rate, deterministic=not train)(x)


@pytest.mark.parametrize(("rate", "draws"), [(0.5, True), (0.0, False), (None, False)])
def test_dropout_is_found_by_tracing(rate, draws):
    assert check_contract(Noisy(rate), (4, 4, 1)) == draws


def test_a_model_is_traced_three_times():
    """A start spends most of its time on traces: one of its parameters, one for each value of `train`."""
    traced = []

    class Counted(Noisy):
        def __call__(self, x, t, y, train=False):
            traced.append(train)
            return super().__call__(x, t, y, train)

    check_contract(Counted(None), (4, 4, 1))
    assert traced == [False, False, True]


SPEC = {"label": {"kind": "label", "num_classes": 3}, "style": {"kind": "vector", "size": 5}}


def test_conditions_and_a_second_time_pass_where_a_model_has_them():
    settings = {"base_channels": 8, "num_classes": 0, "conditions": SPEC, "second_time": True, "dropout": 0.1}
    model = build_model("unet", settings)
    assert check_contract(model, (6, 4, 2), SPEC, second_time=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"conditions": SPEC}, "Linear cannot be told label, style: it has no field conditions"),
        ({"second_time": True}, "Linear has no second time: its call takes no r"),
    ],
)
def test_models_that_lack_what_is_needed_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        check_contract(Linear(), (6, 4, 1), **arguments)
    assert "\n" not in str(error.value)


def test_a_size_the_network_cannot_take_keeps_its_own_message():
    with pytest.raises(ValueError, match="below the smallest size 8x8"):
        check_contract(build_model("unet", {"channel_multipliers": (1, 1, 1, 1)}), (6, 9, 1))
