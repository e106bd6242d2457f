"""The exported folder: complete by itself, never half there, never over something else."""

import shutil

import numpy as np
import pytest

from fmd.checkpoints.facts import write_facts
from fmd.checkpoints.store import Store
from fmd.checkpoints.weights import load_weights
from fmd.export import exporter
from fmd.export.exporter import export

FACTS = {"config": {}, "averages": ["decay0", "decay1"], "image_shape": [8, 8, 1], "num_classes": 4}


@pytest.fixture
def run(tmp_path):
    store = Store(tmp_path / "run" / "checkpoints")
    weights = {"layer": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}
    store.save(5, ema={"decay0": weights, "decay1": weights}, train={"step": np.int32(5)})
    store.close()
    write_facts(tmp_path / "run", FACTS)
    return tmp_path / "run"


def test_the_export_needs_nothing_of_the_run(run, tmp_path):
    folder = export(run, tmp_path / "models" / "digits")
    shutil.rmtree(run)
    weights, facts = load_weights(folder)
    np.testing.assert_array_equal(weights["layer"]["kernel"], np.arange(6).reshape(2, 3))
    assert facts == {"format": 1, **FACTS, "averages": ["decay0"], "step": 5}
    assert sorted(path.name for path in folder.parent.iterdir()) == ["digits"]


def test_the_export_says_which_average_it_holds(run, tmp_path):
    folder = export(run, tmp_path / "digits", which="decay1")
    assert load_weights(folder, "decay1")[1]["averages"] == ["decay1"]
    with pytest.raises(ValueError, match="there are decay1"):
        load_weights(folder, "decay0")


def test_nothing_is_overwritten(run, tmp_path):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "thesis.tex").write_text("")
    with pytest.raises(FileExistsError, match="choose another name"):
        export(run, tmp_path / "digits")
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["thesis.tex"]


def test_an_export_that_fails_leaves_nothing_behind(run, tmp_path, monkeypatch):
    def fails(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(exporter, "save_weights", fails)
    with pytest.raises(OSError, match="no space left"):
        export(run, tmp_path / "digits")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint at"):
        export(tmp_path / "nowhere", tmp_path / "digits")
