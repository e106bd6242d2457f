"""Files that are never half written, and the lock of a folder."""

import fcntl
import json
import os
import subprocess
import sys

import pytest

from fmd.utils.files import atomic_path, folder_lock, write_json


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    with atomic_path(tmp_path / "deep" / "file") as temporary:
        temporary.write_text("whole")
        assert not (tmp_path / "deep" / "file").exists()
    assert (tmp_path / "deep" / "file").read_text() == "whole"

    def fails():
        with atomic_path(tmp_path / "other") as temporary:
            temporary.write_text("half")
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fails()
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_nothing_is_overwritten_unless_it_is_meant(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"b": 1, "a": 2})
    with pytest.raises(FileExistsError, match="is not overwritten"):
        write_json(path, {}, overwrite=False)
    assert json.loads(path.read_text()) == {"a": 2, "b": 1}
    write_json(path, [])
    assert json.loads(path.read_text()) == []


HOLDER = """
import pathlib, sys, time
from fmd.utils.files import folder_lock
with folder_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


def test_the_lock_names_its_holder_and_is_free_when_the_holder_was_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(FileExistsError, match=f"is in use by process {holder.pid} on "), folder_lock(tmp_path):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with folder_lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()
    with folder_lock(tmp_path):
        pass


def test_a_file_system_without_locks_is_a_warning_and_not_the_end(tmp_path, monkeypatch, caplog):
    def no_locks(*arguments):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with folder_lock(tmp_path):
        pass
    assert "start no second run" in caplog.text
