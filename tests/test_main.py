"""The command line as a user meets it: good commands work, bad ones end with code 2 and one line."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from PIL import Image

from fmd import cli, devices, main
from fmd.arguments import parse_labels
from fmd.checkpoints import locate
from fmd.commands.sampling import FRAMES
from fmd.data import load as load_source
from fmd.data.sources import idx
from fmd.evaluation import evaluate as evaluation
from fmd.files import write_json
from fmd.run_info import read_run_info
from tests.helpers import half_trained, toys

ROOT = Path(__file__).parents[1]
DIGITS = f"--config={ROOT}/configs/digits.py"
FOLDER = f"--config={ROOT}/configs/folder.py"
TINY = [
    DIGITS,
    "--config.train.num_steps=4",
    "--config.train.batch_size=8",
    "--config.log.every=2",
    "--config.log.eval_every=2",
    "--config.log.eval_examples=8",
    "--config.log.samples_every=0",
    "--config.log.samples_per_class=1",
    "--config.checkpoint.every=2",
    "--config.optimizer.warmup_steps=1",
    "--config.model.base_channels=8",
    "--config.model.channel_multipliers=(1,)",
    "--config.sample.steps=1",
]


@pytest.fixture
def fmd(monkeypatch, capfd, tmp_path):
    """Runs the command line in this process, in an empty folder; returns (exit code, what it said on stderr)."""
    monkeypatch.setenv("FMD_HUGE_PAGES", "0")
    monkeypatch.chdir(tmp_path)

    def command(*arguments):
        flags.FLAGS.unparse_flags()
        for name in main.FLAGS.flags_by_module_dict()["fmd.main"]:
            name.unparse()
        monkeypatch.setattr(sys, "argv", ["fmd", *arguments])
        capfd.readouterr()
        code = 0
        try:
            main.run()
        except SystemExit as stop:
            code = stop.code or 0
        return code, capfd.readouterr().err

    return command


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The workdir of a tiny finished run."""
    workdir = tmp_path_factory.mktemp("main") / "run"
    command = [sys.executable, "-m", "fmd.main", *TINY, f"--workdir={workdir}"]
    subprocess.run(command, check=True, capture_output=True, env=toys.environment())  # one device: quicker
    return workdir


def test_a_run_is_sampled_evaluated_and_exported(fmd, trained):
    assert sorted(p.name for p in (trained / "checkpoints").iterdir()) == ["2", "4"]
    assert (trained / "samples" / "step_00000004.png").exists()
    assert fmd("--mode=eval", f"--checkpoint={trained}", "--n_samples=80", "--steps=2")[0] == 0
    assert (trained / "eval.json").exists()
    assert fmd("--mode=export", f"--checkpoint={trained}", "--out=model")[0] == 0
    sample = ("--mode=sample", "--n_samples=12", "--steps=2", "--seed=5")
    for source, name in [(trained, "run"), (trained / "checkpoints" / "4", "step"), ("model", "export")]:
        assert fmd(*sample, f"--checkpoint={source}", f"--outfile={name}.npz")[0] == 0
    drawn = {name: np.load(f"{name}.npz") for name in ("run", "step", "export")}
    assert drawn["run"]["images"].dtype == np.uint8
    assert drawn["run"]["images"].shape == (12, 8, 8, 1)
    np.testing.assert_array_equal(drawn["run"]["labels"], np.arange(12, dtype=np.int32) % 10)
    for other in ("step", "export"):
        np.testing.assert_array_equal(drawn["run"]["images"], drawn[other]["images"])


