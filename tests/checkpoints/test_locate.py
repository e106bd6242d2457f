"""The names of models that ship, beside paths; and the folders that ship: small, whole, and read only."""

import jax
import numpy as np
import pytest

from fmd.checkpoints import locate
from fmd.checkpoints.weights import load_weights
from fmd.config import resolve
from fmd.training.origin import origin_of

LARGEST = 3_000_000  # bytes


@pytest.mark.parametrize("name", locate.shipped())
def test_what_ships_is_small_and_whole(name):
    folder = locate.SHIPPED / name
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= LARGEST
    params, info = load_weights(name)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    assert info.config.data.source == name
    assert {"README.md", "quality.json", "samples.png"} <= {path.name for path in folder.iterdir()}


def test_a_model_of_ones_own_comes_before_one_that_ships(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped, own = locate.SHIPPED / "mnist", tmp_path / "mnist"
    assert locate.locate("mnist") == shipped
    own.mkdir()  # of data, say
    assert locate.locate("mnist") == shipped
    assert locate.locate("./mnist") == own  # a path
    assert origin_of(resolve({"init_from": "mnist"}), tmp_path / "run") == shipped
    assert locate.results_folder("mnist").as_posix() == locate.results_folder(shipped).as_posix() == "eval_mnist"
    (own / "config.json").write_text("{}")
    assert locate.locate("mnist") == locate.results_folder("mnist") == own


def test_an_unknown_name_says_what_ships(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"no checkpoint at .*/mnits; .* ships with fmd: .*{locate.shipped()[0]}"):
        load_weights("mnits")
