"""Arrays as people have them become what a split holds, or one line says why not."""

import numpy as np
import pytest

from fmd.data import load
from fmd.data.arrays import as_images, as_labels, as_part, full_range

COLOUR = np.random.default_rng(0).integers(0, 256, (6, 8, 9, 3), dtype=np.uint8)
GREY = COLOUR[..., :1]
FOUR = np.random.default_rng(0).integers(0, 256, (6, 8, 9, 4), dtype=np.uint8)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (COLOUR, COLOUR),
        (GREY[..., 0], GREY),
        (COLOUR.transpose(0, 3, 1, 2), COLOUR),
        (GREY.transpose(0, 3, 1, 2), GREY),
        (FOUR.transpose(0, 3, 1, 2), FOUR),
        (COLOUR[:, :3], COLOUR[:, :3]),  # three rows are no channels where the last axis can be
        (COLOUR.transpose(1, 2, 3, 0), COLOUR),
        (GREY[..., 0].transpose(1, 2, 0), GREY),
        (GREY > 99, 255 * (GREY > 99)),
        ((GREY > 99)[..., 0], 255 * (GREY > 99)),
        (COLOUR.astype(np.int64), COLOUR),
        (GREY[..., 0].astype(np.uint16), GREY),
        (COLOUR.astype(">i4").transpose(0, 3, 1, 2), COLOUR),
        (COLOUR[..., :2].transpose(0, 3, 1, 2), COLOUR[..., :2]),
    ],
)
def test_images_are_found_in_every_usual_order_of_axes(given, expected):
    np.testing.assert_array_equal(as_images(given, "here", count=6), expected)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (COLOUR / 255, r"got float64 \[6, 8, 9, 3\]; of values in \[0, 1\] save np.round\(255 \* images\)"),
        (COLOUR / 128 - 1, r"got float64 \[6, 8, 9, 3\]; of values in \[-1, 1\] save np.round\(127.5"),
        (COLOUR.astype(np.float32), r"got float32 \[6, 8, 9, 3\]; save np.round\(images\)"),
        (COLOUR * 2.0, r"got float64 \[6, 8, 9, 3\]$"),
        (COLOUR.astype(np.int64) - 128, r"got int64 \[6, 8, 9, 3\]; its values run from -128 to 127: bring them"),
        (COLOUR.astype(np.uint16) * 257, r"got uint16 \[6, 8, 9, 3\]; its values run from 0 to 65535: bring"),
        (COLOUR.reshape(6, -1), r"got uint8 \[6, 216\]; give each image its height and width"),
        (COLOUR[:0], r"got uint8 \[0, 8, 9, 3\]"),
    ],
)
def test_other_arrays_are_refused_in_one_line(given, words):
    with pytest.raises(ValueError, match=rf"images must be uint8 \[N, H, W, C\] or \[N, H, W\], {words}"):
        as_images(given, "here")


def test_zero_and_one_become_black_and_white_in_all_splits_or_in_none():
    mask, black = (GREY > 99).astype(np.uint8), np.zeros_like(GREY)
    both = full_range([black, mask], "here")
    np.testing.assert_array_equal(both[1], 255 * mask)
    np.testing.assert_array_equal(both[0], black)
    for arrays in ([mask, GREY], [mask * 2], [black]):
        assert full_range(arrays, "here") is arrays


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.array([0, 3, 1], np.uint8), [0, 3, 1]),
        (np.array([[0], [3], [1]]), [0, 3, 1]),
        (np.array([0.0, 3.0, 1.0]), [0, 3, 1]),
        (np.array([[2.0], [5.0]], np.float32), [2, 5]),
    ],
)
def test_labels_are_whole_numbers_however_they_are_stored(given, expected):
    labels = as_labels(given)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, expected)


def test_negative_and_huge_labels_are_refused():
    for given in (np.array([-1, 2]), np.array([2**31]), np.array([[-5.0]])):
        with pytest.raises(ValueError, match="labels must count from 0, got"):
            as_labels(given)
    assert as_labels(np.array([0.5])).dtype == np.float64  # a split refuses it


def test_parts_become_labels_or_vectors():
    assert as_part(np.array([1, 2])).dtype == np.int32
    assert as_part(np.array([1.0, 2.0])).shape == (2, 1)
    assert as_part(np.zeros((2, 3, 4))).dtype == np.float32


@pytest.mark.parametrize("labels", [np.arange(6)[:, None] % 2, np.arange(6) % 2 * 1.0])
@pytest.mark.parametrize("images", [COLOUR.transpose(0, 3, 1, 2), COLOUR.transpose(1, 2, 3, 0), COLOUR])
def test_an_archive_is_read_in_any_of_these_forms(tmp_path, images, labels):
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    dataset = load("npz", path=str(tmp_path / "a.npz"), test_fraction=0.34)
    assert (dataset.image_shape, dataset.num_classes) == ((8, 9, 3), 2)
    pairs = {
        (i.tobytes(), int(k)) for s in (dataset.train, dataset.test) for i, k in zip(s.images, s.labels, strict=True)
    }
    assert pairs == {(image.tobytes(), k % 2) for k, image in enumerate(COLOUR)}
