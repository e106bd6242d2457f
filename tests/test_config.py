import dataclasses
import glob
import typing
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from fmd import config as configs
from fmd import config_files

CONFIGS = sorted(glob.glob(str(Path(__file__).parents[1] / "configs" / "*.py")))


def test_an_empty_config_gives_the_defaults():
    assert configs.resolve({}) == configs.Config()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: Path(p).stem)
def test_every_shipped_config_resolves_with_and_without_its_cpu_block(path):
    loaded = config_files.load_file(path)
    full = configs.resolve(loaded)
    assert configs.resolve(config_files.apply_on_cpu(loaded)).seed == full.seed
    # The docstring holds the command that runs it.
    assert f"--config=configs/{Path(path).name}" in Path(path).read_text()


def test_what_is_stored_resolves_to_the_same_config():
    first = configs.resolve(ConfigDict({"ema": {"decays": (0.9, 0.99)}, "model": {"name": "unet", "dropout": 0.1}}))
    assert configs.resolve(config_files.plain(dataclasses.asdict(first))) == first


def test_every_key_has_a_type_that_the_check_understands():
    def leaves(block, where=""):
        for name, hint in typing.get_type_hints(type(block)).items():
            value = getattr(block, name)
            if dataclasses.is_dataclass(hint):
                yield from leaves(value, f"{where}{name}.")
            else:
                yield f"{where}{name}", hint, value

    for key, hint, value in leaves(configs.Config()):
        assert configs.convert(config_files.plain(value), hint, key) == value


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
        assert config_files.override({}, [("a.b", text)]) == {"a": {"b": value}}

    def test_later_ones_win_and_others_stay(self):
        base = {"train": {"num_steps": 1, "batch_size": 2}}
        assert config_files.override(base, [("train.num_steps", "5"), ("train.num_steps", "6")]) == {
            "train": {"num_steps": 6, "batch_size": 2}
        }
        assert base["train"]["num_steps"] == 1

    def test_a_part_is_chosen_first_wherever_it_stands(self):
        pairs = [("model.width", "64"), ("model.name", "tiny")]
        assert config_files.override({"model": {"name": "unet", "dropout": 0.1}}, pairs)["model"] == {
            "name": "tiny",
            "width": 64,
        }

    def test_parameters_of_a_default_part_can_be_set(self):
        override = config_files.override({}, [("path.schedule.sigma_min", "0.1")])
        assert configs.resolve(override).path.schedule == {"name": "linear", "sigma_min": 0.1}

    def test_another_source_drops_the_parameters_of_the_old_one(self):
        base = {"data": {"source": "tfds", "params": {"name": "cifar10", "image_size": 8}}}
        assert config_files.override(base, [("data.source", "digits")])["data"]["params"] == {}
        assert config_files.override(base, [("data.params", "{}")])["data"]["params"] == {}
        renamed = config_files.override(base, [("data.params.name", "cifar100")])
        assert renamed["data"]["params"] == {"name": "cifar100", "image_size": 8}

    def test_another_part_drops_the_parameters_of_the_old_one(self):
        base = {"path": {"schedule": {"name": "linear", "sigma_min": 0.1}}}
        assert config_files.override(base, [("path.schedule.name", "cosine")])["path"]["schedule"] == {"name": "cosine"}
        assert config_files.override(base, [("path.schedule.sigma_min", "0.2")])["path"]["schedule"]["sigma_min"] == 0.2


def test_the_cpu_block_is_laid_over_the_rest():
    config = {"train": {"num_steps": 10, "batch_size": 4}, "on_cpu": {"train": {"num_steps": 2}}}
    assert config_files.apply_on_cpu(config)["train"] == {"num_steps": 2, "batch_size": 4}


def test_a_config_file_that_is_no_config(tmp_path):
    (tmp_path / "broken.py").write_text("def get_config(:\n")
    with pytest.raises(ValueError, match="cannot be used as a config: SyntaxError"):
        config_files.load_file(tmp_path / "broken.py")
    (tmp_path / "none.py").write_text("def get_config(): pass\n")
    with pytest.raises(ValueError, match="returned None"):
        config_files.load_file(tmp_path / "none.py")
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match="no attribute 'get_config'"):
        config_files.load_file(tmp_path / "empty.py")
    with pytest.raises(ValueError, match=r"no config file .*there are: .*empty\.py"):
        config_files.load_file(tmp_path / "emty.py")