def test_a_model_that_ships_is_judged_and_its_figures_repeated(fmd, trained, tmp_path, monkeypatch, caplog):
    """Nothing is written into its folder."""
    assert fmd("--mode=export", "--compact", f"--checkpoint={trained}", "--steps=2", "--out=shipped/toy")[0] == 0
    monkeypatch.setattr(locate, "SHIPPED", tmp_path / "shipped")
    before = sorted((tmp_path / "shipped").rglob("*"))
    assert fmd("--mode=eval", "--checkpoint=toy", "--n_samples=80")[0] == 0
    assert sorted((tmp_path / "shipped").rglob("*")) == before
    verify = ("--mode=verify", "--checkpoint=toy", "--published=eval_toy/eval.json")
    assert fmd(*verify)[0] == 0
    assert caplog.messages[-1] == "all 5 figures agree"
    published = json.loads(Path("eval_toy/eval.json").read_text())
    published["figures"]["test"]["fid"] *= 2
    write_json(Path("eval_toy/eval.json"), published)
    assert fmd(*verify)[0] == 1
    assert caplog.messages[-1] == "1 of 5 figures differ: test.fid"
    published["settings"]["features"] = "pixels-0"
    write_json(Path("eval_toy/eval.json"), published)
    code, said = fmd(*verify)
    assert (code, said.split(": they")[0]) == (
        2, "fmd: the published figures are of features = 'pixels-0', here it is 'pixels-1'"
    )  # fmt: skip


@pytest.mark.slow
def test_images_are_restored_and_judged(fmd, trained, monkeypatch):
    monkeypatch.setattr(evaluation, "ANOMALY_EXAMPLES", 20)
    command = (
        "--mode=restore",
        f"--checkpoint={trained}",
        "--n_samples=3",
        "--steps=2",
        "--draws=2",
        "--noise_std=0.3",
    )
    code, said = fmd(*command, "--operator=mask:hidden=centre+block_average:factor=2", "--outfile=x.png")
    assert code == 0, said
    assert Image.open("x.png").height > 3 * 8
    np.savez("x.npz", images=np.zeros((2, 8, 8, 1), np.uint8), labels=np.zeros(2, np.int32))
    more = ("--images=x.npz", "--operator=identity", "--method=flower", "--label=1", "--outfile=y.png")
    assert fmd(*command, *more)[0] == 0
    judged = ("--mode=eval", f"--checkpoint={trained}", "--n_samples=80", "--steps=2")
    code, said = fmd(*judged, "--classify=9", "--against=digits")
    assert code == 0, said
    figures = json.loads((trained / "eval.json").read_text())["figures"]
    assert figures["classification"]["examples"] == 9
    assert figures["anomalies"]["bits"] == 0.5  # the same images


def test_labels_of_a_sample(fmd, trained):
    code, _ = fmd("--mode=sample", f"--checkpoint={trained}", "--n_samples=3", "--steps=1", "--label=1,2",
                  "--outfile=x.npz")  # fmt: skip
    assert code == 0
    np.testing.assert_array_equal(np.load("x.npz")["labels"], [1, 2, 1])


@pytest.mark.parametrize(
    ("text", "names", "labels"),
    [
        ("7", None, [7, 7, 7]),
        ("null", None, [10, 10, 10]),
        ("1,2", None, [1, 2, 1]),
        ("猫,cat", ("cat", "猫"), [1, 0, 1]),
        ("1,cat", ("cat", "dog"), [1, 0, 1]),
        ("10", ("1", "2", "10"), [2, 2, 2]),  # a name before a number
        ("a,b", ("a", "b", "a,b"), [2, 2, 2]),
        ("null,cat", ("cat", "dog"), [2, 0, 2]),
        (" dog", ("dog", " dog"), [1, 1, 1]),
        (None, ("cat", "dog"), [0, 1, 0]),
    ],
)
def test_classes_are_asked_for_by_name_or_number(text, names, labels):
    info = half_trained.make_info(num_classes=10 if names is None else len(names)).replace(class_names=names)
    np.testing.assert_array_equal(parse_labels(text, 3, info), labels)
    for wrong in ("bird", "1.5", "", "cat,", "-1"):
        with pytest.raises(ValueError, match=f"--label={wrong}; give a class, several as 1,2,3, or null"):
            parse_labels(wrong, 3, info)


def test_classes_without_training_images_are_not_drawn_unless_asked_for(caplog):
    info = half_trained.make_info(num_classes=5).replace(class_names=tuple("abcde"), empty_classes=(0, 3))
    np.testing.assert_array_equal(parse_labels(None, 4, info), [1, 2, 4, 1])
    assert "no training image" not in caplog.text
    np.testing.assert_array_equal(parse_labels("a,b", 2, info), [0, 1])
    assert "no training image had the label 0: nothing was learnt of it" in caplog.text


