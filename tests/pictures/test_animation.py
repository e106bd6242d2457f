"""Animations: every frame comes back, for as long as it should be seen; the same frames are the same bytes."""

import base64
import re

import numpy as np
import pytest
from PIL import Image

from fmd.pictures import animation
from fmd.pictures.grids import image_grid

SUFFIXES = pytest.mark.parametrize("suffix", animation.SUFFIXES)


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (5, 12, 16, 1)).astype(np.uint8)


def read(path):
    """(frames uint8 [T, H, W, 3], milliseconds [T], repeats)."""
    pictures, milliseconds = [], []
    with Image.open(path) as image:
        for k in range(image.n_frames):
            image.seek(k)
            pictures.append(np.asarray(image.convert("RGB")))
            milliseconds.append(image.info["duration"])
        return np.stack(pictures), milliseconds, image.info["loop"]


@SUFFIXES
def test_grey_frames_read_back_exactly_with_their_times(tmp_path, frames, suffix):
    path = tmp_path / f"x{suffix}"
    animation.save_animation(path, frames, frame_seconds=0.05, hold_seconds=1.5)
    pictures, milliseconds, repeats = read(path)
    np.testing.assert_array_equal(pictures, frames.repeat(3, -1))
    assert milliseconds == [50] * 4 + [1500]
    assert repeats == 0  # for ever
    with Image.open(path) as image:
        assert (image.format, image.size) == (suffix[1:].upper(), (16, 12))


@SUFFIXES
def test_colours_read_back(tmp_path, suffix):
    """Within a little in a GIF, whose frames have 256 colours each."""
    red, green = np.meshgrid(np.arange(0, 256, 8), np.arange(0, 256, 8))
    frame = np.stack([red, green, 255 - red], -1).astype(np.uint8)
    frames = np.stack([frame, frame[::-1], frame[:, ::-1]])
    animation.save_animation(tmp_path / f"x{suffix}", frames)
    error = np.abs(read(tmp_path / f"x{suffix}")[0].astype(int) - frames)
    assert error.max() <= (0 if suffix == ".webp" else 24)
    assert error.mean() < 6


@SUFFIXES
def test_the_same_frames_are_the_same_bytes_and_nothing_is_overwritten(tmp_path, frames, suffix):
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    animation.save_animation(first, frames)
    animation.save_animation(second, frames.copy())
    assert first.read_bytes() == second.read_bytes()
    with pytest.raises(FileExistsError, match="is not overwritten"):
        animation.save_animation(first, frames[::-1])
    assert first.read_bytes() == second.read_bytes()
    animation.save_animation(first, frames[::-1], overwrite=True)
    assert first.read_bytes() != second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [first.name, second.name]


@SUFFIXES
def test_one_frame_will_do(tmp_path, frames, suffix):
    animation.save_animation(tmp_path / f"x{suffix}", frames[:1])
    with Image.open(tmp_path / f"x{suffix}") as image:
        np.testing.assert_array_equal(np.asarray(image.convert("L")), frames[0, ..., 0])


def test_what_is_no_animation_is_refused(tmp_path, frames):
    for name in ("x.png", "x", "x.mp4"):
        with pytest.raises(ValueError, match=r"must end in \.gif or \.webp"):
            animation.save_animation(tmp_path / name, frames)
    for wrong in (frames[0], frames[:0], frames.astype(np.float32), frames.repeat(2, -1)):
        with pytest.raises(ValueError, match="an animation takes uint8 frames"):
            animation.save_animation(tmp_path / "x.gif", wrong)
    for seconds in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="must be at least"):
            animation.save_animation(tmp_path / "x.gif", frames, frame_seconds=seconds)
    assert not list(tmp_path.iterdir())


@SUFFIXES
def test_a_notebook_gets_the_whole_file(tmp_path, frames, suffix):
    animation.save_animation(tmp_path / f"x{suffix}", frames)
    before, content, _ = re.split('base64,|">', animation.Shown(tmp_path / f"x{suffix}")._repr_html_())
    assert before == f'<img src="data:image/{suffix[1:]};'
    assert base64.b64decode(content) == (tmp_path / f"x{suffix}").read_bytes()


def test_frames_are_the_grids_of_each_time(frames):
    images = frames.reshape(5, 4, 3, 16, 1)
    made = animation.grid_frames(images, scale=2)
    assert len(made) == 5
    for frame, at_t in zip(made, images, strict=True):
        np.testing.assert_array_equal(frame, image_grid(at_t, scale=2))
    assert max(animation.grid_frames(np.zeros((2, 9, 500, 500, 3), np.uint8)).shape[1:3]) <= animation.LONGEST_SIDE
