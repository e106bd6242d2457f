"""Checkpoints: what is kept, what happens to damaged ones, and that a save owns what it writes."""

import json
import os
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd.checkpoints import store as stores
from fmd.checkpoints.checksums import verify
from fmd.checkpoints.store import Store
from fmd.checkpoints.weights import load_weights, save_weights
from fmd.config import Config
from fmd.files import write_json
from fmd.run_info import FILE, FORMAT, RunInfo, read_run_info

INFO = RunInfo(Config(), (2, 2, 1), 3, 9, ("decay0", "power0"), "made up")


def state(step):
    """(ema, train) whose numbers tell their step."""
    return (
        {"decay0": {"w": jnp.full(64, 1.0 * step)}, "power0": {"w": jnp.full(64, 10.0 * step)}},
        {"params": {"w": jnp.full(64, 100.0 * step)}, "step": jnp.int32(step)},
    )


def abstract():
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state(0))


def filled(folder, steps, scores=None, **options):
    store = Store(folder / "checkpoints", **options)
    for step in steps:
        ema, train = state(step)
        store.save(step, ema, train, score=None if scores is None else scores[step])
    store.close()
    write_json(folder / FILE, INFO.to_json())
    return folder / "checkpoints"


def kept(folder):
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def restored_step(folder):
    ema, train = Store(folder).restore(*abstract())
    step = int(train["step"])
    for found, want in zip(jax.tree.leaves((ema, train)), jax.tree.leaves(state(step)), strict=True):
        np.testing.assert_array_equal(found, want)
    return step


@pytest.fixture(scope="module")
def run_of_two(tmp_path_factory):
    """A run with checkpoints 1 and 2, to be copied by whoever damages it."""
    folder = tmp_path_factory.mktemp("store") / "run"
    filled(folder, [1, 2])
    return folder


@pytest.fixture
def run(run_of_two, tmp_path):
    return shutil.copytree(run_of_two, tmp_path / "run")


def test_an_empty_folder_restores_nothing(tmp_path):
    assert Store(tmp_path / "checkpoints").restore(*abstract()) is None


def test_the_newest_steps_multiples_and_the_best_are_kept(tmp_path):
    assert kept(filled(tmp_path / "last", range(1, 6), keep_last=2)) == [4, 5]
    assert kept(filled(tmp_path / "every", range(1, 8), keep_last=1, keep_every=3)) == [3, 6, 7]
    scores = {1: 5.0, 2: 1.0, 3: 4.0, 4: 2.0, 5: 3.0, 6: 6.0}
    assert kept(filled(tmp_path / "best", scores, scores, keep_last=1, keep_best=2)) == [2, 4, 6]


def test_the_best_is_remembered_after_a_restart(tmp_path):
    filled(tmp_path, [1, 2], {1: 1.0, 2: 2.0}, keep_last=1, keep_best=1)
    again = filled(tmp_path, [3, 4], {3: 3.0, 4: None}, keep_last=1, keep_best=1)
    assert kept(again) == [1, 4]


def test_a_save_owns_what_it_writes_although_the_state_is_donated_at_once(tmp_path):
    donate = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 7, tree), donate_argnums=0)
    big = {"w": jnp.arange(2.0**20)}
    store = Store(tmp_path / "checkpoints")
    train = {"params": {"w": jnp.arange(2.0**20) + 1}, "step": jnp.int32(1)}
    store.save(1, {"decay0": big}, train)
    for _ in range(3):  # the buffers are written over while the save goes on
        big, train["params"] = donate(big), donate(train["params"])
    store.close()
    write_json(tmp_path / FILE, INFO.to_json())
    weights, _ = load_weights(tmp_path)
    np.testing.assert_array_equal(weights["w"], np.arange(2.0**20, dtype=np.float32))


