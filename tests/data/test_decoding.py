"""Decoding of image files: metadata never cost a picture, damage costs its file alone, nothing is decoded twice."""

import functools
import io
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from fmd.data import decoding, images, load
from fmd.data.metadata import without_metadata
from tests.helpers.pictures import encoded, exif, exif_entry, jpeg_with, noise, paint, paint_classes, png_with


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FMD_DATA_DIR", str(folder))
    return folder


def test_exif_turns_the_image_upright(tmp_path):
    stored = np.full((8, 4), 250, np.uint8)
    stored[:, :2] = 0
    block = Image.Exif()
    block[0x0112] = 6  # to be shown turned clockwise: the dark left half is on top
    for k in range(2):
        Image.fromarray(stored).save(tmp_path / f"{k}.png", exif=block)
    dataset = load("folder", path=str(tmp_path))
    np.testing.assert_array_equal(dataset.train.images[0, ..., 0], np.rot90(stored, -1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_are_those_of_pillow(tmp_path, orientation):
    from PIL import ImageOps

    block = Image.Exif()
    block[0x0112] = orientation
    Image.fromarray(noise(size=(8, 4))).save(tmp_path / "a.png", exif=block)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    header = images.probe(tmp_path / "a.png")
    assert header.shape == expected.shape
    np.testing.assert_array_equal(images.read(tmp_path / "a.png", header.shape[:2], 3), expected)


TURNED = exif_entry(0x0112, 3, 1, b"\0\6")
AFTER_TWO = (8 + 2 + 24 + 4).to_bytes(4, "big")  # where a value of the second entry lies
METADATA = {
    "date as a fraction": b"Exif\0\0" + exif(TURNED, exif_entry(0x0132, 5, 1, AFTER_TWO), extra=bytes(8)),
    "height as text": b"Exif\0\0" + exif(exif_entry(0x0101, 2, 3, b"no\0"), TURNED),
    "software as floats": b"Exif\0\0" + exif(TURNED, exif_entry(0x0131, 12, 1, AFTER_TWO), extra=b"\xff" * 8),
    "resolution of an unknown type": b"Exif\0\0" + exif(TURNED, exif_entry(0x011A, 99, 1, b"\1\2\3\4")),
    "artist beyond the end": b"Exif\0\0" + exif(TURNED, exif_entry(0x013B, 2, 9999, b"\x7f\xff\xff\xff")),
    "a directory that points to itself": b"Exif\0\0" + exif(TURNED, exif_entry(0x8769, 4, 1, b"\0\0\0\x08")),
}


@pytest.mark.parametrize("name", METADATA)
def test_odd_tags_neither_cost_a_photograph_nor_its_orientation(tmp_path, name):
    (tmp_path / "a.jpg").write_bytes(jpeg_with(METADATA[name]))
    upright = np.asarray(
        Image.open(io.BytesIO(jpeg_with(b"Exif\0\0" + exif(TURNED)))).transpose(Image.Transpose.ROTATE_270)
    )
    np.testing.assert_array_equal(images.read(tmp_path / "a.jpg", (16, 16), 3), upright)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.png", png_with(b"tEXt", b"no null byte")),
        ("a.png", png_with(b"eXIf", b"garbage")),
        ("a.png", png_with(b"iCCP", b"profile\0\0not compressed")),
        ("a.png", png_with(b"zTXt", b"key\0\0" + b"\x78\x9c" + bytes(20))),
        ("a.jpg", jpeg_with(b"Exif\0\0" + bytes(range(200)))),
        ("a.jpg", jpeg_with(b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation=\"\xff\xfe\"")),
        ("a.jpg", jpeg_with(b"MPF\0MM\0*" + b"\xff" * 40)),
        ("a.webp", encoded("WEBP", lossless=True, exif=b"Exif\0\0" + b"\xff" * 50)),
        ("a.tif", encoded("TIFF", tiffinfo={0x010F: "maker"}).replace(b"maker", b"\xff\xfe\xff\xfe\xff")),
    ],
)  # fmt: skip
def test_broken_metadata_of_all_formats_leave_the_pixels(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    found = images.read(tmp_path / name, (16, 16), 3)
    tolerance = 5 if name.endswith("jpg") else 0
    assert np.abs(found.astype(int) - noise()).mean() <= tolerance


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_files_are_the_same_pictures_without_their_metadata(form):
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    block = Image.Exif()
    block[0x010F] = "maker"
    for data in (encoded(form, exif=block), encoded(form)):
        bare = without_metadata(data)
        assert b"maker" not in bare or form in ("TIFF", "AVIF")
        np.testing.assert_array_equal(
            np.asarray(Image.open(io.BytesIO(bare))), np.asarray(Image.open(io.BytesIO(data)))
        )
        for cut in range(0, len(data), 7):  # never an error, whatever is left of the file
            without_metadata(data[:cut])
    assert without_metadata(b"GIF89a") is None


def test_damaged_files_are_left_out_counted_and_named_by_reason(tmp_path, log):
    root = tmp_path / "set"
    paint_classes(root)
    (root / "a" / "0.png").write_bytes(b"not a PNG")
    (root / "b" / "3.png").write_bytes(encoded("PNG", noise(size=(6, 6)))[:80])  # a good header, then nothing
    Image.fromarray(np.zeros((6, 6), np.float32)).save(root / "b" / "deep.tif")
    for _ in range(2):  # decoded, then from the cache
        dataset = load("folder", path=str(root), channels=3)
        assert len(dataset.train) + len(dataset.test) == 6
        assert "3 unreadable files left out" in dataset.provenance
        (told,) = [line for line in log if "cannot be read" in line]
        assert "3 of 9 files cannot be read and are left out: 1 x " in told
        assert "1 x no picture, or damaged at its beginning (a/0.png)" in told
        assert "1 x 32-bit floating-point pixels (b/deep.tif)" in told
        assert "truncated (b/3.png)" in told
        for split in (dataset.train, dataset.test):
            np.testing.assert_array_equal(split.images[:, 0, 0, 0], 10 * split.labels)
        log.clear()
    for k in range(4):
        (root / "b" / f"{k}.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no image of class 'b' .*: 4 x no picture.* \(b/0.png, .*1 x 32-bit"):
        load("folder", path=str(root))
    for k in range(4):
        (root / "a" / f"{k}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 9 image files can be read: 8 x no picture"):
        load("folder", path=str(root))


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros((4, 4), np.float32), "32-bit floating-point pixels"),
        (np.full((4, 4), 9, np.int32), "32-bit whole-number pixels"),
    ],
)
def test_whole_files_that_cannot_serve_say_why(tmp_path, pixels, words):
    for k in range(5):
        Image.fromarray(pixels).save(tmp_path / f"{k}.tiff")
    with pytest.raises(ValueError, match=rf"none of the 5 image files can be read: 5 x {words} \(0.tiff, .*, \.\.\.\)"):
        load("folder", path=str(tmp_path))


