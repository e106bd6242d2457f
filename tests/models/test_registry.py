"""Models by name: what is accepted, and that each mistake is one line that names the way out."""

import subprocess
import sys

import flax.linen as nn
import ml_collections
import pytest

from fmd.models.registry import available_models, build_model, register_model


@register_model("tiny")
class Tiny(nn.Module):
    width: int
    scale: float = 1.0
    multipliers: tuple[int, ...] = (1,)
    num_classes: int = 10
    activation: str | None = None


def test_the_registry_alone_knows_the_built_in_models():
    program = "from fmd.models.registry import build_model; print(build_model('unet', {}).num_classes)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["10"]
    assert {"tiny", "unet"} <= set(available_models())


def test_builds_from_a_config_and_ignores_the_name():
    cfg = ml_collections.ConfigDict({"name": "tiny", "width": 3, "scale": 2, "multipliers": [1, 2]})
    model = build_model("tiny", cfg)
    assert (model.width, model.scale, model.multipliers, model.num_classes) == (3, 2, (1, 2), 10)
    assert model.name is None  # the registry's name is not the Flax module's
    assert build_model("tiny", {"width": 1, "activation": "silu"}).activation == "silu"


def test_offered_values_reach_the_fields_that_exist():
    assert build_model("tiny", {"width": 1}, num_classes=4, conditions=None).num_classes == 4
    assert build_model("tiny", {"width": 1, "num_classes": 3}, num_classes=4).num_classes == 3


def test_functions_can_be_registered():
    @register_model("made_by_function")
    def build(width: int, **others):
        return Tiny(width, **others)

    assert build_model("made_by_function", {"width": 2, "scale": 3.0}).scale == 3.0


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"width": 3, "multiplers": (1,)}, "no parameter 'multiplers'; did you mean 'multipliers'?"),
        ({"width": 3, "zzz": 1}, "it takes: width, scale, multipliers, num_classes, activation"),
        ({"width": 3, "parent": None}, "has no parameter 'parent'"),
        ({"width": "3"}, "model 'tiny': width = '3'; it must be a whole number"),
        ({"width": 3.0}, "width = 3.0; it must be a whole number"),
        ({"width": True}, "width = True; it must be a whole number"),
        ({"width": 3, "scale": "big"}, "scale = 'big'; it must be a number"),
        ({"width": 3, "multipliers": (1, 2.5)}, r"multipliers = \(1, 2.5\); it must be a tuple, each a whole number"),
        ({"width": 3, "multipliers": 2}, "multipliers = 2; it must be a tuple, each a whole number"),
        ({"width": 3, "activation": 1}, "activation = 1; it must be a name or None"),
        ({}, "needs the parameter width"),
    ],
)
def test_wrong_settings_are_one_line(cfg, message):
    with pytest.raises(ValueError, match=message) as error:
        build_model("tiny", cfg)
    assert "\n" not in str(error.value)


def test_unknown_model_lists_the_names():
    with pytest.raises(KeyError, match=r"unknown model 'unett'; did you mean 'unet'\? known: .*\btiny\b.*\bunet\b"):
        build_model("unett", {})


@pytest.mark.parametrize("name", ["tiny", "unet"])
def test_a_name_is_registered_once(name):
    with pytest.raises(ValueError, match=f"'{name}' is already registered"):
        register_model(name)(nn.Dense)
