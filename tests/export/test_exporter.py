"""The exported folder: complete by itself, the same bytes each time, never half there, never over something else."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest

from fmd.blocks import as_plain
from fmd.checkpoints.weights import load_weights, read_arrays, save_weights
from fmd.config import resolve
from fmd.export import exporter
from fmd.export.exporter import export
from fmd.sampling.sampler import load
from tests.helpers import half_trained, toys
from tests.helpers.half_trained import STEP

FILES = {
    "README.md",
    "checksums.json",
    "config.json",
    "sampler.stablehlo",
    "samples.png",
    "weights.safetensors",
}


def files(folder):
    """Every file by its path in the folder, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_holds_what_it_should_and_nothing_that_executes_when_read(exported, params):
    content = files(exported)
    arrays = {name for name in content if name.startswith("weights/")}
    assert content.keys() - arrays == FILES
    assert {name.split("/")[1] for name in arrays} >= {"_METADATA", "conv_in.kernel"}
    assert not [name for name, data in content.items() if data[:1] == b"\x80"]  # how a pickle begins
    for found, want in zip(jax.tree.leaves(load_weights(exported)[0]), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(found, want)


def test_the_folder_says_what_the_program_was_made_with(exported):
    said = json.loads((exported / "config.json").read_text())
    assert (said["format"], said["step"], said["averages"]) == (2, STEP, ["decay0"])
    program = said["sampler"]
    assert (program["solver"], program["steps"], program["rule"]) == ("midpoint", 3, {"name": "cfg", "weight": 2.0})
    assert (program["platforms"], program["jax"], program["guided"]) == (["cpu", "cuda", "tpu"], jax.__version__, True)
    assert (program["method"], program["least_jax"]) == ("flow_matching", jax.__version__)
    assert program["inputs"] == ["noise float32[b,8,8,1]", "labels int32[b]", "weight float32[]"]


def test_another_process_exports_the_same_bytes_and_tells_of_no_folder(run, exported, tmp_path):
    code = f"from fmd.export.exporter import export; export({str(run)!r}, {str(tmp_path / 'again')!r})"
    environment = toys.environment(8, PYTHONPATH=str(Path(__file__).parents[2]))
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)
    first, second = files(exported), files(tmp_path / "again")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    for name, data in first.items():
        for folder in (run, exported, exporter.__file__.rpartition("/")[0]):
            assert str(folder).encode() not in data, name


def test_the_folder_names_no_folder_of_the_machine_that_trained(quick, info, params, tmp_path):
    """Neither where its data lay, nor what an evaluation or another checkpoint is called there."""
    private = "/home/ada/secret project"
    data = {"source": "toy", "params": {"path": f"{private}/flowers", "more": [f"{private}/birds", "~/secret/bees"]}}
    config = resolve({**as_plain(info.config), "data": data})
    told = info.replace(config=config, provenance=f"from {private}/flowers and /home/ada/secret/birds")
    run = half_trained.write_run(tmp_path / "run", told, params)
    (run / "eval.json").write_text(json.dumps({"settings": {"data": "x", "weak": f"{private}/runs/weak"}}))
    folder = export(run, tmp_path / "toy")
    for name, content in files(folder).items():
        assert b"secret" not in content, name
        assert b"/home" not in content, name
    found = load_weights(folder)[1]
    assert found.config.data.params == {"path": "flowers", "more": ["birds", "bees"]}
    assert found.provenance == "from flowers and birds"


def test_the_settings_may_be_changed(run, info, tmp_path):
    """They are those of the program and of the folder's sampler."""
    folder = export(run, tmp_path / "toy", change=lambda usual: usual.replace(solver="euler", steps=1, weight=1.5))
    said = json.loads((folder / "config.json").read_text())["sampler"]
    assert (said["solver"], said["steps"], said["rule"]["weight"]) == ("euler", 1, 1.5)
    sampler = load(folder)
    assert sampler.settings == info.config.sample.replace(solver="euler", steps=1, weight=1.5)
    noise = np.random.default_rng(0).standard_normal((8, 8, 8, 1)).astype(np.float32)
    program = jax.export.deserialize(bytearray((folder / "sampler.stablehlo").read_bytes()))
    alone = np.asarray(program.call(noise, np.int32([0, 1] * 4), np.float32(1.5)))
    assert np.abs(alone.astype(int) - sampler([0, 1] * 4, noise=noise)).max() <= 1


