"""State dicts: PyTorch's own bytes, files made by hand, and whatever must be refused unrun."""

import base64
import io
import os
import pickle
import struct
import zlib

import numpy as np
import pytest

from fmd.evaluation.features.torch_file import MAGIC, read_state_dict

# What torch.save of PyTorch 2.13.0 wrote (compressed, base 85) for the state dict of a module, with its `_metadata`, in
# the form of versions before 1.6: a.weight, the transpose of a tensor [[0, 1], [2, 3], [4, 5]]; a.bias, an
# nn.Parameter; n, an int64 scalar.
SAVED = (
    "c-nQ6%Wl&^6o&1wle7aZ<xaV_<>qXnlA23abb-1VZVj8+AZuce;z7pF8IOxVvXo6r;Tc%4<SpQJcmyOC9NU3PRj@o`o$L3{@l45Qn*9E<^K0$Rx0"
    "kEEDS7tO!My~_<13bBO>}0mFiV0xsdJU3U}FMb!bqZwNn{|?NQo54A*bjx?<X?I)d!h_Q-bU97CQ4d(*|0Ma0e}w8fY_@yH$@Y9Ycq?MS;u^F^LQ"
    "fQgZr2M^ek^i3$w`t2+eS;|o|Jdhetf#|B7fG9AXfpfD=QX`tn(P)QURndX@e_WBeY&*PnnkC|dD!EH+DPLc`ps&P_i@ny^z_=8Q~AN2hPTlenwp"
    "<PQ2Ck3i&KR2+j%PdBia{!CXX5;|qr?^se!obNPEb(?NZKOmF%l{EJ5n8;JMrsPDVw4uU@p1H{hnqgE#2rQudAdgK!x?7p!`TLR&cOL0TsW+aiyz"
    "_A5LUU3JyN*b^qd{>DGv7E39lT(47Pk9t|G=p%r(SxyG{G+25t;tttergFJei6dPO9RfQ>qS)8pv1;8qE@>&gDT6nB`N*E$5;Ey0T`yU0iQQ(spX"
    "Y0iM{c}FMnggUZUP50=TKE`buUtCjMU$@Co5Mw{S+cTpx`~Cq4TD@@"
)

SEVEN = np.arange(7, dtype=np.float32) / 3


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def numbers(*values) -> bytes:
    return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"


ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def tensor(shape=(7,), strides=(1,), offset=0, *, kind="Float", key="0", version="_v2") -> bytes:
    storage = text("storage") + f"ctorch\n{kind}Storage\n".encode() + text(key) + text("cpu") + b"K\x07N"
    start = b"J" + struct.pack("<i", offset)
    arguments = b"((" + storage + b"tQ" + start + numbers(*shape) + numbers(*strides) + b"\x89" + ORDERED_DICT
    return f"ctorch._utils\n_rebuild_tensor{version}\n".encode() + arguments + b"tR"


def state(**tensors: bytes) -> bytes:
    """The pickle of an OrderedDict."""
    return b"\x80\x02" + ORDERED_DICT + b"(" + b"".join(text(k) + v for k, v in tensors.items()) + b"u."


def write(path, *changed: tuple[int, bytes], magic=MAGIC, **tensors):
    """A file of `torch.save` with the storage "0"; of the five pickles some may be others."""
    parts = [*(pickle.dumps(fact, 2) for fact in (magic, 1001, {})), state(**tensors), pickle.dumps(["0"], 2)]
    for place, other in changed:
        parts[place] = other
    path.write_bytes(b"".join(parts) + struct.pack("<q", len(SEVEN)) + SEVEN.tobytes())
    return path


def test_a_file_of_pytorch_itself(tmp_path):
    whole = zlib.decompress(base64.b85decode(SAVED))
    (tmp_path / "a.pth").write_bytes(whole)
    read = read_state_dict(tmp_path / "a.pth")
    assert list(read) == ["a.weight", "a.bias", "n"]
    np.testing.assert_array_equal(read["a.weight"], [[0, 2, 4], [1, 3, 5]])
    np.testing.assert_array_equal(read["a.bias"], [0.5, -1.5])
    assert (read["n"].dtype, read["n"].shape, read["n"]) == (np.int64, (), 7)
    for length in range(len(whole)):
        (tmp_path / "b.pth").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"b\.pth is no state dict"):
            read_state_dict(tmp_path / "b.pth")


def test_offsets_strides_and_shared_storages(tmp_path):
    parts = {
        "whole": tensor(),
        "old": tensor(version=""),
        "matrix": tensor((2, 3), (3, 1), 1),
        "transposed": tensor((3, 2), (1, 3), 1),
        "scalar": tensor((), (), 6),
        "empty": tensor((0, 2), (2, 1)),
        "parameter": b"ctorch._utils\n_rebuild_parameter\n(" + tensor() + b"\x88" + ORDERED_DICT + b"tR",
    }
    read = read_state_dict(write(tmp_path / "a.pth", **parts))
    for name in ("whole", "old", "parameter"):
        np.testing.assert_array_equal(read[name], SEVEN)
    np.testing.assert_array_equal(read["matrix"], SEVEN[1:].reshape(2, 3))
    np.testing.assert_array_equal(read["transposed"], SEVEN[1:].reshape(2, 3).T)
    assert (read["scalar"].shape, read["scalar"]) == ((), SEVEN[6])
    assert read["empty"].shape == (0, 2)
    assert not read["whole"].flags.writeable


class Attack:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("function", [os.system, eval, getattr, np.load, pickle.loads, io.FileIO])
def test_a_pickle_that_calls_anything_is_refused_unrun(tmp_path, monkeypatch, place, function):
    monkeypatch.chdir(tmp_path)
    attack = pickle.dumps({"a": Attack(function, "open('ran', 'w')")}, 2)
    write(tmp_path / "a.pth", (place, attack), a=tensor())
    with pytest.raises(ValueError, match=r"a\.pth is no state dict .*: it asks for \w+\.\w+, which is not part of"):
        read_state_dict("a.pth")
    assert os.listdir() == ["a.pth"]


@pytest.mark.parametrize(
    "wrong",
    [
        tensor((8,)),  # beyond the end of the storage
        tensor(offset=1),
        tensor((2, 2), (6, 1)),
        tensor((0,), offset=-1),
        tensor(strides=(-1,)),
        tensor((7, 1)),  # more axes than strides
        tensor(kind="Long"),
        tensor(kind="Double"),
        tensor(key="1"),
        numbers(3),
    ],
)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"a\.pth is no state dict of plain tensors, or is damaged: ."):
        read_state_dict(write(tmp_path / "a.pth", a=wrong))


def test_other_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_state_dict(tmp_path / "none.pth")
    with pytest.raises(ValueError, match="does not begin as a file of torch"):
        read_state_dict(write(tmp_path / "a.pth", magic=1, a=tensor()))
