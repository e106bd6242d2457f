"""Files that are never half written, and the lock of a folder."""

import fcntl
import hashlib
import http.server
import json
import os
import pwd
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import pytest

from fmd.files import (
    atomic_path,
    clear_unfinished,
    data_cache,
    digest,
    download,
    expand,
    folder_lock,
    printable,
    write_json,
)


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
from fmd.files import folder_lock
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


def test_several_writers_at_once_leave_one_whole_file(tmp_path):
    path, contents = tmp_path / "file", [bytes([k]) * 200_000 for k in range(4)]
    seen = set()

    def write(data):
        for _ in range(20):
            with atomic_path(path, overwrite=True) as temporary:
                temporary.write_bytes(data)
            seen.add(path.read_bytes())

    threads = [threading.Thread(target=write, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen <= set(contents)
    assert os.listdir(tmp_path) == ["file"]


def test_a_broken_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a" / "file"
    write_json(path, "old")
    with pytest.raises(NotADirectoryError), atomic_path(path, overwrite=True) as temporary:
        temporary.mkdir()  # a folder cannot take the place of a file
    assert json.loads(path.read_text()) == "old"
    assert os.listdir(path.parent) == ["file"]


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    write_json(tmp_path / ("x" * 255), {})
    assert [len(path.name) for path in tmp_path.iterdir()] == [255]


KILLED = """
import os, pathlib, signal, sys
from fmd.files import atomic_path
with atomic_path(pathlib.Path(sys.argv[1]) / "file") as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_leaves_is_cleared_by_the_next_that_writes_there(tmp_path):
    (tmp_path / "other").write_text("kept")
    subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    (half,) = tmp_path.glob(".fmd-*")
    clear_unfinished(tmp_path)
    assert half.is_dir(), "so young that its process may not have locked it yet"
    os.utime(half, (1e9, time.time() - 5))
    with atomic_path(tmp_path / "mine") as temporary:
        assert not half.exists()
        temporary.write_text("whole")
        os.utime(temporary.parent, (1e9, time.time() - 3600))
        write_json(tmp_path / "another", {})  # does not take the one that is being written
    assert sorted(os.listdir(tmp_path)) == ["another", "mine", "other"]


def test_digests_of_files_bytes_and_pieces_agree(tmp_path):
    data = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(data)
    for algorithm, expected in [
        ("blake2b", hashlib.blake2b(data, digest_size=16).hexdigest()),
        ("sha256", hashlib.sha256(data).hexdigest()),
        ("md5", hashlib.md5(data).hexdigest()),
    ]:
        array = np.frombuffer(data, np.uint8).reshape(50, -1)
        for what in (tmp_path / "file", str(tmp_path / "file"), data, array.data, [data[:7], array.ravel()[7:].data]):
            assert digest(what, algorithm) == expected
    assert digest(data) == digest(data, "blake2b")


@pytest.fixture
def server(monkeypatch):
    """A server whose pages are (bytes, length it announces or None)."""
    pages = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            data, announced = pages[self.path]
            self.send_response(200)
            if announced is not None:
                self.send_header("Content-Length", str(announced))
            self.end_headers()
            self.wfile.write(data)
            if self.path == "/slow":
                time.sleep(2)

        def log_message(self, *arguments):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield pages, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_download_is_whole_or_not_there(tmp_path, server):
    pages, address = server
    data, path = os.urandom(3_000_000), tmp_path / "file"
    pages |= {"/a": (data, len(data)), "/b": (data, None), "/cut": (data[:10], 20), "/slow": (data[:10], 20)}
    for page in "ab":
        path.write_bytes(b"old")
        download(f"{address}/{page}", path, limit=len(data))
        assert path.read_bytes() == data
        with pytest.raises(OSError, match=f"sends more than {len(data) - 1} bytes"):
            download(f"{address}/{page}", path, limit=len(data) - 1)
    with pytest.raises(OSError, match="broke off"):
        download(f"{address}/cut", path, limit=100)
    with pytest.raises(OSError, match="timed out"):
        download(f"{address}/slow", path, limit=100, timeout=0.2)
    assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["file"]


def test_the_place_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FMD_DATA_DIR", str(tmp_path))
    assert data_cache() == tmp_path
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("FMD_DATA_DIR", "~/data")
    assert str(data_cache()) == "/home/someone/data"
    monkeypatch.delenv("FMD_DATA_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert str(data_cache()) == "/x/fmd/data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert str(data_cache()) == "/home/someone/.cache/fmd/data"


def test_a_user_without_a_home_has_a_cache_all_the_same(monkeypatch):
    for name in ("FMD_DATA_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    assert data_cache().name == "data"
    assert data_cache().is_relative_to(tempfile.gettempdir())
    for path in ("~/a", "~nobody-of-that-name/a"):
        with pytest.raises(ValueError, match=f"{path}: the home folder of this user is not known"):
            expand(path)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9", r"caf\xe9"),
        ("Кошка 猫 é".encode(), "Кошка 猫 é"),
        (b"a\nb\tc\x1b[31m", r"a\nb\tc\x1b[31m"),
        (b"\xff\xfe", r"\xff\xfe"),
        ("a\u202eb".encode(), r"a\u202eb"),
    ],
)
def test_names_are_shown_as_one_line_of_unicode(name, shown):
    assert printable(os.fsdecode(name)) == shown
    json.dumps(shown).encode()