def test_a_picture_is_not_overwritten_unless_asked(fmd, trained):
    command = ("--mode=sample", f"--checkpoint={trained}", "--n_samples=4", "--steps=1", "--outfile=x.png")
    assert fmd(*command)[0] == 0
    assert fmd(*command) == (2, "fmd: x.png exists; choose another --outfile, or replace it with --overwrite\n")
    assert fmd(*command, "--overwrite")[0] == 0


@pytest.mark.parametrize("name", ["x.npz", "x.png", "x.gif"])
def test_an_interrupt_keeps_the_images_that_are_finished(fmd, trained, monkeypatch, name):
    command = ("--mode=sample", f"--checkpoint={trained}", "--n_samples=300", "--steps=1", f"--outfile={name}")
    place, calls = devices.split_batch, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return place(*arguments)

    monkeypatch.setattr(devices, "split_batch", interrupted)
    monkeypatch.setattr(cli, "leave", lambda code, at_once=False: sys.exit(code))
    code, said = fmd(*command)
    assert (code, said.splitlines()[-1]) == (130, f"fmd: interrupted: the first 256 of 300 images are in {name}")
    if name == "x.npz":
        with np.load(name) as kept:
            assert kept["images"].shape == (256, 8, 8, 1)
            np.testing.assert_array_equal(kept["labels"], np.arange(256) % 10)
    else:
        assert Path(name).stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".webp"])
def test_an_animation_runs_from_noise_to_the_picture(fmd, trained, suffix):
    command = ("--mode=sample", f"--checkpoint={trained}", "--n_samples=4", "--steps=2", "--outfile")
    assert fmd(*command, "x.png")[0] == 0
    assert fmd(*command, f"x{suffix}")[0] == 0
    picture = np.asarray(Image.open("x.png"))
    with Image.open(f"x{suffix}") as animation:
        assert animation.n_frames == FRAMES
        noise = np.asarray(animation.convert("L"))
        animation.seek(FRAMES - 1)
        np.testing.assert_array_equal(np.asarray(animation.convert("L")), picture)
    inside = noise[10:-10, 10:-10]
    assert ((inside == 0).mean() > 0.05) & ((inside == 255).mean() > 0.05) & (noise != picture).any()
    assert fmd(*command, f"x{suffix}")[0] == 2


def test_an_evaluation_keeps_its_samples_where_no_stranger_can_put_some(fmd, trained, monkeypatch):
    used = []
    monkeypatch.setattr(evaluation, "evaluate", lambda *a, folder, **k: used.append(folder) or {"figures": {}})
    for path in (trained, trained / "checkpoints" / "4"):
        assert fmd("--mode=eval", f"--checkpoint={path}")[0] == 0
    assert len(set(used)) == 2
    assert not any(trained in folder.parents for folder in used)