def test_the_export_needs_nothing_of_the_run(quick, params, run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    folder = export(tmp_path / "run", tmp_path / "models" / "toy")
    shutil.rmtree(tmp_path / "run")
    assert load_weights(folder)[1].step == STEP
    assert sorted(path.name for path in folder.parent.iterdir()) == ["toy"]


def test_the_export_says_which_average_it_holds(quick, run, params, tmp_path):
    folder = export(run / "checkpoints" / str(STEP), tmp_path / "other", average="decay1")
    weights, found = load_weights(folder, "decay1")
    assert (found.averages, found.average) == (("decay1",), "decay1")
    np.testing.assert_array_equal(weights["conv_in"]["kernel"], params["conv_in"]["kernel"] / 2)
    with pytest.raises(ValueError, match="there are decay1"):
        load_weights(folder, "decay0")


def test_a_scalar_and_an_array_in_another_order_are_stored_as_they_are(info, tmp_path):
    from safetensors.numpy import load as load_tensors

    weights = {"layer": {"scale": np.float32(3), "kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T}}
    tensors = load_tensors(exporter.tensors(weights, info))
    assert tensors["layer.scale"].shape == ()
    np.testing.assert_array_equal(tensors["layer.kernel"], weights["layer"]["kernel"])
    save_weights(tmp_path, weights, info)
    np.testing.assert_array_equal(read_arrays(tmp_path / "weights")["layer"]["kernel"], weights["layer"]["kernel"])


# --- compact ---


@pytest.fixture(scope="module")
def compact(run, tmp_path_factory):
    (run / "eval.json").write_text(json.dumps({"figures": {"fid": 2.0}, "settings": {"step": STEP}}))
    (run / "eval_flow.json").write_text(json.dumps({"figures": {"fid": 1.0}, "settings": {"step": STEP}}))
    (run / "eval_older.json").write_text(json.dumps({"figures": {"fid": 9.0}, "settings": {"step": STEP - 1}}))
    folder = export(run, tmp_path_factory.mktemp("models") / "compact", compact=True)
    for file in run.glob("eval*.json"):
        file.unlink()
    return folder


def test_a_compact_export_has_the_weights_once_in_half_precision(compact, params, monkeypatch):
    assert files(compact).keys() == FILES - {"sampler.stablehlo"} | {"quality.json"}
    weights, info = load_weights(compact)
    assert (info.step, info.sampler) == (STEP, None)
    assert jax.tree.structure(weights) == jax.tree.structure(params)
    for found, want in zip(jax.tree.leaves(weights), jax.tree.leaves(params), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, want.astype(np.float16))
    assert exporter.is_export(compact)
    monkeypatch.chdir(compact)
    code = re.findall(r"```python\n(.*?)```", (compact / "README.md").read_text(), re.DOTALL)
    assert len(code) == 2
    found = {}
    exec(code[1], found)
    np.testing.assert_array_equal(found["params"]["conv_in"]["kernel"], weights["conv_in"]["kernel"])
    exec(code[0], found)
    assert found["images"].std() > 10


def test_an_export_publishes_what_was_found_about_its_weights(compact):
    rows = json.loads((compact / "quality.json").read_text())["rows"]
    assert {name: row["figures"]["fid"] for name, row in rows.items()} == {"eval": 2.0, "eval_flow": 1.0}
    card = (compact / "README.md").read_text()
    assert "Evaluation of step 8 (`--mode=eval`), row `eval_flow`:" in card
    assert "`quality.json`" in card


def test_orbax_arrays_laid_beside_a_compact_export_are_refused(compact, exported, tmp_path):
    folder = shutil.copytree(compact, tmp_path / "toy")
    shutil.copytree(exported / "weights", folder / "weights")
    with pytest.raises(ValueError, match="not among those that it was exported with, the first is weights"):
        load(folder)


def test_a_weight_that_half_precision_cannot_hold_is_refused():
    assert exporter.in_half(np.float32([65504.0])).dtype == np.float16
    with pytest.raises(ValueError, match="too large for float16, above 65,504: export without --compact"):
        exporter.in_half(np.float32([1.0, 7e4]))


# --- damage ---


def test_every_file_is_listed_and_a_change_in_any_is_noticed(copied):
    listed = json.loads((copied / "checksums.json").read_text())
    assert listed.keys() == files(copied).keys() - {"checksums.json"}
    content = files(copied)
    for name in [*FILES, "weights/_METADATA", "weights/conv_in.kernel/.zarray", "weights/conv_in.kernel/0.0.0.0"]:
        path, data, middle = copied / name, content[name], len(content[name]) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        with pytest.raises(ValueError, match=r"changed|damaged|format|no fmd model") as refused:
            load_weights(copied)
        assert "\n" not in str(refused.value)
        path.unlink()
        with pytest.raises(ValueError, match=r"missing|no fmd model"):
            load_weights(copied)
        path.write_bytes(data)
    load_weights(copied)


def test_an_export_from_before_there_was_more_than_weights_still_loads(exported, params, tmp_path):
    """Such a folder holds weights/, config.json, and checksums of the files in sub-folders."""
    old = tmp_path / "old"
    shutil.copytree(exported / "weights", old / "weights")
    said = json.loads((exported / "config.json").read_text())
    said.pop("sampler")
    (old / "config.json").write_text(json.dumps(said))
    listed = json.loads((exported / "checksums.json").read_text())
    (old / "checksums.json").write_text(json.dumps({name: sum for name, sum in listed.items() if "/" in name}))
    np.testing.assert_array_equal(load(old).params["conv_in"]["kernel"], params["conv_in"]["kernel"])


def test_a_newer_folder_is_refused(copied):
    said = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**said, "format": 99}))
    with pytest.raises(ValueError, match="has format 99; this fmd reads 1 to 2"):
        load(copied)


