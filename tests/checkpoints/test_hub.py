"""Models on the Hub, beside a server on this machine that speaks its protocol: fetched, pushed, and what goes wrong."""

import json
import sys

import pytest

from fmd.checkpoints import hub
from fmd.checkpoints.locate import locate, results_folder
from fmd.checkpoints.weights import TENSORS, load_weights, seal
from fmd.export.exporter import tensors
from fmd.files import digest
from fmd.sampling.sampler import load
from tests.helpers import half_trained
from tests.helpers.hub_server import SHA, Server

ADDRESS = "hf://ada/toy"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A compact export of a model whose code lies outside of fmd."""
    info = half_trained.make_info(imports=["tests.helpers.toys"], model={"name": "toy"})
    folder = tmp_path_factory.mktemp("hub") / "toy"
    folder.mkdir()
    (folder / TENSORS).write_bytes(tensors(half_trained.make_params(info), info))
    (folder / "README.md").write_text("---\nlicense: other\n---\n# A toy\n")
    seal(folder, info)
    return folder


@pytest.fixture
def server(monkeypatch, tmp_path):
    constants, server = pytest.importorskip("huggingface_hub.constants"), Server()
    for name, value in {
        "ENDPOINT": server.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_PROGRESS_BARS": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", "good")
    yield server
    server.shutdown()
    server.server_close()


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_pushed_is_fetched_and_nothing_but_an_export(server, exported, tmp_path, monkeypatch):
    server.models["ada/toy"] = {"weights/old": b"of an export before", "notes.txt": b"", "run_me.py": b""}
    assert hub.push(exported, ADDRESS) == f"{server.url}/ada/toy"
    assert server.models["ada/toy"] == {**files(exported), "notes.txt": b"", "run_me.py": b""}
    for address in (ADDRESS, f"{ADDRESS}@main", f"{ADDRESS}@{SHA}"):
        assert files(locate(address)) == files(exported)
    assert sorted(server.fetched) == sorted(files(exported))  # once: the cache serves the others
    assert results_folder(f"{ADDRESS}@main").as_posix() == "eval_toy"
    assert load(ADDRESS).info == load(exported).info
    server.models["ada/toy"][TENSORS] = server.models["ada/toy"][TENSORS][:-1] + b"x"
    monkeypatch.setattr(sys.modules["huggingface_hub.constants"], "HF_HUB_CACHE", str(tmp_path / "another"))
    with pytest.raises(ValueError, match=r"missing or changed, the first is weights.safetensors"):
        load_weights(ADDRESS)


def test_code_from_the_hub_runs_only_under_trust(server, exported, monkeypatch):
    said = json.loads((exported / "config.json").read_text())
    said["config"]["imports"] = ["this_must_not_run"]
    server.models["ada/toy"] = {**files(exported), "this_must_not_run.py": b"raise SystemExit"}
    content = json.dumps(said).encode()
    listed = json.loads(server.models["ada/toy"]["checksums.json"])
    listed["config.json"] = digest(content)
    server.models["ada/toy"] |= {"config.json": content, "checksums.json": json.dumps(listed).encode()}
    with pytest.raises(ValueError, match="asks to import this_must_not_run"):
        load(ADDRESS)
    assert "this_must_not_run.py" not in server.fetched


def no_library(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)


def no_token(server, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")


def bad_token(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "bad")


def offline(server, monkeypatch):
    constants = sys.modules["huggingface_hub.constants"]
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def nothing(server, monkeypatch):
    pass


@pytest.mark.parametrize(
    ("what", "wrong", "address", "message"),
    [
        ("fetch", nothing, "hf://toy", "hf://toy is no address of a model; write hf://owner/name or"),
        ("fetch", nothing, "hf://ada/none", "the Hub has no such model, or it is private; check the name"),
        ("fetch", nothing, "hf://ada/toy@old", "the model has no such revision"),
        ("fetch", offline, ADDRESS, "the Hub cannot be reached, and the cache does not have this model"),
        ("fetch", no_library, ADDRESS, r"needs the library huggingface_hub: pip install .*\[hub\]"),
        ("push", no_token, ADDRESS, "pushing needs a token with leave to write"),
        ("push", bad_token, ADDRESS, "hf://ada/toy: .*401"),
        ("push", nothing, "hf://ada/toy@old", "a push goes to the main branch"),
    ],
)
def test_what_goes_wrong_is_one_line(server, exported, monkeypatch, what, wrong, address, message):
    server.models["ada/toy"] = files(exported)
    wrong(server, monkeypatch)
    with pytest.raises((ValueError, OSError), match=message) as refused:
        hub.push(exported, address) if what == "push" else locate(address)
    assert "\n" not in str(refused.value)