def own_images(folder):
    """The same 200 images of two classes as a folder, archives and IDX files; samples that are these images."""
    labels = np.repeat(np.int32([0, 1]), 100)
    images = np.random.default_rng(0).integers(0, 128, (200, 8, 8), np.uint8) + np.uint8(100) * labels[
        :, None, None
    ].astype(np.uint8)
    for k, (image, label) in enumerate(zip(images, labels, strict=True)):
        for split in ("train", "test"):
            (folder / "files" / split / f"c{label}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / "files" / split / f"c{label}" / f"{k}.png")
    np.savez(folder / "real.npz", images=images, labels=labels)
    np.savez(folder / "samples.npz", images[..., None], labels)
    (folder / "idx").mkdir()
    for name, array in zip(idx.FILE_NAMES, (images, labels.astype(np.uint8)) * 2, strict=True):
        (folder / "idx" / name).write_bytes(idx.encode(array))


@pytest.mark.parametrize(
    ("source", "params"),
    [
        ("folder", {"path": "files"}),
        ("npz", {"path": "real.npz", "test_path": "real.npz"}),
        ("idx", {"path": "idx", "num_classes": 2, "name": "mine"}),
    ],
)
def test_own_samples_are_judged_by_own_images_of_any_source(fmd, tmp_path, source, params):
    own_images(tmp_path)
    overrides = [f"--config.data.params.{key}={value}" for key, value in params.items()]
    code, said = fmd("--mode=eval", "--samples=samples.npz", f"--source={source}", *overrides)
    assert code == 0, said
    result = json.loads(Path("samples.npz.eval.json").read_text())
    assert result["figures"]["test"]["fid"] < 1e-3
    assert result["settings"]["reference_images"] == {"test": 200}


def test_a_prepared_folder_is_left_as_it_is_and_both_its_splits_are_references(fmd, tmp_path):
    own_images(tmp_path)
    command = ("--mode=prepare", "--source=folder", "--config.data.params.path=files", "--out=ready")
    written = []
    for _ in range(2):
        code, said = fmd(*command, "--config.data.params.image_size=8")
        assert code == 0, said
        written.append({path.name: path.stat().st_mtime_ns for path in Path("ready").iterdir()})
    assert written[0] == written[1]
    more = ("--source=array_record", "--config.data.params.path=ready", "--reference=train,test")
    code, said = fmd("--mode=eval", "--samples=samples.npz", *more)
    assert code == 0, said
    result = json.loads(Path("samples.npz.eval.json").read_text())
    assert result["settings"]["reference_images"] == {"train": 200, "test": 200}
    assert max(result["figures"][split]["fid"] for split in ("train", "test")) < 1e-3


@pytest.mark.parametrize("elsewhere", ["source=npz", "params.path=moved.npz"])
def test_an_evaluation_is_told_where_the_data_lie(fmd, trained, tmp_path, caplog, elsewhere):
    """The run's own data under another name are known by their digest; other images are told."""
    run, own = shutil.copytree(trained, tmp_path / "run"), load_source("digits")
    values = read_run_info(run).to_json()
    values["config"]["data"] = {"source": "npz", "params": {"path": "gone.npz", "test_path": "test.npz"}}
    values |= {"class_names": None, "data_digest": dataclasses.replace(own, class_names=None).digest()}
    write_json(run / "config.json", values)
    np.savez("moved.npz", images=own.train.images, labels=own.train.labels)
    np.savez("test.npz", images=own.test.images, labels=own.test.labels)
    command = ("--mode=eval", "--checkpoint=run", "--n_samples=80", f"--config.data.{elsewhere}")
    more = ("--config.data.params.path=moved.npz", "--config.data.params.test_path=test.npz")
    where = "[from --config.data.params.path=gone.npz; give the path of your data]"
    assert fmd(*command[:3]) == (2, f"fmd: there is no file gone.npz {where}\n")
    code, said = fmd(*command, *(more if elsewhere == "source=npz" else ()))
    assert (code, "other data" in caplog.text) == (0, False), said
    assert json.loads((run / "eval.json").read_text())["settings"]["data_digest"] == values["data_digest"]
    np.savez("moved.npz", images=own.train.images[::-1], labels=own.train.labels)
    assert fmd(*command, *more)[0] == 0
    assert "moved holds other data than the model was trained on" in caplog.text


BAD_CONFIG = {
    "trian.num_steps=3": "config.train",
    "train.num_stepz=3": "config.train.num_steps",
    "train=3": "block of keys",
    "train.num_steps=0": "1 or more",
    "train.num_steps=-1": "1 or more",
    "train.num_steps=1.5": "whole number",
    "train.num_steps=many": "whole number",
    "train.num_steps=None": "whole number",
    "train.batch_size=0": "1 or more",
    "train.batch_size=True": "whole number",
    "train.label_dropout=1.5": "in [0, 1]",
    "train.label_dropout=-0.1": "in [0, 1]",
    "train.label_dropout=nan": "a number, in [0, 1]",
    "train.loss=hubert": "one of squared, pseudo_huber",
    "train.weighting=snr": "one of prediction, velocity",
    "train.steps_per_dispatch=3": "multiple of config.train.steps_per_dispatch",
    "train.grad_accumulation=3": "divisor of train.batch_size",
    "train.on_nonfinite=ignore": "one of stop, skip",
    "optimizer.learning_rate=0": "above 0",
    "optimizer.learning_rate=-1e-3": "above 0",
    "optimizer.learning_rate=inf": "a number, above 0",
    "optimizer.learning_rate='1e-3'": "a number, above 0",
    "optimizer.warmup_steps=4": "below config.train.num_steps",
    "optimizer.name=adan": "adam, adamw",
    "optimizer.decay=step": "cosine, linear, constant",
    "optimizer.clip_norm=0": "above 0",
    "optimizer.b1=1": "in [0, 1)",
    "ema.decays=()": "at least one decay",
    "ema.decays=(1.0,)": "in [0, 1)",
    "ema.decays=0.9": "a tuple",
    "ema.power_stds=(0.4,)": "in (0, 0.288",
    "path.schedule.name=liner": "linear",
    "path.schedule.sigma_min=2": "sigma_min",
    "path.schedule.sigmamin=0.1": "sigma_min",
    "path.schedule=linear": "a block",
    "path.prediction=score": "velocity, data, noise",
    "path.times.name=beta": "logit_normal",
    "path.times.std=-1": "std",
    "path.coupling.name=optimal": "optimal_transport",
    "model.name=unot": "unet",
    "model.base_chanels=8": "base_channels",
    "model.base_channels=0": "1 or more",
    "model.base_channels=wide": "must be a whole number",
    "model.channel_multipliers=(1,2,4,8,16)": "16",
    "model.dropout=1.0": "[0, 1)",
    "model.dtype=float8": "bfloat16",
    "data.source=mnits": "mnist",
    'data.params={"path":"x"}': "digits",
    "data.shift=-1": "0 or more",
    "data.flip=1": "True or False",
    "sample.steps=0": "1 or more",
    "sample.solver=huen": "heun",
    "sample.guidance.name=cgf": "cfg",
    "sample.guidance.weight=nan": "must be a number",
    "sample.guidance.interval=(0.8,0.2)": "interval",
    "checkpoint.every=0": "1 or more",
    "checkpoint.keep_last=0": "1 or more",
    "log.every=0": "1 or more",
    "log.callbacks=('nowhere',)": "package.module:Class",
    "log.callbacks=('nowhere:Thing',)": "package.module:Class",
    "parallel.mode=tpu": "jit, pmap, mesh",
    "parallel.fsdp=3": "divisor",
    "imports=('no_such_module',)": "no_such_module",
    "seed=-1": "[0, 2147483648)",
    "on_cpu=3": "a block",
    "sample.guidance.weight=strong": "must be a number",
    "on_cpu.trian.num_steps=3": "config.train",
}


@pytest.mark.parametrize(("override", "expected"), BAD_CONFIG.items())
def test_a_wrong_config_is_one_line(fmd, override, expected):
    code, said = fmd(*TINY, f"--config.{override}", "--workdir=run")
    lines = [line for line in said.splitlines() if line.startswith("fmd: ")]
    assert code == 2, said
    assert len(lines) == 1, said
    assert expected in lines[0]
    assert "Traceback" not in said
    assert not list(Path("run").glob("checkpoints/[0-9]*"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "needs a config file"),
        (("--config=nowhere.py",), "no config file"),
        (("--config=~nobody-here/c.py",), "no config file ~nobody-here/c.py"),
        ((DIGITS, "--workdir=~nobody-here/run"), "the home folder of this user is not known"),
        (("--mode=sample", "--checkpoint=~nobody-here/run"), "the home folder of this user is not known"),
        (("--mode=sample", "--checkpoint={run}", "--n_samples=99999999999999999999"), "--n_samples=99999"),
        (("--mode=sample", "--checkpoint={run}", f"--seed={2**70}"), f"--seed={2**70}"),
        (("--mode=eval", "--checkpoint={run}", "--seed=-1"), "--seed=-1"),
        ((*TINY, f"--config.seed={2**70}"), "in [0, 2147483648)"),
        (("--mode=smaple",), "mode"),
        (("--mod=sample",), "mod"),
        (("surplus", DIGITS), "unexpected argument 'surplus'"),
        (("--mode=sample",), "needs --checkpoint"),
        (("--mode=sample", "--checkpoint=nowhere"), "no checkpoint at"),
        (("--mode=verify", "--checkpoint=nowhere"), "no checkpoint at"),
        (("--mode=sample", "--steps=2.5"), "flag --steps=2.5: it must be a whole number\n"),
        (("--mode=sample", "--weight=strong"), "flag --weight=strong: it must be a number\n"),
        ((FOLDER, "--config.data.params.path=gone"), "no folder gone [from --config.data.params.path=gone; give"),
        (("--mode=export", "--checkpoint=nowhere"), "needs --out"),
        (("--mode=eval", "--checkpoint=."), "config.json"),
        (("--mode=sample", "--checkpoint={run}", "--label=11"), "--label=11; give a class"),
        (("--mode=sample", "--checkpoint={run}", "--label=seven"), "--label=seven"),
        (("--mode=sample", "--checkpoint={run}", "--solver=huen"), "huen"),
        (("--mode=sample", "--checkpoint={run}", "--steps=0"), "steps"),
        (("--mode=sample", "--checkpoint={run}", "--weight=nan"), "nan"),
        (("--mode=sample", "--checkpoint={run}", "--solver=dopri5", "--steps=9"), "steps = 9 has no effect with"),
        (
            ("--mode=eval", "--checkpoint={run}", "--solver=dopri8", "--config.sample.steps=9"),
            "no effect with 'dopri8'",
        ),
        ((*TINY, "--config.sample.solver=tsit5"), "steps = 1 has no effect with 'tsit5'"),
        (
            ("--mode=export", "--checkpoint={run}", "--out=x", "--solver=bosh3", "--steps=3"),
            "has no effect with 'bosh3'",
        ),
        (("--mode=sample", "--checkpoint={run}", "--n_samples=0"), "n_samples"),
        (("--mode=sample", "--checkpoint={run}", "--outfile=x.jpg"), ".png, .npz, .gif or .webp"),
        (("--mode=sample", "--checkpoint={run}", "--average=decay7"), "decay7"),
        (("--mode=sample", "--checkpoint={run}", "--config.seed=1"), "only goes with --mode=train"),
        (("--mode=eval", "--checkpoint={run}", "--label=3"), "--label has no effect with --mode=eval"),
        (("--mode=sample", "--checkpoint={run}", "--config.data.params.path=x"), "sampling reads no data"),
        (("--mode=export", "--checkpoint={run}", "--out=x", "--config.data.source=npz"), "an export reads no data"),
        (("--mode=eval", "--checkpoint={run}", "--config.data.flip=True"), "give the source and its params"),
        (("--mode=eval", "--samples=x", "--source=npz", "--config.data.shift=1"), "give the source and its params"),
        (("--mode=eval", "--samples=x", "--config.data.source=npz"), "give --source"),
        (("--mode=eval", "--samples=x", "--source=npz", "--config.train.num_steps=1"), "no effect beside --samples"),
        (("--mode=eval", "--samples=x", "--source=npz", "--config.data.params.pth=y"), "did you mean 'path'"),
        (("--mode=eval", "--samples=x.npz", "--steps=3"), "--steps has no effect beside --samples; leave one"),
        (("--mode=eval", "--checkpoint={run}", "--source=mnist"), "--source has no effect beside --checkpoint"),
        (("--mode=eval", "--checkpoint={run}", "--sweep=weight", "--bits_per_dim=9"), "--bits_per_dim has no effect"),
        (("--mode=eval", "--checkpoint={run}", "--sweep=average", "--average=decay0"), "--average asks for one"),
        (("--mode=sample", "--checkpoint={run}", "--label=9999999999"), "--label=9999999999; give a class"),
        (("--mode=eval", "--checkpoint={run}", "--n_samples=9"), "n_samples=9 is too few for 64 features"),
        (("--mode=eval", "--checkpoint={run}", "--features=domain"), "domain features are for (28, 28, 1)"),
        (("--mode=eval", "--checkpoint={run}", "--bits_draws=3"), "--bits_draws has no effect without --bits_per_dim"),
        (("--mode=eval", "--checkpoint={run}", "--classes=all"), "classes"),
        (("--mode=prepare",), "prepare needs --source: what to read"),
        (("--mode=prepare", "--source=folder"), "prepare needs --out: the folder to make"),
        (("--mode=prepare", "--source=folder", "--out=x"), "'folder' needs the parameter path"),
        (("--mode=prepare", "--source=digits", "--out=x", "--config.data.flip=1"), "takes --config.data.params.*"),
        (("--mode=prepare", "--source=digits", "--out={run}"), "holds other files: choose another --out"),
        (("--mode=prepare", "--source=digits", "--out={run}/config.json"), "config.json is a file: choose another"),
        (("--mode=restore", "--checkpoint={run}"), "restore needs --operator"),
        (("--mode=restore", "--checkpoint={run}", "--operator=blurr:std=1"), "unknown operator 'blurr'"),
        (("--mode=restore", "--checkpoint={run}", "--operator=blur:1"), "write a name with its parameters"),
        (("--mode=restore", "--checkpoint={run}", "--operator=grey"), "'grey' does not take images"),
        (("--mode=restore", "--checkpoint={run}", "--operator=identity", "--solver=heun"), "--solver has no effect"),
        (("--mode=restore", "--checkpoint={run}", "--operator=identity", "--outfile=x.gif"), "must end in .png"),
        (("--mode=eval", "--samples=x.npz", "--classes=balanced"), "--classes has no effect beside --samples"),
        (("--mode=eval", "--checkpoint={run}", "--sweep=time"), "--sweep=time"),
        (("--mode=eval", "--checkpoint={run}", "--against=nowhere"), "unknown data source 'nowhere'"),
        (
            (DIGITS, "--seed=3"),
            "--mode=sample and --mode=eval and --mode=restore and --mode=verify; in training give --config.seed",
        ),
        ((DIGITS, "--tolerance=1e-3"), "in training give --config.sample.atol"),
        ((*TINY, "--workdir={run}", "--config.seed=1"), "seed: 0 -> 1"),
        ((DIGITS, "--workdir=/proc/fmd"), "/proc/fmd"),
    ],
)
def test_a_wrong_command_is_one_line(fmd, trained, arguments, expected):
    code, said = fmd(*(argument.format(run=trained) for argument in arguments))
    line = said.splitlines(keepends=True)[-1]
    assert code == 2, said
    assert line.startswith("fmd: "), said
    assert expected in line, said