def array_file(step):
    """The largest file of a step: the one with numbers in it."""
    return max((p for p in step.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "truncated": lambda step: os.truncate(array_file(step), 10),
    "a bit flipped": lambda step: flip_a_bit(array_file(step)),
    "a file missing": lambda step: array_file(step).unlink(),
    "checksums missing": lambda step: (step / "checksums.json").unlink(),
    "checksums truncated": lambda step: os.truncate(step / "checksums.json", 20),
    "an item missing": lambda step: shutil.rmtree(step / "train"),
    "emptied": lambda step: (shutil.rmtree(step), step.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_step_is_set_aside_and_the_one_before_is_used(run, damage):
    DAMAGES[damage](run / "checkpoints" / "2")
    assert load_weights(run)[1].step == 1
    assert restored_step(run / "checkpoints") == 1
    assert kept(run / "checkpoints") == [1]
    assert (run / "checkpoints" / "damaged-2").is_dir()


def test_a_flipped_bit_in_any_file_of_the_arrays_is_noticed(run):
    step = run / "checkpoints" / "2"
    listed = json.loads((step / "checksums.json").read_text())
    assert len(listed) > 5
    for name in listed:
        if (step / name).stat().st_size:
            flip_a_bit(step / name)
            with pytest.raises(ValueError, match="missing or changed"):
                verify(step)
            flip_a_bit(step / name)
    verify(step)


def test_damage_to_orbax_own_notes_beside_the_arrays_does_no_harm(run):
    step = run / "checkpoints" / "2"
    for path in step.iterdir():
        if path.is_file() and path.name != "checksums.json":
            os.truncate(path, path.stat().st_size // 2)
    assert restored_step(run / "checkpoints") in (1, 2)


def test_a_save_that_was_cut_short_is_not_a_checkpoint_and_is_cleared_away(run):
    half = run / "checkpoints" / "3.orbax-checkpoint-tmp"
    shutil.copytree(run / "checkpoints" / "2", half)
    assert load_weights(run)[1].step == 2
    store = Store(run / "checkpoints")
    assert int(store.restore(*abstract())[1]["step"]) == 2
    store.close()
    assert not half.exists()


def test_a_run_whose_every_step_is_damaged_is_refused_in_one_line(run):
    for step in ("1", "2"):
        DAMAGES["a bit flipped"](run / "checkpoints" / step)
    with pytest.raises(ValueError, match="holds no checkpoint that can be read") as first:
        load_weights(run)
    for _ in range(2):  # the second time, too: it must not begin anew because nothing is left
        with pytest.raises(ValueError, match="renamed damaged-") as second:
            Store(run / "checkpoints").restore(*abstract())
    assert "\n" not in str(first.value) + str(second.value)


def test_the_arrays_of_another_model_are_refused_and_not_set_aside(run):
    ema, train = abstract()
    train["params"]["more"] = train["params"]["w"]
    with pytest.raises(ValueError, match="does not fit this model"):
        Store(run / "checkpoints").restore(ema, train)
    assert kept(run / "checkpoints") == [1, 2]


def test_a_disk_that_refuses_is_one_line_and_the_step_before_stays_good(run, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    store = Store(run / "checkpoints", keep_last=2)
    monkeypatch.setattr(stores, "write_json", full)  # the last thing written before a step gets its name
    store.save(3, *state(3))
    with pytest.raises(OSError, match=r"could not save to .*No space left on device.*last complete checkpoint is good"):
        store.wait()
    monkeypatch.undo()
    assert load_weights(run)[1].step == 2
    assert restored_step(run / "checkpoints") == 2


def test_a_disk_that_takes_no_more_bytes_is_noticed_below_python_too(run):
    """The limit on the size of a file stands in for a full disk: the C++ writer of the arrays meets it."""
    store = Store(run / "checkpoints", keep_last=2)
    ema, train = state(3)
    train["params"]["w"] = jax.random.normal(jax.random.key(0), (2**18,))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    try:
        with pytest.raises(OSError, match=r"could not save to .*the last complete checkpoint is good"):  # noqa: PT012
            store.save(3, ema, train)
            store.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_weights(run)[1].step == 2
    assert restored_step(run / "checkpoints") == 2


def test_a_folder_that_cannot_be_written_to_is_an_os_error(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="checkpoints"):
        Store(tmp_path / "checkpoints")


# -- weights and what is said about them ------------------------------------------------------------------------------


def test_weights_come_from_a_run_one_step_or_an_export(run, tmp_path):
    weights, info = load_weights(run)
    np.testing.assert_array_equal(weights["w"], 2.0)
    assert isinstance(weights["w"], np.ndarray)
    assert (info.step, info.average) == (2, "decay0")
    assert load_weights(run, "power0")[0]["w"][0] == 20.0
    assert load_weights(run, "power0")[1].average == "power0"
    assert load_weights(run / "checkpoints" / "1")[0]["w"][0] == 1.0

    save_weights(tmp_path / "export", weights, info)
    again, exported = load_weights(tmp_path / "export")
    np.testing.assert_array_equal(again["w"], weights["w"])
    assert exported == info
    flip_a_bit(tmp_path / "export" / "weights" / "w" / "0")
    with pytest.raises(ValueError, match="missing or changed"):
        load_weights(tmp_path / "export")


def test_what_is_no_model_is_named(run, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text('{"some": "other program"}')
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "config.json").write_text('{"format": 99}')
    for name, message in {
        "nowhere": "no checkpoint at",
        "empty": "holds no fmd model",
        "foreign": "was not written by fmd",
        "newer": "reads 1 to",
    }.items():
        with pytest.raises(ValueError, match=message):
            load_weights(tmp_path / name)
    with pytest.raises(ValueError, match="there are decay0, power0"):
        load_weights(run, "decay7")


def test_what_a_run_says_comes_back_as_it_was(tmp_path):
    for info in (INFO, INFO.replace(empty_classes=(0, 2))):
        write_json(tmp_path / FILE, info.to_json())
        assert read_run_info(tmp_path) == info
    assert json.loads((tmp_path / FILE).read_text())["format"] == FORMAT


@pytest.mark.parametrize("name", ["run [best]", "[a]", "lr[1e-3]/seed[0]"])
def test_a_step_that_cannot_be_read_back_is_not_sealed(tmp_path, name):
    """The libraries below read such a folder as a pattern; a run refuses it before its first step."""
    store = Store(tmp_path / name)
    store.save(3, *state(3))
    with pytest.raises(OSError, match="cannot be read back"):
        store.wait()
    assert kept(tmp_path / name) == []
    assert not list((tmp_path / name).rglob("checksums.json"))
