"""The proof on an accelerator: its limits, its programs for cuda and tpu, and its rehearsal."""

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = [str(ROOT / "experiments" / name) for name in ("accelerator", "benchmarks")]
PLATFORMS = ("cuda", "tpu")


@pytest.fixture(autouse=True, scope="module")
def on_the_path():
    sys.path[:0] = FOLDERS
    yield
    for folder in FOLDERS:
        sys.path.remove(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist_cfg_strong", "cifar10"])
def test_programs_of_the_full_recipes_lower_for_accelerators(name):
    """The whole state is donated, nothing is float64, and nothing calls back to the host."""
    import programs

    traced = programs.traced(name)
    for platform in PLATFORMS:
        with programs.accelerated():
            lowered = {
                what: traced[what].lower(lowering_platforms=(platform,)) for what in ("training step", "sampler")
            }
        texts = {what: one.as_text() for what, one in lowered.items()}
        for what, text in texts.items():
            assert "f64" not in text, what
            assert "callback" not in text, what
        assert texts["training step"].count("tf.aliasing_output") == traced["donated"]
        assert all("bf16" in text for text in texts.values())


def test_time_to_quality_is_read_off_the_logs(tmp_path):
    """Seconds of training to the first step that is good in both ways, without compilation and judging."""
    import digits

    timing = [{"step": 10 * i, "seconds": 2.0, "compilation_seconds": 30.0 * (i == 1), "evaluation_seconds": 5.0,
               "images_per_second": 100.0 * i, "peak_memory_bytes": i} for i in (1, 2, 3)]  # fmt: skip
    quality = [{"step": 10, "fid": 0.1, "class_accuracy": 0.5}, {"step": 20, "fid": 0.5, "class_accuracy": 0.995},
               {"step": 30, "fid": 0.3, "class_accuracy": 0.992}]  # fmt: skip
    for name, lines in {"timing": timing, "quality": quality, "metrics": []}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = digits.training_facts(tmp_path, 0.2)
    assert found["reached"]["accuracy"] == {"step": 20, "training_seconds": 4.0, "wall_seconds": 44.0}
    assert found["reached"]["fid"]["step"] == 10
    assert found["reached"]["both"] == {"step": 30, "training_seconds": 6.0, "wall_seconds": 51.0}
    assert (found["images_per_second"], found["peak_device_bytes"]) == (200.0, 3)
    assert found["beside"] == {"compilation_seconds": 30.0, "evaluation_seconds": 15.0}


def test_layout_facts_count_large_moves_and_convolutions():
    import kernels

    text = """
  %transpose.1 = bf16[512,32,32,128]{3,2,1,0} transpose(%p), dimensions={0,2,3,1}
  ROOT %copy.2 = f32[8,8]{1,0} copy(%q)
  %cudnn-conv.3 = (bf16[1]{0}, u8[0]{0}) custom-call(%a, %b), custom_call_target="__cudnn$convForward"
  %convert.4 = f32[512,512,512]{2,1,0} convert(%c)
  %convolution.5 = bf16[2,8,8,4]{3,2,1,0} convolution(%a, %b), window={size=3x3}
"""
    found = kernels.layout_facts(text)
    assert found["counts"] == {"large transpose": 1, "__cudnn$convForward": 1, "convolution": 1}
    assert found["bytes"] == {"transpose": 2 * 512 * 32 * 32 * 128}


@pytest.mark.parametrize(("kernel", "moved"), [
    ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64_execute", False),
    ("cutlass_tensorop_bf16_s16816dgrad_optimized_bf16_64x64_32x10_nhwc_unity_stride_align8", False),
    ("wgrad2d_shmem_tiling", False),
    ("input_transpose_fusion_12", True), ("loop_copy_fusion", True), ("nchwToNhwcKernel", True), ("loop_add", False),
])  # fmt: skip
def test_a_convolution_that_names_its_layout_does_not_only_move(kernel, moved):
    """cuDNN's names of an H200, whose share of moving was first read as 38 %."""
    import kernels

    assert kernels.moves(kernel) is moved


STAGES = {
    "good": "import stage; stage.run(lambda s: s.row('a number', '1', '2', False))",
    "bad": "import stage; stage.run(lambda s: (s.row('before it', 'broke'), 1 / 0))",
    "slow": "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'],"
            " process_group=0); open('slow.started', 'w').close(); time.sleep(99)",
}  # fmt: skip


def test_a_stage_that_fails_or_runs_over_does_not_take_the_others_with_it(tmp_path, monkeypatch, capsys):
    import prove

    for name, text in STAGES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(prove, "HERE", tmp_path)
    monkeypatch.setattr(prove, "ROOT", tmp_path)
    monkeypatch.setattr(prove, "STAGES", {
        "slow": prove.Limit(4, 0), "bad": prove.Limit(30, 1), "good": prove.Limit(30, 1), "late": prove.Limit(9, 1000),
    })  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(FOLDERS))
    monkeypatch.setattr(sys, "argv", ["prove.py", f"--out={tmp_path}/out", f"--work={tmp_path}/work", "--budget=900"])
    started = time.monotonic()
    assert prove.main() == 1
    assert time.monotonic() - started < 60
    stages = json.loads((tmp_path / "out" / "results.json").read_text())["stages"]
    assert {name: one["status"] for name, one in stages.items()} == {
        "slow": "ran over", "bad": "failed", "good": "passed", "late": "left out"
    }  # fmt: skip
    assert (tmp_path / "slow.started").exists()
    assert stages["bad"]["found"]["rows"][0]["value"] == "broke"
    assert "ZeroDivisionError" in stages["bad"]["why"][-1]
    assert "MISSED" in capsys.readouterr().out
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if readable(path)]
    assert not any(b"time.sleep(99)" in command or b"slow.py" in command for command in commands)


def test_this_jax_knows_the_deterministic_flag():
    """XLA ends a process whose XLA_FLAGS has a flag it does not know."""
    import resume

    command = [sys.executable, "-c", "import jax; jax.device_put(1)"]
    env = os.environ | {"XLA_FLAGS": resume.DETERMINISTIC, "JAX_PLATFORMS": "cpu"}
    subprocess.run(command, env=env, check=True)


def readable(path):
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


@pytest.mark.slow
def test_the_rehearsal_passes(tmp_path):
    """Every stage on tiny settings, in processes that see one CPU; without torch its rows say so."""
    env = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")}
    command = [sys.executable, ROOT / "experiments" / "accelerator" / "prove.py", "--tiny"]
    done = subprocess.run([*command, f"--out={tmp_path}/out", f"--work={tmp_path}/work"],
                          env=env | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True)  # fmt: skip
    log = tmp_path / "out" / "log.txt"
    assert done.returncode == 0, done.stdout + log.read_text()[-5000:]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "cifar10.png", "log.txt", "mnist.png", "results.json"
    ]  # fmt: skip
    stages = json.loads((tmp_path / "out" / "results.json").read_text())["stages"]
    rows = {row["what"]: row for stage in stages.values() for row in stage["found"]["rows"]}
    assert not [row for row in rows.values() if row["met"] is False], done.stdout
    failed = {what for what, row in rows.items() if row["value"].startswith("failed") or "Error" in row["value"]}
    assert failed == {"mnist_cfg_strong, cuDNN attention"}, done.stdout
    over_torch = [row["value"] for what, row in rows.items() if "over PyTorch" in what]
    assert len(over_torch) == 2
    assert (over_torch == ["no torch here"] * 2) == (find_spec("torch") is None)
    assert len(stages["variants"]["found"]["variants of mnist"]["kernels"]["most_expensive"]) == 10