def test_guidance_needs_label_dropout(fmd, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    values = read_run_info(run).to_json()
    values["config"]["train"]["label_dropout"], values["config"]["sample"]["guidance"]["weight"] = 0.0, 1.0
    write_json(run / "config.json", values)
    code, said = fmd("--mode=sample", f"--checkpoint={run}", "--weight=2")
    assert code == 2
    assert "label_dropout > 0" in said


def test_an_occupied_or_foreign_workdir_is_refused(fmd, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    code, said = fmd(*TINY, "--workdir=mine")
    assert code == 2
    assert "'thesis.tex'" in said
    assert [p.name for p in (tmp_path / "mine").iterdir() if not p.name.startswith(".")] == ["thesis.tex"]


def test_a_checkpoint_of_a_newer_format_is_refused(fmd, tmp_path):
    write_json(tmp_path / "model" / "config.json", {"format": 99, "config": {}})
    code, said = fmd("--mode=sample", "--checkpoint=model")
    assert code == 2
    assert "format 99" in said


def test_the_traceback_is_there_for_who_asks(fmd):
    code, said = fmd("--mode=sample", "--checkpoint=nowhere", "--traceback")
    assert code == 1
    assert said.startswith("Traceback")
    assert "no checkpoint at" in said


def test_importing_is_light():
    heavy = ["tensorflow", "tensorflow_datasets", "matplotlib", "sklearn", "array_record", "PIL"]
    code = f"""
import importlib, pkgutil, sys, fmd
for module in pkgutil.walk_packages(fmd.__path__, "fmd."):
    importlib.import_module(module.name)
import jax
assert not jax._src.xla_bridge.backends_are_initialized(), "a backend was started"
loaded = [name for name in {heavy} if name in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True)
