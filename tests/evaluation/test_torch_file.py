"""State dicts in both forms: PyTorch's own bytes, files made by hand, and whatever must be refused unrun."""

import base64
import io
import os
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest

from fmd.evaluation.features.torch_file import read_state_dict

# What torch.save of PyTorch 2.13.0 wrote (compressed, base 85) for the state dict of a module, with its `_metadata`:
# a.weight, the transpose of a tensor [[0, 1], [2, 3], [4, 5]]; a.bias, an nn.Parameter; n, an int64 scalar.
SAVED_ZIP = (
    "c-o~^yKmD#7{54gQ_=^8^a14!sZ`Runxqs+6(KVii8QDvVu_r@Bvzd`pM7ZsQl(0$g>EpgB6bEw*x+A)p<-ZTC`_zKEZo^iYP(89%PHrRbN74Pec"
    "yM^@lF>)J|EiGhR_HS)N)N)6=y2~7Q)RHnac*yLrdFW%4J2C#WI$ZhQ{7gE21h^ZcAm%0-DZ)BUGT=LU>J-sx=Hu87qV|Tx?-U*4UydmRgcrDPpm"
    "qDQa;w#)2~xDtHM-BP)ff2rdJ{a<U@e`^KLvxC;)lCIX&<lZ@qN3%tAsgKvpPJi|M;z|T8)W((Nu8uf7u!$2O67d*O|k|byl=wYQPs6t)DqRPTxj"
    "hLyqYKB-8hH74(!7!|gY{Cfd*n|^?z$k{3c{uf4e+fQ=u{@0Hs0K_JEbVRFRT|aqE++LQF*r?#9T?6K;^}FFa0<iOJe+H-!})@rEGiOD0u2OQ(C0"
    "6P3N%b`X&o->=d~)T8VLei;T@VzE5Oxt2-WC&ODlzQyw|rpxib2e%+a3f8Tudzekb(dM~Ye(aIwwKWd|%75T&f|e|>vO1!?ciI)PGqtnJ_y1zD;#"
    ">S6<P*|;sW{;4Gs)IeqpelkRYIncl`%5)8s9%E6V$;xFHj-uOXvV^fLQV*LqzmL=G@*L<PfNoi;YBs`Uum6VugLNZA9*g8h`UdH57OA7)i`|!FWM"
    "Zt3qZzBCD3=YPL+BIjPammXeS2+(3i$fy-LUG#xNQ2!C*W<fQvK%6uF_wB5G{1|yGflos)0C5l|R3(F89yBDHPi)0DbG4s7j;)o(S~zEJ_tF8$P6"
    "wNIEf}NT<_@)O>O-l1QiGbCGB?9!br`=2NLyG961K<LP*Wx?Fnq;Z=zE2<a{z)NI$M`C=H_=iL4su%pcvK+uBx<3PQx5<7{xh$k#0OAI>T=CJda3"
    "vt-O^Tou|y#VZRbJYYa@CQz0t6e+RTme?>4?8w$$C|U(iY>To*q9w_&c8tm_Nxio<J`?@F=YYg-KbB(=6H{1rjy>zYh9$@Hr`>3@wdBEt{%N|Gi?"
    "vXm&5HbFn)c#vGy-366Rb"
)
SAVED_LEGACY = (
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


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def numbers(values) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
CALL = {"v2": (b"_rebuild_tensor_v2", b"\x89" + ORDERED_DICT), "v1": (b"_rebuild_tensor", b"")}


def storage(form, key="0", kind="Float", count=7, view=b"N") -> bytes:
    named = text("storage") + f"ctorch\n{kind}Storage\n".encode() + text(key) + text("cpu") + number(count)
    return b"(" + named + (view if form == "legacy" else b"") + b"tQ"


def tensor(form, shape=(7,), strides=(1,), offset=0, call="v2", **of) -> bytes:
    name, more = CALL[call]
    arguments = storage(form, **of) + number(offset) + numbers(shape) + numbers(strides) + more
    return b"ctorch._utils\n" + name + b"\n(" + arguments + b"tR"


def state(*items: bytes, **tensors: bytes) -> bytes:
    """The pickle of an OrderedDict with the attribute `_metadata`."""
    pairs = b"".join(text(name) + value for name, value in tensors.items())
    return (
        b"\x80\x02" + ORDERED_DICT + b"(" + b"".join(items) + pairs + b"u}" + text("_metadata") + ORDERED_DICT + b"sb."
    )


def write(path, form, pickled, storages=(SEVEN,), little=True, version=1001):
    """A file of `torch.save` with storages "0", "1" and so on."""
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model/data.pkl", pickled)
            archive.writestr("model/byteorder", "little" if little else "big")
            for key, array in enumerate(storages):
                archive.writestr(f"model/data/{key}", array.tobytes())
        return path
    keys = [str(key) for key in range(len(storages))]
    facts = {"protocol_version": 1001, "little_endian": little, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    first, last = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, version, facts)], pickle.dumps(keys, 2)
    data = b"".join(struct.pack("<q", array.size) + array.tobytes() for array in storages)
    path.write_bytes(b"".join(first) + pickled + last + data)
    return path


