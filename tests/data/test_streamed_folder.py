"""A folder that stays on disk: the examples of the one in memory, an index that is kept, files that cannot be read."""

import numpy as np
import pytest

from fmd.data import file_index, load
from fmd.data.order import batch_indices
from tests.helpers.pictures import paint, paint_classes

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def folder(tmp_path):
    """Two classes with four training and two test images each, and a table of what is told of them."""
    for split, count in (("train", 4), ("test", 2)):
        paint_classes(tmp_path / "set" / split, count=count)
    rows = ["file_name,age,low_file_name"]
    for number, file in enumerate(sorted((tmp_path / "set").glob("*/*/*.png"))):
        name = str(file.relative_to(tmp_path / "set"))
        paint(tmp_path / "set" / "low" / f"{number}.png", number % 2, size=(3, 3), mode="L")
        rows.append(f"{name},{number / 2},low/{number}.png")
    (tmp_path / "set" / "metadata.csv").write_text("\n".join(rows))
    return tmp_path / "set"


@pytest.mark.parametrize("conditions", [{}, {"age": "number", "low": {"kind": "mask", "height": 3, "width": 3}}])
def test_batches_are_those_of_the_folder_in_memory(folder, conditions):
    given = {"path": str(folder), "image_size": 4, "conditions": conditions}
    whole, streamed = load("folder", **given), load("folder", stream=True, **given)
    assert (streamed.num_classes, streamed.class_names, streamed.conditions) == (2, ("a", "b"), whole.conditions)
    np.testing.assert_array_equal(streamed.test.images, whole.test.images)
    np.testing.assert_array_equal(streamed.class_counts(), whole.class_counts())
    stream = streamed.train.stream(batch_size=6, seed=9, step=1)
    for step in (1, 2):
        expected = whole.train.take(batch_indices(9, step, 6, 8))
        images, y = next(stream)
        np.testing.assert_array_equal(images, expected.images)
        for name, part in (y if conditions else {"label": y}).items():
            np.testing.assert_array_equal(part, expected.parts[name])
            assert part.dtype == expected.parts[name].dtype
    stream.close()


def test_the_listing_is_kept_until_a_folder_changes(folder, monkeypatch):
    found = file_index.index(folder)
    with monkeypatch.context() as patched:
        patched.setattr(file_index, "Finder", lambda *_: pytest.fail("listed again"))
        again = file_index.index(folder)
    assert [again.listing([row]) for row in range(12)] == [found.listing([row]) for row in range(12)]
    paint(folder / "train" / "a" / "new.png")
    assert len(file_index.index(folder)) == 13


def test_a_file_that_cannot_be_read_has_a_stand_in(folder, log):
    (folder / "train" / "a" / "1.png").write_bytes(b"no picture")
    streamed = load("folder", path=str(folder), image_size=6, stream=True)
    stream = streamed.train.stream(batch_size=8, seed=0)
    images, labels = next(stream)
    stream.close()
    assert sorted(zip(labels.tolist(), images[:, 0, 0, 1].tolist(), strict=True)) == [
        *[(0, 0), (0, 2), (0, 2), (0, 3)],
        *[(1, 0), (1, 1), (1, 2), (1, 3)],
    ]
    assert any("train/a/1.png cannot be read: no picture" in line and "stands in" in line for line in log)
    (folder / "train" / "a" / "1.png").unlink()
    with pytest.raises(ValueError, match=r"train/a/1\.png is gone: put it back, or start again"):
        next(streamed.train.stream(batch_size=8, seed=0))


def test_test_images_that_are_not_taken_are_said(folder, log):
    assert len(load("folder", path=str(folder), image_size=6, stream=True, test_images=3).test) == 3
    assert f"folder {folder}: 3 of 4 test images are taken, evenly spread: test_images says how many" in log


def test_no_more_test_images_are_held_out_than_asked_for(tmp_path):
    paint_classes(tmp_path / "set", count=20)
    dataset = load("folder", path=str(tmp_path / "set"), image_size=6, stream=True, test_fraction=0.5, test_images=4)
    assert (len(dataset.train), len(dataset.test)) == (36, 4)
    np.testing.assert_array_equal(dataset.class_counts(), [18, 18])
    with pytest.raises(ValueError, match="stream=True needs image_size"):
        load("folder", path=str(tmp_path / "set"), stream=True)
