"""Files that claim more than they hold, or more than the machine does, are one clear line and no memory."""

import gzip
import io
import os
import struct
import zipfile

import numpy as np
import pytest

from fmd.data.archives import read_npz
from fmd.data.sources import idx, npz


@pytest.fixture
def small_machine(monkeypatch):
    """One with 16 MiB of memory."""
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 2**12, "SC_PHYS_PAGES": 2**12}.__getitem__)


def header(shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


@pytest.mark.parametrize("shape", [(10**7, 1000, 1000), (10**13,), (3, 2**62), (5, 8, 8)])
def test_an_array_whose_header_claims_more_than_the_file_has(tmp_path, shape):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", header(shape) + bytes(256))
    with pytest.raises(ValueError, match=r"x\.npz .*images\.npy of shape .* bytes, the file has 256"):
        read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packing_that_python_undoes_without_a_limit_is_refused(tmp_path, packing):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", packing) as archive:
        archive.writestr("images.npy", header((256,)) + bytes(256))
    with pytest.raises(ValueError, match=r"images\.npy is packed in a way that NumPy does not write"):
        read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("members", [1, 40])
def test_a_zip_bomb_is_refused_before_it_is_read(tmp_path, small_machine, monkeypatch, members):
    monkeypatch.setattr(np, "load", lambda *a, **k: pytest.fail("it was read"))
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(members):
            archive.writestr(f"{number}.npy", header((2**25 // members,)) + bytes(2**25 // members))
    with pytest.raises(ValueError, match=r"x\.npz says that it unpacks to 0\.0 GB, and this machine has 0\.0 GB"):
        read_npz(tmp_path / "x.npz")


def test_what_fits_is_read(tmp_path, small_machine):
    arrays = {
        "a": np.arange(6).reshape(2, 3),
        "b": np.float32(3),
        "c": np.zeros((0, 4)),
        "d": np.asfortranarray(np.eye(3)),
    }
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    found = read_npz(tmp_path / "x.npz")
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())


@pytest.mark.parametrize(
    ("shape", "body", "message"),
    [
        ((2**31, 2**15, 28), 10, "unpacks to"),  # a claim
        (
            (10, 28, 28),
            2**25,
            "shape .10, 28, 28. needs 7840 values, the file has 7841",
        ),  # a bomb: one byte too many is read
    ],
)
def test_a_gzipped_idx_file_is_read_as_far_as_its_header_says(small_machine, shape, body, message):
    packed = gzip.compress(struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + bytes(body), 1)
    with pytest.raises(ValueError, match=message):
        idx.decode(idx.unpack(packed, "x.gz"), "x.gz")


@pytest.mark.parametrize("dtype", [np.uint16, np.int64])
def test_integers_of_another_type_are_told_their_range(tmp_path, dtype):
    np.savez(tmp_path / "x.npz", np.arange(192).reshape(3, 8, 8).astype(dtype) * 5)
    with pytest.raises(ValueError, match="its values run from 0 to 955: bring them to 0 to 255 and save as uint8"):
        npz.load_npz(str(tmp_path / "x.npz"))
