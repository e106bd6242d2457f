"""The loop: one trace, no hidden transfers, a claim on its folder, an early end, a stop before the broken is saved."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmd import commands
from fmd.checkpoints.weights import load_weights
from fmd.data import load
from fmd.data.prepare import prepare
from fmd.training import callbacks, trainer
from fmd.training import recipe as recipes
from tests.helpers import toys

ONE = {"parallel": {"mode": "jit"}}
QUIET = {"log": {"every": 3, "eval_every": 0, "samples_every": 0}}


def steps_saved(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def train(workdir, *hooks, **overrides):
    hooks = hooks or (callbacks.Log(), callbacks.Checkpoints())
    return trainer.train(toys.config(**{**QUIET, **ONE, **overrides}), workdir, toys.dataset(), hooks)


def test_the_step_is_traced_once_in_a_whole_run(tmp_path, monkeypatch):
    chex.clear_trace_counter()
    monkeypatch.setattr(trainer, "train_steps", chex.assert_max_traces(trainer.train_steps, n=1))
    run = commands.train_config(toys.config(**ONE), tmp_path / "run")
    assert run.finished
    assert len(list((run.workdir / "samples").iterdir())) == 3


def test_a_hidden_transfer_in_a_step_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.devices, "place_feed", lambda layout, feed: feed)  # leaves them on the host
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        train(tmp_path / "run")


class StopAtFive(callbacks.Callback):
    def on_step_end(self, run):
        if run.step == 5:
            run.stop()


def test_stop_ends_the_run_with_a_checkpoint_and_it_goes_on_from_there(tmp_path):
    run = train(tmp_path / "run", callbacks.Log(), StopAtFive(), callbacks.Checkpoints())
    assert (run.step, run.finished, steps_saved(run.workdir)) == (6, False, [4, 6])
    again, whole = train(tmp_path / "run"), train(tmp_path / "whole")
    assert again.finished
    for a, b in zip(jax.tree.leaves(again.state), jax.tree.leaves(whole.state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_streamed_run_goes_on_inside_an_epoch_with_workers(tmp_path):
    """To the bits of one that threads read and nobody stopped."""
    prepare(toys.dataset(72), tmp_path / "set", quiet=True)  # an epoch of four steps and a half

    def read(name, workers, *hooks):
        data = {"source": "array_record", "params": {"path": str(tmp_path / "set")}, "workers": workers}
        config = toys.config(**QUIET, **ONE, data=data)
        hooks = callbacks.Log(), *hooks, callbacks.Checkpoints()
        return trainer.train(config, tmp_path / name, load(config.data.source, **config.data.params), hooks)

    assert read("run", 1, StopAtFive()).step == 6
    again, whole = read("run", 1), read("whole", 0)
    assert again.finished
    for a, b in zip(jax.tree.leaves(again.state), jax.tree.leaves(whole.state), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_for_the_end_and_a_second_interrupt_ends_at_once(number):
    run = object.__new__(trainer.Run)  # of which only the wish to stop is looked at
    run.stop_asked, before = False, signal.getsignal(signal.SIGINT)
    with trainer.stop_signals(run):
        os.kill(os.getpid(), number)
        assert run.stop_asked
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == before


def test_the_best_checkpoints_by_validation_loss_are_kept(tmp_path):
    losses = {4: 0.9, 8: 0.1, 12: 0.5, 16: 0.4, 20: 0.6}
    evaluate = callbacks.Evaluate(lambda run: lambda params: {"validation_loss": losses[run.step]})
    overrides = {
        "train": {"num_steps": 20},
        "log": {**QUIET["log"], "eval_every": 4},
        "checkpoint": {"every": 4, "keep_last": 1, "keep_best": 2},
    }
    run = train(tmp_path / "run", evaluate, callbacks.Checkpoints(), **overrides)
    assert steps_saved(run.workdir) == [8, 16, 20]


class Breaks:
    """Makes the gradient of the seventh step infinite."""

    def __init__(self, monkeypatch):
        original = recipes.make_recipe

        def make_recipe(*arguments):
            recipe = original(*arguments)
            kept = recipe.optimizer.update

            def update(gradient, state, params):
                count = state[-1].count
                return kept(jax.tree.map(lambda g: jnp.where(count == 6, jnp.inf, g), gradient), state, params)

            return dataclasses.replace(recipe, optimizer=recipe.optimizer._replace(update=update))

        monkeypatch.setattr(recipes, "make_recipe", make_recipe)


def test_a_loss_that_is_not_finite_stops_and_names_its_step(tmp_path, monkeypatch):
    Breaks(monkeypatch)
    with pytest.raises(FloatingPointError, match="not finite at step 8; the checkpoints before it are good"):
        train(tmp_path / "run")
    assert steps_saved(tmp_path / "run") == [4]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(load_weights(tmp_path / "run")[0]))


class LeftOut(callbacks.Callback):
    """Notes in the fifth step what a step that is left out leaves behind, and stops."""

    def on_step_end(self, run):
        if run.step == 5:
            noted = run.state.replace(first_bad=jnp.int32(5), skipped=jnp.int32(1))
            run.state = jax.device_put(noted, run.shardings)
            run.stop()


def test_skip_and_then_stop_goes_on_past_the_steps_that_were_left_out(tmp_path):
    train(tmp_path / "run", LeftOut(), callbacks.Checkpoints(), train={"on_nonfinite": "skip"})
    run = train(tmp_path / "run", train={"on_nonfinite": "stop"})
    assert (run.finished, int(run.state.skipped), int(run.state.first_bad)) == (True, 1, -1)


# -- whose folder -----------------------------------------------------------------------------------------------------


def info(**overrides):
    return recipes.make_info(toys.config(**overrides), toys.dataset())


def test_a_folder_of_something_else_is_not_taken(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"holds no fmd run but has 'thesis\.tex' in it"):
        trainer.train(toys.config(), tmp_path, toys.dataset(), [])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]  # no lock either


@pytest.mark.parametrize(
    ("sample", "refused"),
    [
        ({"guidance": {"name": "cgf"}}, "unknown guidance 'cgf'; did you mean 'cfg'"),
        ({"solver": "huen"}, "unknown solver 'huen'"),
        ({"solver": "jump", "steps": 1}, "jump"),
    ],
)
def test_settings_that_cannot_be_sampled_with_are_refused_before_a_run_begins(tmp_path, sample, refused):
    with pytest.raises(ValueError, match=refused):
        train(tmp_path / "run", sample=sample)
    assert not (tmp_path / "run" / "config.json").exists()


def test_what_may_change_between_two_parts_of_a_run_and_what_may_not(tmp_path):
    trainer.claim(tmp_path, info(seed=5))
    trainer.claim(tmp_path, info())  # nothing has come of it yet
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    for free in (
        {"train": {"on_nonfinite": "skip"}},
        {"log": {"every": 6}},
        {"checkpoint": {"keep_last": 5}},
        {"parallel": {"mode": "pmap"}},
    ):
        trainer.claim(tmp_path, info(**free))
    more = recipes.make_info(toys.config(), toys.dataset(size=100))
    with pytest.raises(ValueError, match="train_images: 96 -> 100"):
        trainer.claim(tmp_path, more)
    before = json.loads((tmp_path / "config.json").read_text())
    for fixed, difference in [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"model": {"name": "toy", "width": 16}}, "model.width: None -> 16"),
        ({"ema": {"decays": [0.5]}}, r"ema.decays: \[0.9, 0.99\] -> \[0.5\]"),
        ({"data": {"source": "toy", "flip": True}}, "data.flip: False -> True"),
    ]:
        with pytest.raises(ValueError, match=difference):
            trainer.claim(tmp_path, info(**fixed))
    assert json.loads((tmp_path / "config.json").read_text()) == before


def test_a_class_count_other_than_the_data_sets_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"config\.model\.num_classes = 7, but the data set has 4"):
        train(tmp_path / "run", model={"name": "toy", "num_classes": 7})


def test_grids_of_steps_that_a_run_goes_back_behind_are_removed(tmp_path):
    samples = tmp_path / "run" / "samples"
    train(tmp_path / "run", callbacks.Log(), callbacks.Checkpoints(), StopAtFive())
    samples.mkdir()
    for name in ("step_00000004.png", "step_00000007.png", "step_99999999.png", "step_of_mine.png"):
        (samples / name).touch()
    train(tmp_path / "run")
    assert sorted(path.name for path in samples.iterdir()) == ["step_00000004.png", "step_of_mine.png"]


def test_a_batch_that_the_devices_cannot_share_is_refused_with_near_sizes(tmp_path):
    with pytest.raises(ValueError, match="cannot be split over 8 devices; the nearest sizes that can are 8 and 16"):
        train(tmp_path / "run", train={"batch_size": 12}, parallel={"mode": "mesh"})


@pytest.mark.parametrize("name", ["run [best]", "a*b", "why?", "back\\slash"])
def test_a_workdir_that_reads_as_a_pattern_is_refused_before_the_first_step(tmp_path, name):
    with pytest.raises(ValueError, match="read as a pattern; choose a path without"):
        train(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_same_data_elsewhere_are_the_same_and_other_names_are_not(tmp_path):
    here, there = (toys.config(data={"source": "toy", "params": {"size": size}}) for size in (96, 95))
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    before = recipes.make_info(here, toys.dataset())
    (tmp_path / "config.json").write_text(json.dumps(before.to_json()))
    trainer.claim(tmp_path, dataclasses.replace(before, config=there))  # the digest says that the images are the same
    before = dataclasses.replace(before, config=there)
    renamed = dataclasses.replace(before, class_names=("a", "b", "c", "d"), data_digest="another")
    with pytest.raises(ValueError, match="class_names: None -> "):
        trainer.claim(tmp_path, renamed)
    with pytest.raises(ValueError, match="images or their labels are other ones"):
        trainer.claim(tmp_path, dataclasses.replace(before, data_digest="another"))
