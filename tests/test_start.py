"""A start compiles its own programs, and hardly any small ones on the way: each takes 10 to 80 ms of a CPU."""

import re

import jax
import pytest

from fmd.math import grids, schedules
from fmd.models.contract import check_contract
from fmd.models.registry import build_model

SPEC = {"label": {"kind": "label", "num_classes": 3}, "style": {"kind": "vector", "size": 7}}
ASKED = {
    "a model's contract": (lambda: check_contract(build_model("unet", {"base_channels": 8}), (6, 10, 1)), 0),
    "with conditions": (
        lambda: check_contract(
            build_model("unet", {"base_channels": 8, "num_classes": 0, "conditions": SPEC, "second_time": True}),
            (6, 10, 1), SPEC, second_time=True,
        ),
        0,
    ),
    "the ends of a schedule": (lambda: schedules.get("linear", sigma_min=0.25).singular_times, 1),
    "the scale of noise": (lambda: schedules.get("vp").prior_std, 1),
    "an even grid": (lambda: grids.get("uniform", 13), 1),
}  # fmt: skip


@pytest.mark.parametrize("asked", ASKED)
def test_few_programs_are_compiled(asked, caplog):
    ask, most = ASKED[asked]
    jax.clear_caches()
    with jax.log_compiles():
        ask()
        jax.jit(witness)()
    *compiled, last = re.findall(r"Finished XLA compilation of (\S+)", caplog.text)
    assert "witness" in last, "JAX says in other words what it compiles"
    assert len(compiled) <= most, compiled


def witness():
    return jax.numpy.ones(3)