def test_no_program_is_started_for_a_picture(tmp_path, log):
    """Pillow hands PostScript to Ghostscript, whatever the name of the file says."""
    paint_classes(tmp_path / "set")
    (tmp_path / "set" / "a" / "page.jpg").write_bytes(encoded("EPS", noise(size=(6, 6))))
    load("folder", path=str(tmp_path / "set"))
    assert any("1 x no picture, or damaged at its beginning (a/page.jpg)" in line for line in log)


def test_too_many_pixels_are_a_reason(tmp_path, log):
    paint_classes(tmp_path / "set")
    Image.new("1", (19_000, 10_000)).save(tmp_path / "set" / "a" / "wide.png")
    load("folder", path=str(tmp_path / "set"), image_size=6, channels=3)
    assert any("1 x more than 178,956,970 pixels (a/wide.png)" in line for line in log)


def test_a_damaged_size_does_not_speak_for_the_others(tmp_path):
    """Without `image_size` all must agree, but a header that damage changed is no picture of another size."""
    paint_classes(tmp_path / "set")
    data = bytearray(encoded("BMP", noise(size=(6, 6))))
    data[18] = 60  # its width
    (tmp_path / "set" / "a" / "wrong.bmp").write_bytes(data)
    assert load("folder", path=str(tmp_path / "set")).image_shape == (6, 6, 3)
    paint(tmp_path / "set" / "a" / "other.png", size=(60, 6))
    with pytest.raises(ValueError, match=r"0\.png is 6x6, .*other\.png is 6x60; set image_size"):
        load("folder", path=str(tmp_path / "set"))


