"""Sweeps over one setting: their points, their table, and what is left when they are stopped."""

import json
from unittest import mock

import pytest

from fmd.evaluation import evaluate, sweep, teacher
from tests.helpers.judged import REQUEST


def test_a_sweep_is_a_row_per_point(sampler, dataset, settings, tmp_path, capsys):
    kind, values = sweep.parse("weight=1,2")
    rows = sweep.run(tmp_path, sampler, dataset, REQUEST, settings, kind, values, folder=tmp_path)
    assert [row["weight"] for row in rows] == ["1", "2"]
    assert [row["evaluations"] for row in rows] == [2, 4]
    assert len(capsys.readouterr().out.splitlines()) == 3
    found = json.loads((tmp_path / "sweep_weight.json").read_text())
    assert found["rows"] == rows
    shared = found["settings"]
    assert "weight" not in shared | shared["rule"] | shared["sample"]["guidance"]
    assert (shared["rule"], shared["solver"]) == ({"name": "cfg"}, "euler")
    assert (shared["features"], shared["classes"]) == ("quarters-1", "test")  # as of a single evaluation
    assert found["rows"][0]["failed"] == 0


def test_a_sweep_has_the_distance_to_a_teacher(sampler, dataset, settings, tmp_path, monkeypatch):
    """Drawn once; by the teacher's own solver the distance is nothing."""
    monkeypatch.setattr(teacher, "STEPS", 2)
    todo = settings.replace(solver="midpoint"), "steps", ("1", "2")
    rows = sweep.run(
        tmp_path, sampler, dataset, REQUEST, *todo, folder=tmp_path, one_solver=True, teacher=sampler
    )  # fmt: skip
    assert rows[0]["to_teacher"] > 1e-3
    assert rows[1]["to_teacher"] == 0
    assert json.loads((tmp_path / "sweep_steps.json").read_text())["rows"] == rows


def test_a_sweep_that_is_stopped_leaves_what_it_found(sampler, dataset, settings, tmp_path, monkeypatch):
    first = evaluate.judge_samples(sampler, dataset, REQUEST, settings, folder=tmp_path, quiet=True)
    monkeypatch.setattr(sweep, "judge_samples", mock.Mock(side_effect=[first]))
    with pytest.raises(StopIteration):  # in place of a kill
        sweep.run(tmp_path, sampler, dataset, REQUEST, settings, "weight", ("1", "2"), folder=tmp_path)
    assert [row["weight"] for row in json.loads((tmp_path / "sweep_weight.json").read_text())["rows"]] == ["1"]


def test_the_settings_of_a_sweep_are_those_that_its_points_share(sampler, settings):
    shifted = settings.replace(shift=2.0)
    recorded = [
        evaluate.settings_of(sampler, REQUEST, point.settings) for point in sweep.points("steps", ("5",), shifted, ())
    ]
    shared = sweep.common_settings(recorded)
    assert shared["grid"] == {"name": "shifted", "factor": 2}  # though the adaptive solvers have none
    assert not {"solver", "tolerance"} & set(shared)
    assert (shared["weight"], shared["rule"]) == (2, {"name": "cfg", "weight": 2})
    assert "grid" not in shared["sample"]


def test_a_wrong_point_is_refused_before_the_first_is_drawn(sampler, dataset, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "judge_samples", None)
    with pytest.raises(ValueError, match="steps = 0"):
        sweep.run(tmp_path, sampler, dataset, REQUEST, settings, "steps", ("5", "0"), folder=tmp_path)
    with pytest.raises(ValueError, match="there is no 'decy1', only"):
        sweep.run(tmp_path, sampler, dataset, REQUEST, settings, "average", ("decay0", "decy1"), folder=tmp_path)


def test_the_points_of_a_sweep(settings):
    averages = ("decay0", "power0")
    assert [p.average for p in sweep.points("average", (), settings, averages)] == list(averages)
    assert [p.average for p in sweep.points("average", ("std=0.1",), settings, averages)] == ["std=0.1"]
    points = sweep.points("steps", ("5",), settings, averages)
    assert [(p.settings.solver, p.settings.steps) for p in points[:3]] == [("euler", 5), ("midpoint", 5), ("heun", 5)]
    assert [(p.label, p.settings.rtol) for p in points[3:]] == [("tsit5 0.01", 0.01), ("tsit5 0.001", 0.001)]
    tolerant = settings.replace(solver="tsit5", tolerance=0.1)
    asked = sweep.points("steps", ("5",), tolerant, averages)
    assert [p.settings.rtol for p in asked] == [None, None, None, 0.1]
    ((label, shifted, _),) = sweep.points("shift", ("2",), settings, averages)
    assert (label, shifted.grid) == ("2", {"name": "shifted", "factor": 2.0})
    alone = sweep.points("steps", (), shifted.replace(solver="tsit5"), averages, one_solver=True)
    assert [(p.label, p.settings.grid.name) for p in alone] == [("tsit5 0.01", "uniform"), ("tsit5 0.001", "uniform")]
    labels = [p.label for p in sweep.points("steps", ("2", "4"), settings, averages, one_solver=True)]
    assert labels == ["euler 2", "euler 4"]


def test_a_solver_of_another_kind_is_swept_beside_the_usual_ones(settings):
    jumps = settings.replace(solver="jump", weight=1.0)
    assert [p.label for p in sweep.points("steps", ("1",), jumps, ())][:2] == ["jump 1", "euler 1"]
    points = sweep.points("steps", (), jumps.replace(weight=2.0), ())
    assert [(p.label, p.settings.weight) for p in points[:5]] == [
        ("jump 1", 1.0), ("jump 2", 1.0), ("jump 4", 1.0), ("jump 8", 1.0), ("euler 5", 2.0)
    ]  # fmt: skip


def test_bad_sweeps(settings):
    with pytest.raises(ValueError, match="--sweep=colour=1; give weight"):
        sweep.parse("colour=1")
    with pytest.raises(ValueError, match="must be numbers"):
        sweep.points("weight", ("strong",), settings, ())
    with pytest.raises(ValueError, match="tsit5 chooses its own steps; give --tolerance"):
        sweep.points("steps", ("5",), settings.replace(solver="tsit5"), (), one_solver=True)