# --- wrong wishes ---


def test_nothing_is_overwritten(run, tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "thesis.tex").write_text("")
    with pytest.raises(FileExistsError, match="choose another name"):
        export(run, tmp_path / "toy")
    assert [path.name for path in (tmp_path / "toy").iterdir()] == ["thesis.tex"]


def test_an_export_is_not_exported_again(exported, tmp_path):
    with pytest.raises(ValueError, match="is an export already; copy it"):
        export(exported, tmp_path / "again")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sde": {"name": "sigma", "scale": 1.0}}, "sample.sde draws random numbers on the way"),
        ({"guidance": {"name": "cfg", "weak": "/runs/early"}}, "guidance.weak names a second model"),
    ],
)
def test_what_a_program_cannot_hold_is_refused(run, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        export(run, tmp_path / "toy", change=lambda usual: usual.replace(**change))
    assert not list(tmp_path.iterdir())


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint at"):
        export(tmp_path / "nowhere", tmp_path / "toy")
    assert not list(tmp_path.iterdir())


def test_an_export_that_fails_leaves_nothing_behind(quick, run, tmp_path, monkeypatch):
    def fails(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(exporter, "save_weights", fails)
    with pytest.raises(OSError, match="no space left"):
        export(run, tmp_path / "toy")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("weights/conv_in.kernel/0.1", "refused"),
        ("weights/.zgroup", "refused"),
        ("weights/more/deep.npy", "refused"),
        ("notes.txt", "told"),
        ("other/model.py", "told"),
        ("eval.json", ""),
        ("sweep_weight.png", ""),
        (".gitattributes", ""),
        ("weights/.DS_Store", ""),
    ],
)
def test_a_file_that_the_checksums_do_not_name_is_refused_or_told(copied, caplog, name, outcome):
    (copied / name).parent.mkdir(parents=True, exist_ok=True)
    (copied / name).write_text("{}")
    if outcome == "refused":
        with pytest.raises(ValueError, match="not among those that it was exported with, the first is weights"):
            load(copied)
    else:
        load(copied)
        assert (name in caplog.text) == (outcome == "told")


def test_arrays_that_do_not_fit_into_memory_are_refused(copied, monkeypatch):
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 10, "SC_PHYS_PAGES": 10}.__getitem__)
    with pytest.raises(ValueError, match="weights says that it unpacks to"):
        load(copied)


@pytest.mark.slow
def test_a_network_that_jumps_is_exported_with_its_flow_beside(tmp_path):
    """Both programs draw what the sampler draws, by one evaluation and by the guided flow."""
    jumps = {"method": {"name": "mean_flow"}, "sample": {"solver": "jump", "steps": 1, "guidance": {"weight": 1.0}}}
    info = half_trained.make_info(**jumps)
    params = half_trained.make_params(info)
    folder = exporter.export(half_trained.write_run(tmp_path / "run", info, params), tmp_path / "model")
    sampler = load(folder)
    noise = np.random.default_rng(0).standard_normal((3, *info.image_shape), np.float32)
    labels = np.arange(3, dtype=np.int32)
    asked = {"sampler": (1.0, {}), "flow": (2.0, {"solver": "midpoint", "steps": exporter.FLOW_STEPS, "weight": 2.0})}
    for name, (weight, settings) in asked.items():
        program = jax.export.deserialize(bytearray((folder / f"{name}.stablehlo").read_bytes()))
        found = np.asarray(program.call(noise, labels, np.float32(weight))).astype(int)
        assert np.abs(found - sampler(labels, noise=noise, **settings)).max() <= 1
    assert "`flow.stablehlo`" in (folder / "README.md").read_text()
