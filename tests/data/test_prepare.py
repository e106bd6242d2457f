"""Prepared folders: the bytes of an uninterrupted run, the batches of the set itself, and what is refused."""

import dataclasses

import numpy as np
import pytest

from fmd.data import ImageDataset, Split, StreamedSplit, load
from fmd.data.order import batch_indices
from fmd.data.prepare import prepare
from fmd.data.reading import Unreadable
from fmd.data.records import Form

RANDOM = np.random.default_rng(0)
SMALL = 4 * (4 * 3 * 1 + 4 + 8)  # bytes of four records


def split(count, named):
    images = RANDOM.integers(0, 256, (count, 4, 3, 1), dtype=np.uint8)
    labels = (np.arange(count) % 3).astype(np.int32)
    style = RANDOM.random((count, 2), np.float32)
    return Split(images, {"style": style, "label": labels} if named else labels)  # not in the order of the names


@pytest.fixture(scope="module")
def dataset():
    return ImageDataset("set", split(23, True), split(6, True), 3, "made up", ("a", "b", "c"))


@pytest.fixture
def prepared(dataset, tmp_path):
    prepare(dataset, tmp_path / "out", shard_bytes=SMALL, quiet=True)
    return tmp_path / "out"


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("named", [True, False])
def test_batches_are_those_of_the_set_and_go_on_inside_an_epoch(tmp_path, named, dataset):
    if not named:
        dataset = ImageDataset("set", split(23, False), split(6, False), 3, "made up")
    prepare(dataset, tmp_path / "out", shard_bytes=SMALL, quiet=True)
    found = load("array_record", path=str(tmp_path / "out"))
    assert (found.name, found.num_classes, found.class_names) == ("set", 3, dataset.class_names)
    assert found.conditions == dataset.conditions
    np.testing.assert_array_equal(found.class_counts(), dataset.class_counts())
    np.testing.assert_array_equal(found.test.images, dataset.test.images)
    stream = found.train.stream(batch_size=6, seed=9, step=2, workers=1 if named else 0)
    for step in (2, 3, 4):  # across the border of an epoch
        expected = dataset.train.take(batch_indices(9, step, 6, 23))
        images, y = next(stream)
        np.testing.assert_array_equal(images, expected.images)
        for name, part in expected.parts.items():
            np.testing.assert_array_equal(y[name] if named else y, part)
            assert (y[name] if named else y).dtype == part.dtype
    assert stream.get_state()["step"] == 5
    stream.close()


class Fused:
    """The rows of a split; the twelfth cannot be decoded, and the first `fuse` readings go well."""

    def __init__(self, rows, fuse):
        self.rows, self.fuse = rows, fuse

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return index

    def decode(self, index):
        self.fuse -= 1
        if self.fuse < 0:
            raise KeyboardInterrupt
        if index == 12:
            raise Unreadable("row 12 cannot be read")
        return self.rows[index]


def test_what_was_interrupted_goes_on_to_the_same_bytes(dataset, tmp_path):
    def fused(fuse):
        source = Fused(dataset.train, fuse)
        return dataclasses.replace(dataset, train=StreamedSplit(source, (4, 3, 1), decode=source.decode))

    whole = prepare(fused(10**6), tmp_path / "whole", shard_bytes=SMALL, quiet=True)
    assert sum(shard.records for shard in whole.of("train").values()) == 22  # the twelfth is left out
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        prepare(fused(23 + 7), out, shard_bytes=SMALL, quiet=True)  # the digest reads all 23 once
    first = (out / "train-00000.array_record").stat()
    assert "index.json" not in bytes_of(out)
    with pytest.raises(FileNotFoundError, match="is not finished: run the same command"):
        load("array_record", path=str(out))
    prepare(fused(10**6), out, shard_bytes=SMALL, quiet=True)
    assert (out / "train-00000.array_record").stat().st_mtime_ns == first.st_mtime_ns  # not written again
    assert bytes_of(out) == bytes_of(tmp_path / "whole")


def test_damage_is_named_and_mended_by_the_same_command(dataset, prepared):
    before, shard = bytes_of(prepared), prepared / "train-00002.array_record"
    damaged = bytearray(before[shard.name])
    damaged[-1000:] = bytes(1000)
    for content, message in [
        (None, r"train-00002\.array_record is missing: run the same command"),
        (before[shard.name][:100], r"train-00002\.array_record has 100 bytes in place of \d+: run the same"),
        (bytes(len(damaged)), r"train-00002\.array_record is damaged \(.*: run the same command"),
    ]:
        shard.unlink() if content is None else shard.write_bytes(content)
        with pytest.raises((FileNotFoundError, ValueError), match=message):
            next(load("array_record", path=str(prepared)).train.stream(batch_size=23, seed=0))
        prepare(dataset, prepared, shard_bytes=SMALL, quiet=True)
        assert bytes_of(prepared) == before


def test_another_preparation_and_other_files_are_refused(dataset, prepared, tmp_path):
    with pytest.raises(FileExistsError, match=r"another preparation \(train 23, not 7, digest .*another --out"):
        prepare(dataclasses.replace(dataset, train=split(7, True)), prepared, shard_bytes=SMALL, quiet=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="full holds other files"):
        prepare(dataset, tmp_path / "full", quiet=True)
    with pytest.raises(FileNotFoundError, match=r"full has no index\.json"):
        load("array_record", path=str(tmp_path / "full"))
    (prepared / "index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"index\.json is no index of prepared data .*prepare it anew"):
        load("array_record", path=str(prepared))


def test_examples_of_another_form_are_refused(dataset):
    image, y = dataset.train[0]
    form = Form.of(image, y)
    for other, kind in [((image / 255, y), "float64"), ((image[1:], y), "uint8"), ((image, 0), "uint8")]:
        with pytest.raises(ValueError, match=f"examples of different forms: uint8 Form.*, and {kind} Form.* set image"):
            form.encode(*other)