both = pytest.mark.parametrize("form", ["zip", "legacy"])


@pytest.mark.parametrize("saved", [SAVED_ZIP, SAVED_LEGACY])
def test_files_of_pytorch_itself(tmp_path, saved):
    (tmp_path / "a.pth").write_bytes(zlib.decompress(base64.b85decode(saved)))
    read = read_state_dict(tmp_path / "a.pth")
    assert list(read) == ["a.weight", "a.bias", "n"]
    np.testing.assert_array_equal(read["a.weight"], [[0, 2, 4], [1, 3, 5]])
    np.testing.assert_array_equal(read["a.bias"], [0.5, -1.5])
    assert (read["n"].dtype, read["n"].shape, read["n"]) == (np.int64, (), 7)


@both
def test_offsets_strides_and_shared_storages(tmp_path, form):
    parts = {
        "whole": tensor(form),
        "old": tensor(form, call="v1"),
        "matrix": tensor(form, (2, 3), (3, 1), 1),
        "transposed": tensor(form, (3, 2), (1, 3), 1),
        "scalar": tensor(form, (), (), 6),
        "empty": tensor(form, (0, 2), (2, 1)),
        "parameter": b"ctorch._utils\n_rebuild_parameter\n(" + tensor(form) + b"\x88" + ORDERED_DICT + b"tR",
    }
    read = read_state_dict(write(tmp_path / "a.pth", form, state(**parts)))
    for name in ("whole", "old", "parameter"):
        np.testing.assert_array_equal(read[name], SEVEN)
    np.testing.assert_array_equal(read["matrix"], SEVEN[1:].reshape(2, 3))
    np.testing.assert_array_equal(read["transposed"], SEVEN[1:].reshape(2, 3).T)
    assert (read["scalar"].shape, read["scalar"]) == ((), SEVEN[6])
    assert read["empty"].shape == (0, 2)


@both
def test_types_of_numbers(tmp_path, form):
    kinds = {
        "Double": np.float64,
        "Float": np.float32,
        "Half": np.float16,
        "Long": np.int64,
        "Int": np.int32,
        "Short": np.int16,
        "Char": np.int8,
        "Byte": np.uint8,
        "Bool": np.bool_,
    }
    storages = [np.array([0, 1, 1], dtype) for dtype in kinds.values()]
    tensors = {kind: tensor(form, (3,), key=str(i), kind=kind, count=3) for i, kind in enumerate(kinds)}
    read = read_state_dict(write(tmp_path / "a.pth", form, state(**tensors), storages))
    for kind, dtype in kinds.items():
        assert read[kind].dtype == dtype
        np.testing.assert_array_equal(read[kind], [0, 1, 1])


class Attack:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@both
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("function", [os.system, eval, getattr, np.load, pickle.loads, io.FileIO])
def test_a_pickle_that_calls_anything_is_refused_unrun(tmp_path, monkeypatch, form, protocol, function):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.pth", form, pickle.dumps({"a": Attack(function, "open('ran', 'w')")}, protocol))
    with pytest.raises(ValueError, match=r"a\.pth is no state dict .*: it asks for \w+\.\w+, which is not part of"):
        read_state_dict("a.pth")
    assert os.listdir() == ["a.pth"]


@pytest.mark.parametrize("place", [0, 1, 2, 4])
def test_every_pickle_of_a_legacy_file_is_read_with_care(tmp_path, place):
    write(tmp_path / "a.pth", "legacy", b"")
    with open(tmp_path / "a.pth", "rb") as file:
        before = [pickle.load(file) for _ in range(place if place < 4 else 3)]
    parts = [pickle.dumps(x, 2) for x in before] + [state(a=tensor("legacy"))] * (place == 4)
    (tmp_path / "a.pth").write_bytes(b"".join(parts) + pickle.dumps(Attack(os.system, "true")))
    with pytest.raises(ValueError, match=r"it asks for posix\.system"):
        read_state_dict(tmp_path / "a.pth")


