"""The page of a run: complete, self-contained, escaped, and with the history before a resume."""

import base64
import dataclasses
import html.parser
import re

import pytest

from fmd import commands
from fmd.training.callbacks import Callback, report
from fmd.training.lines import JsonLines
from tests.helpers import toys


class Page(html.parser.HTMLParser):
    """Checks that tags are closed in order, and collects text, tags and addresses."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.text = [], [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href", "srcset", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data + "\n"


@pytest.fixture(scope="module")
def text(toy_run):
    return (toy_run.workdir / "report.html").read_text()


def test_the_page_shows_the_run(toy_run, text):
    page = Page(text)
    assert page.tags.count("img") == 3
    for title in ("Loss", "Validation loss", "Gradient norm", "Parameter norm", "Learning rate", "Loss by time t"):
        assert title in page.text
    assert page.text.count("Loss by time t") == 1
    assert "step 12 of 12, finished" in page.text
    assert "217" in page.text  # parameters of the toy, of which parameter_table counts
    assert "made up by the tests" in page.text
    assert re.search(r"jax \d+\.\d+", page.text)
    assert "8 x cpu" in page.text
    assert not list(toy_run.workdir.glob(".report*"))


def test_the_page_needs_nothing_beside_itself(text):
    page = Page(text)
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert not re.search(r"https?://|url\(|@import", text)


def test_the_embedded_grids_are_the_files(toy_run):
    grids = report.saved_grids(toy_run.workdir, toy_run.step)
    embedded = re.findall(r"base64,([^\"]+)", report.sample_grids(grids))
    assert [base64.b64decode(data) for data in embedded] == [path.read_bytes() for _, path in reversed(grids)]


def test_text_is_escaped(toy_run, tmp_path):
    evil = '<script>alert(1)</script> & "co"'
    mine = JsonLines(tmp_path / "mine.jsonl", after=0)
    mine.append({"step": 3, evil: 0.5})
    changed = {
        "workdir": toy_run.workdir.with_name(evil.replace("/", "")),
        "dataset": dataclasses.replace(toy_run.dataset, provenance=evil),
        "config": dataclasses.replace(toy_run.config, imports=(evil,)),
        "logs": {**toy_run.logs, "mine": mine},
    }
    page = report.page(dataclasses.replace(toy_run, **changed), "finished")
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)") >= 3
    Page(page)


def test_what_differs_from_the_defaults_is_marked(toy_run):
    table = report.config_table(
        {"a": {"x": 1, "y": 2, "z": {"name": "n"}}, "seed": 0}, {"a": {"x": 1, "y": 3}, "seed": 0}
    )
    assert re.findall(r"<h3>(\w+)</h3>", table) == ["a", "run"]
    changed = re.findall(r"<tr class=changed><th>([\w.]+)</th><td>(\w+)</td><td>([\w ]*)</td>", table)
    assert changed == [("y", "2", "default 3"), ("z.name", "n", "")]


def test_a_stopped_and_resumed_run_shows_its_whole_history(tmp_path):
    class Stop(Callback):
        def on_step_end(self, run):
            if run.step == 6:
                run.stop()

    config = toys.config(parallel={"mode": "jit"})
    commands.train_config(config, tmp_path / "run", [Stop()])
    assert "step 7 of 12, stopped" in (tmp_path / "run" / "report.html").read_text()
    run = commands.train_config(config, tmp_path / "run")
    assert [line["step"] for line in run.logs["metrics"].lines] == [3, 6, 9, 12]
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("samples at step") == 3
    loss = report.line_chart("Loss", {"loss": [(line["step"], line["loss"]) for line in run.logs["metrics"].lines]})
    assert loss in page


def test_a_run_that_is_opened_again_when_finished_still_has_its_page(toy_run, text):
    (toy_run.workdir / "report.html").unlink()
    commands.train_config(toy_run.config, toy_run.workdir)
    again = (toy_run.workdir / "report.html").read_text()
    without_clock = [re.sub(r"<span>written [\d :-]+</span>", "", page) for page in (text, again)]
    assert without_clock[0] == without_clock[1]


def test_a_run_in_progress_says_how_long_it_takes_and_loads_again(toy_run, text, tmp_path):
    timing = JsonLines(tmp_path / "timing.jsonl", after=0)
    timing.append({"step": 2, "seconds": 300.0, "seconds_per_step": 150.0, "compilation_seconds": 99.0})
    timing.append({"step": 4, "seconds": 300.0, "sampling_seconds": 200.0})
    running = dataclasses.replace(toy_run, step=4, logs={**toy_run.logs, "timing": timing})
    page = report.page(running, "in progress")
    assert "step 4 of 12, in progress" in page
    assert report.duration(report.time_left(running)) == "26 min 40 s"  # 8 steps of (300 + 300 + 200) / 4 s
    assert "26 min 40 s left" in page
    assert 'http-equiv="refresh"' in page
    assert 'http-equiv="refresh"' not in text
    assert " left</b>" not in text
    Page(page)


def test_the_trend_of_a_loss():
    lines = [{"loss": value} for value in (9, 9, 9, 9, 2, 2, 1, 1)]
    assert report.trend(lines, "loss") == "-50.0 % against the quarter before"
    assert report.trend(lines[:7], "loss") == ""


def test_the_first_the_last_and_some_in_between():
    assert report.spread(range(4), 6) == [0, 1, 2, 3]
    assert report.spread(range(101), 6) == [0, 20, 40, 60, 80, 100]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0456, "0.0456 s"), (59.2, "59.2 s"), (59.9, "1 min 00 s"), (3599, "59 min 59 s"), (7265, "2 h 01 min")],
)
def test_durations(seconds, expected):
    assert report.duration(seconds) == expected
