"""Published figures: where they are read, what they ask for again, and how far another figure may be from them."""

import json
import math
from pathlib import Path

import pytest

from fmd.checkpoints.locate import SHIPPED, shipped
from fmd.checkpoints.weights import load_weights
from fmd.evaluation.evaluate import Request
from fmd.evaluation.verify import Compared, allowance, asked, read_row

RESULTS = Path(__file__).parents[2] / "experiments" / "reference" / "results"


def test_a_row_is_the_first_of_an_export_or_one_by_name(tmp_path):
    rows = {
        name: {"figures": {"fid": value}, "settings": {"n_samples": 9}} for name, value in (("eval", 1), ("flow", 2))
    }
    (tmp_path / "quality.json").write_text(json.dumps({"rows": rows}))
    (tmp_path / "one.json").write_text(json.dumps(rows["flow"]))
    assert read_row(tmp_path) == read_row(tmp_path, "eval") == rows["eval"]
    assert read_row(tmp_path, "flow") == read_row(tmp_path / "one.json") == rows["flow"]
    with pytest.raises(ValueError, match="has no 'flaw'; its rows are eval, flow"):
        read_row(tmp_path, "flaw")
    with pytest.raises(ValueError, match=r"there is no .*none; --published takes an eval.json"):
        read_row(tmp_path / "none")
    for text in ("cut sho", "[]", "{}", '{"figures": {}, "settings": {}}'):
        (tmp_path / "one.json").write_text(text)
        with pytest.raises(ValueError, match=r"is damaged|has no"):
            read_row(tmp_path / "one.json")


@pytest.mark.parametrize("name", shipped())
def test_what_ships_publishes_what_can_be_repeated(name):
    request, settings = asked(read_row(SHIPPED / name))
    assert (request.n_samples, request.classes, request.features) == (5000, "balanced", "domain")
    assert settings == load_weights(SHIPPED / name)[1].config.sample  # as the model draws by default


def test_files_of_the_first_edition_are_understood():
    request, settings = asked(read_row(RESULTS / "mnist_cfg_strong_cpu_no_margin_seed123.json"), seed=7)
    assert request == Request(5000, ("test", "train"), "domain", 7, "balanced")
    assert (settings.solver, settings.steps, settings.weight) == ("midpoint", 5, 1.5)


def test_images_made_from_images_are_asked_for_again():
    request, _ = asked(read_row(RESULTS / "mnist_denoise_cpu.json"))
    assert request == Request(1000, ("test",), "domain", 0, "reference", paired_examples=500, paired_draws=16)


@pytest.mark.parametrize(
    ("name", "published", "allowed"),
    [
        ("test.fid", {"test.fid": 1.6}, 0.2),
        ("test.fid", {"test.fid": 0.1}, 0.05),
        ("test.kid", {"test.kid": 0.02, "test.kid_standard_error": 0.01}, 0.04),
        ("class_accuracy", {"class_accuracy": 0.9}, 4 * math.sqrt(0.09 / 400)),
        ("class_accuracy", {"class_accuracy": 1.0}, 4 / 400),  # as if one of them had been another
        ("paired.accuracy_of_draw", {"paired.accuracy_of_draw": 0.9}, 4 * math.sqrt(0.09 / 100)),
        ("paired.psnr_of_draw", {"paired.psnr_of_draw": 22.2}, 0.5),
    ],
)
def test_allowances(name, published, allowed):
    assert allowance(name, published, Request(n_samples=400, paired_examples=100)) == pytest.approx(allowed)
    for sign in (1, -1):
        assert Compared(name, 1.0, 1.0 + 0.99 * sign * allowed, allowed).agrees
        assert not Compared(name, 1.0, 1.0 + 1.01 * sign * allowed, allowed).agrees
