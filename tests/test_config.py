import dataclasses
import glob
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from fmd import config as configs
from fmd.arguments import resolve_for_this_machine
from fmd.blocks import checked, hints_of

CONFIGS = sorted(glob.glob(str(Path(__file__).parents[1] / "configs" / "*.py")))


def test_an_empty_config_gives_the_defaults():
    assert configs.resolve({}) == configs.Config()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: Path(p).stem)
def test_every_shipped_config_resolves_with_and_without_its_cpu_block(path):
    loaded = configs.load_file(path)
    full = configs.resolve(loaded)
    assert configs.resolve(configs.apply_on_cpu(loaded)).seed == full.seed
    # The docstring holds the command that runs it.
    assert f"--config=configs/{Path(path).name}" in Path(path).read_text()


def test_what_is_stored_resolves_to_the_same_config():
    first = configs.resolve(ConfigDict({"ema": {"decays": (0.9, 0.99)}, "model": {"name": "unet", "dropout": 0.1}}))
    assert configs.resolve(configs.as_plain(first)) == first


def test_every_key_has_a_type_that_the_check_understands():
    def leaves(block, where=""):
        for name, hint in hints_of(type(block)).items():
            value = getattr(block, name)
            if dataclasses.is_dataclass(hint):
                yield from leaves(value, f"{where}{name}.")
            else:
                yield f"{where}{name}", hint, value

    for key, hint, value in leaves(configs.Config()):
        assert checked(configs.plain(value), hint, key) == value


class TestOverrides:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("3", 3),
            ("3e-4", 3e-4),
            ("true", True),
            ("False", False),
            ("None", None),
            ("(1, 2)", (1, 2)),
            ("heun", "heun"),
        ],
    )
    def test_literals(self, text, value):
        assert configs.override({}, [("a.b", text)]) == {"a": {"b": value}}

    def test_later_ones_win_and_others_stay(self):
        base = {"train": {"num_steps": 1, "batch_size": 2}}
        assert configs.override(base, [("train.num_steps", "5"), ("train.num_steps", "6")]) == {
            "train": {"num_steps": 6, "batch_size": 2}
        }
        assert base["train"]["num_steps"] == 1

    def test_a_part_is_chosen_first_wherever_it_stands(self):
        pairs = [("model.width", "64"), ("model.name", "tiny")]
        assert configs.override({"model": {"name": "unet", "dropout": 0.1}}, pairs)["model"] == {
            "name": "tiny",
            "width": 64,
        }

    def test_parameters_of_a_default_part_can_be_set(self):
        override = configs.override({}, [("path.schedule.sigma_min", "0.1")])
        assert configs.resolve(override).path.schedule == {"name": "linear", "sigma_min": 0.1}

    def test_another_source_drops_the_parameters_of_the_old_one(self):
        base = {"data": {"source": "tfds", "params": {"name": "cifar10", "image_size": 8}}}
        assert configs.override(base, [("data.source", "digits")])["data"]["params"] == {}
        assert configs.override(base, [("data.params", "{}")])["data"]["params"] == {}
        renamed = configs.override(base, [("data.params.name", "cifar100")])
        assert renamed["data"]["params"] == {"name": "cifar100", "image_size": 8}

    def test_another_part_drops_the_parameters_of_the_old_one(self):
        base = {"path": {"schedule": {"name": "linear", "sigma_min": 0.1}}}
        assert configs.override(base, [("path.schedule.name", "cosine")])["path"]["schedule"] == {"name": "cosine"}
        assert configs.override(base, [("path.schedule.sigma_min", "0.2")])["path"]["schedule"]["sigma_min"] == 0.2