@pytest.mark.parametrize(("top", "bits"), [(255, 8), (200, 8), (1023, 10), (3000, 12), (16383, 14), (65535, 16)])
@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_grey_of_16_bits_uses_the_bits_that_the_set_uses(tmp_path, log, top, bits, suffix):
    ramp = np.linspace(0, top, 36).round().astype(np.uint16).reshape(6, 6)
    for k in range(4):
        Image.fromarray(ramp // (k + 1)).save(tmp_path / f"{k}.{suffix}")
    dataset = load("folder", path=str(tmp_path))
    found = np.concatenate([dataset.train.images, dataset.test.images])[..., 0]
    expected = np.stack([ramp // (k + 1) for k in range(4)]) >> (bits - 8)
    assert sorted(image.tobytes() for image in found) == sorted(e.astype(np.uint8).tobytes() for e in expected)
    assert any(f"16-bit grey uses {bits} bits: 0 to {2**bits - 1} become 0 to 255" in line for line in log)


def test_pages_of_stacks_are_counted_and_the_first_is_taken(tmp_path, log):
    pages = [Image.fromarray(noise(k)) for k in range(3)]
    for name in ("a.tif", "b.gif", "c.webp"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "d.tif")
    dataset = load("folder", path=str(tmp_path), channels=3)
    assert len(dataset.train) + len(dataset.test) == 4
    assert any("3 files hold 9 pages; the first of each is taken" in line for line in log)


def test_nothing_is_decoded_twice_until_a_file_changes(tmp_path, cache):
    root = tmp_path / "set"
    paint_classes(root)

    def kept():
        return {path: path.stat().st_mtime_ns for path in (cache / "decoded").glob("set-*")}

    first = load("folder", path=str(root))
    before = kept()
    np.testing.assert_array_equal(load("folder", path=str(root)).train.images, first.train.images)
    assert kept() == before
    load("folder", path=str(root), channels=1)  # another result has another name
    assert len(kept()) == 2
    (path,) = before
    path.write_bytes(path.read_bytes()[:200])
    np.testing.assert_array_equal(load("folder", path=str(root)).train.images, first.train.images)
    assert path.stat().st_size > 200  # a damaged copy is decoded again
    stat = (root / "a" / "0.png").stat()
    paint(root / "a" / "0.png", (99, 99, 99))
    os.utime(root / "a" / "0.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))  # a time that was set back hides nothing
    changed = load("folder", path=str(root))
    assert max(changed.train.images.max(), changed.test.images.max()) == 99
    assert changed.digest() != first.digest()


SLOW = """
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
from fmd.data import decoding, images
decoding.images.read = lambda *arguments: time.sleep(0.2)
print("started", flush=True)
decoding.decode([pathlib.Path(sys.argv[1])] * 400, (4, 4), 3, "slow", threads=2)
"""


def test_an_interrupt_ends_decoding_at_once(tmp_path, cache):
    paint(tmp_path / "a.png")
    process = subprocess.Popen([sys.executable, "-c", SLOW, tmp_path / "a.png"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "started\n"
    time.sleep(1)  # 400 pictures take 40 seconds
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert not list((cache / "decoded").glob("slow-*"))


@functools.cache
def ten_formats():
    """Good files of ten formats and their suffixes."""
    forms = {"png": "PNG", "jpg": "JPEG", "bmp": "BMP", "gif": "GIF", "webp": "WEBP", "tif": "TIFF", "ppm": "PPM"}
    forms |= {"tga": "TGA", "jp2": "JPEG2000", "ico": "ICO"} | ({"avif": "AVIF"} if features.check("avif") else {})
    files = {suffix: encoded(form) for suffix, form in forms.items()}
    files["tiff"] = encoded("TIFF", noise()[..., 0].astype(np.uint16) * 257)
    return files


damage = st.tuples(st.sampled_from(["cut", "change", "insert"]), st.floats(0, 1), st.binary(min_size=1, max_size=8))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 99), damage), min_size=1, max_size=12))
def test_damaged_files_of_ten_formats_cost_themselves_alone(tmp_path_factory, damaged):
    root = tmp_path_factory.mktemp("set")
    good = ten_formats()
    assert len(good) >= 10
    for folder in ("a", "b"):
        (root / folder).mkdir()
        for suffix, data in good.items():
            (root / folder / f"good.{suffix}").write_bytes(data)
    for k, (which, (how, where, content)) in enumerate(damaged):
        suffix = sorted(good)[which % len(good)]
        data = good[suffix]
        place = int(where * len(data))
        tail = {"cut": b"", "change": data[place + len(content) :], "insert": data[place:]}[how]
        (root / "a" / f"{k}.{suffix}").write_bytes(data[:place] + (b"" if how == "cut" else content) + tail)
    dataset = load("folder", path=str(root), image_size=8, channels=3)
    found = len(dataset.train) + len(dataset.test)
    assert 2 * len(good) <= found <= 2 * len(good) + len(damaged)
    files = sorted((root / "b").iterdir())
    assert decoding.decode(files, (8, 8), 3, "good").reasons == [""] * len(good)
