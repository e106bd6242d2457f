"""Models by name: what is accepted, and that each mistake is one line that names the way out."""

import subprocess
import sys

import flax.linen as nn
import ml_collections
import pytest

from fmd.models import registry
from fmd.models.registry import build_model, register_model


@pytest.fixture(autouse=True)
def clean_registry(monkeypatch):
    """Each test registers into a copy."""
    monkeypatch.setattr(registry, "MODEL_REGISTRY", dict(registry.MODEL_REGISTRY))


def register_tiny():
    @register_model("tiny")
    class Tiny(nn.Module):
        width: int
        scale: float = 1.0
        multipliers: tuple[int, ...] = (1,)
        num_classes: int = 10
        activation: str | None = None

    return Tiny


def test_the_registry_alone_knows_the_built_in_models():
    program = "from fmd.models.registry import build_model; print(build_model('unet', {}).num_classes)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["10"]


def test_builds_from_a_config_and_ignores_the_name():
    register_tiny()
    cfg = ml_collections.ConfigDict({"name": "tiny", "width": 3, "scale": 2, "multipliers": [1, 2]})
    model = build_model("tiny", cfg)
    assert (model.width, model.scale, model.multipliers, model.num_classes) == (3, 2, (1, 2), 10)
    assert model.name is None  # the registry's name is not the Flax module's
    assert build_model("tiny", {"width": 1, "activation": "silu"}).activation == "silu"


def test_functions_can_be_registered():
    @register_model("made_by_function")
    def build(width: int, **others):
        return width, others

    assert build_model("made_by_function", {"width": 2, "anything": 1}) == (2, {"anything": 1})


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"width": 3, "multiplers": (1,)}, "'multiplers'; did you mean 'multipliers'?"),
        ({"width": 3, "zzz": 1}, "valid: width, scale, multipliers, num_classes, activation"),
        ({"width": 3, "parent": None}, "has no setting 'parent'"),
        ({"width": "3"}, "'width' of 'tiny' must be int, got '3'"),
        ({"width": 3.0}, "must be int, got 3.0"),
        ({"width": True}, "must be int, got True"),
        ({"width": 3, "scale": "big"}, "must be float, got 'big'"),
        ({"width": 3, "multipliers": (1, 2.5)}, r"must be tuple\[int, ...\], got \(1, 2.5\)"),
        ({"width": 3, "multipliers": 2}, r"must be tuple\[int, ...\], got 2"),
        ({"width": 3, "activation": 1}, "must be str | None, got 1"),
        ({}, "needs the setting width"),
    ],
)
def test_wrong_settings_are_one_line(cfg, message):
    register_tiny()
    with pytest.raises(ValueError, match=message) as error:
        build_model("tiny", cfg)
    assert "\n" not in str(error.value)


def test_unknown_model_lists_the_names():
    register_tiny()
    with pytest.raises(KeyError, match=r"unknown model 'unett'; available: .*\btiny\b.*\bunet\b"):
        build_model("unett", {})


@pytest.mark.parametrize("name", ["tiny", "unet"])
def test_a_name_is_registered_once(name):
    register_tiny()
    with pytest.raises(ValueError, match=f"'{name}' is already registered"):
        register_model(name)(nn.Dense)