REFUSED = [
    # Beyond the end of the storage, or more elements than it has.
    (dict(a=dict(shape=(8,))), "in 7 elements"),
    (dict(a=dict(offset=1)), "in 7 elements"),
    (dict(a=dict(shape=(2, 2), strides=(6, 1))), "in 7 elements"),
    (dict(a=dict(shape=(2**20, 7), strides=(0, 1))), "in 7 elements"),
    (dict(a=dict(shape=(0,), offset=-1)), "offset -1"),
    (dict(a=dict(strides=(-1,), offset=6)), "a tensor of shape"),
    (dict(a=dict(shape=(7, 1))), "a tensor of shape"),
    # Storages that are not what the file has.
    (dict(a=dict(kind="Double")), "storage|multiple"),
    (dict(a=dict(count=6)), "storage 0 has"),
    (dict(a=dict(key="1")), "belongs to no tensor|model/data/1"),
    (dict(a=dict(), b=dict(kind="Int")), "storage 0 is both"),
    (dict(a=dict(kind="BFloat16")), "it asks for torch.BFloat16Storage"),
    (dict(a=dict(kind="Untyped")), "it asks for torch.UntypedStorage"),
]


@both
@pytest.mark.parametrize(("tensors", "message"), REFUSED)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(tmp_path, form, tensors, message):
    pickled = state(**{name: tensor(form, **options) for name, options in tensors.items()})
    with pytest.raises(ValueError, match=message):
        read_state_dict(write(tmp_path / "a.pth", form, pickled))


@both
@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (state(a=number(3)), "'a' holds a int where a tensor is expected"),
        (state(a=ORDERED_DICT), "'a' holds a Mapping where"),
        (state(number(3) + number(4)), "3 holds a int"),
        (b"\x80\x02K\x03.", "a int where a dict is expected"),
        (state(a=b"ctorch._utils\n_rebuild_tensor_v2\n)\x81"), "'a' holds a Tensor where"),  # made without being called
        # The stand-ins cannot be given attributes or turned into something else.
        (state(a=b"ctorch._utils\n_rebuild_tensor_v2\n}" + text("x") + number(1) + b"sb"), "missing|__setstate__"),
        (state(a=b"ctorch._utils\n_rebuild_tensor_v2\n)\x81}" + text("x") + number(1) + b"sb"), "changes a tensor"),
        (state(a=b"ctorch\nFloatStorage\n}" + text("x") + number(1) + b"sb"), "attribute"),
        (state(a=b"ctorch\nFloatStorage\n)R"), "not callable"),
        (state(a=b"(" + text("module") + text("a") * 4 + b"tQ"), "not a whole storage"),
        (state(a=b"(" + text("storage") + text("O") + text("0") + text("cpu") + number(7) + b"tQ"), "not a whole"),
        (b"not a pickle", "damaged: "),
        (b"", "damaged: "),
    ],
)
def test_anything_but_a_dict_of_tensors_is_refused(tmp_path, form, pickled, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_state_dict(write(tmp_path / "a.pth", form, pickled))
    assert "\n" not in str(caught.value)


def test_a_view_of_a_storage_is_refused(tmp_path):
    pickled = state(a=tensor("legacy", view=b"(" + text("1") + number(0) + number(3) + b"t"))
    with pytest.raises(ValueError, match="not a whole storage"):
        read_state_dict(write(tmp_path / "a.pth", "legacy", pickled))


@both
def test_big_endian_files_are_refused(tmp_path, form):
    with pytest.raises(ValueError, match="only little-endian"):
        read_state_dict(write(tmp_path / "a.pth", form, state(a=tensor(form)), little=False))


@both
def test_a_file_cut_off_anywhere_is_refused(tmp_path, form):
    whole = write(tmp_path / "a.pth", form, state(a=tensor(form))).read_bytes()
    for length in range(len(whole)):
        (tmp_path / "b.pth").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"b\.pth is no state dict"):
            read_state_dict(tmp_path / "b.pth")


def test_a_storage_that_the_file_lacks_is_refused(tmp_path):
    pickled = state(a=tensor("legacy"), b=tensor("legacy", key="1"))
    with pytest.raises(ValueError, match="storage 1 is missing"):
        read_state_dict(write(tmp_path / "a.pth", "legacy", pickled))


def test_other_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_state_dict(tmp_path / "none.pth")
    with pytest.raises(ValueError, match="does not begin as a file of torch"):
        read_state_dict(write(tmp_path / "a.pth", "legacy", state(a=tensor("legacy")), version=1000))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(ValueError, match=r"0 members data\.pkl"):
        read_state_dict(tmp_path / "a.zip")