class TestParts:
    """A part that changes its name loses what is its own, and keeps what all parts of its kind have."""

    def test_another_optimiser_keeps_the_learning_rate(self):
        base = {"optimizer": {"name": "muon", "learning_rate": 6e-3, "warmup_steps": 7, "decay": "linear"}}
        for name in ("muon", "adam"):
            changed = configs.resolve(configs.override(base, [("optimizer.name", name)])).optimizer
            assert (changed.name, changed.learning_rate, changed.warmup_steps) == (name, 6e-3, 7)
            assert changed.decay == "linear"

    def test_another_rule_keeps_the_weight_and_the_weaker_model(self):
        base = {"sample": {"guidance": {"name": "cfg", "weight": 1.5, "interval": [0.1, 0.9], "weak": "runs/a"}}}
        found = configs.resolve(configs.override(base, [("sample.guidance.name", "apg")])).sample.guidance
        assert found == {"name": "apg", "weight": 1.5, "weak": "runs/a"}
        same = configs.resolve(configs.override(base, [("sample.guidance.name", "cfg")])).sample.guidance
        assert same == base["sample"]["guidance"]

    def test_other_times_keep_how_they_are_spread(self):
        base = {"path": {"times": {"name": "logit_normal", "mean": 1.0, "stratified": True, "clip": 0.01}}}
        found = configs.resolve(configs.override(base, [("path.times.name", "uniform")])).path.times
        assert found == {"name": "uniform", "stratified": True, "clip": 0.01}

    def test_a_cpu_block_with_another_source_leaves_the_first_ones_parameters(self):
        config = {
            "data": {"source": "tfds", "params": {"name": "cifar10"}},
            "on_cpu": {"data": {"source": "digits"}},
        }
        assert configs.apply_on_cpu(config)["data"] == {"source": "digits", "params": {}}

    def test_a_part_left_to_its_default_name_is_changed_like_any_other(self):
        base = {"path": {"schedule": {"sigma_min": 0.1}}}
        assert configs.resolve(configs.override(base, [("path.schedule.name", "cosine")])).path.schedule.params == {}


def test_settings_take_short_names_and_refuse_others():
    usual = configs.Settings()
    assert usual.replace(weight=2, steps=3).guidance == {"name": "cfg", "weight": 2}
    assert usual.replace(shift=2.0).grid == {"name": "shifted", "factor": 2.0}
    tight = usual.replace(tolerance=1e-3, solver="tsit5")
    assert (tight.rtol, tight.atol, tight.solver) == (1e-3, 1e-3, "tsit5")
    assert usual.replace(rule={"name": "apg", "eta": 0.5}, weight=3.0).guidance == {
        "name": "apg",
        "eta": 0.5,
        "weight": 3.0,
    }
    assert usual.replace(weight=None) == usual
    assert len({usual, usual.replace(steps=usual.steps), usual.replace(steps=99)}) == 2
    for wrong, message in [({"foo": 1}, "is no setting"), ({"steps": 0}, "1 or more"), ({"rtol": -1.0}, "0 or more")]:
        with pytest.raises(ValueError, match=message):
            usual.replace(**wrong)


def test_a_block_is_a_dictionary_that_does_not_change():
    block = configs.Block("rescale", base="cfg", interval=[0.1, 0.8], more={"a": [1]})
    assert block == {"name": "rescale", "base": "cfg", "interval": [0.1, 0.8], "more": {"a": [1]}}
    assert {block: 1}[configs.Block(dict(block))] == 1
    assert block.replace(base="apg").params["base"] == "apg"
    with pytest.raises(ValueError, match="a block with a name"):
        configs.Block({"weight": 1.0})


def test_the_cpu_block_is_laid_over_the_rest():
    config = {"train": {"num_steps": 10, "batch_size": 4}, "on_cpu": {"train": {"num_steps": 2}}}
    assert configs.apply_on_cpu(config)["train"] == {"num_steps": 2, "batch_size": 4}


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_an_override_of_what_the_cpu_block_changes_holds(monkeypatch, backend):
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    file_config = {"init_from": None, "first": {"seed": 1}, "on_cpu": {"first": {"train": {"num_steps": 2}}}}
    found = resolve_for_this_machine(file_config, [("first", "None"), ("init_from", "runs/a")])
    assert (found.first, found.init_from) == (None, "runs/a")
    with pytest.raises(ValueError, match=r"config\.train\.num_steps"):
        resolve_for_this_machine({"on_cpu": {"train": {"num_steps": 0}}}, [])


def test_a_config_file_that_is_no_config(tmp_path):
    (tmp_path / "broken.py").write_text("def get_config(:\n")
    with pytest.raises(ValueError, match="cannot be used as a config: SyntaxError"):
        configs.load_file(tmp_path / "broken.py")
    (tmp_path / "none.py").write_text("def get_config(): pass\n")
    with pytest.raises(ValueError, match="returned None"):
        configs.load_file(tmp_path / "none.py")
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match="no attribute 'get_config'"):
        configs.load_file(tmp_path / "empty.py")
    with pytest.raises(ValueError, match=r"no config file .*there are: .*empty\.py"):
        configs.load_file(tmp_path / "emty.py")
