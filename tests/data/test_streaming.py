"""Streaming gives the batches of the in-memory path, resumes exactly, and shares a batch among hosts."""

import itertools
import json
import multiprocessing
import threading
import tracemalloc
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest

from fmd.data import ImageDataset, ImageStream, Split, StreamedSplit, batch_indices
from fmd.data.reading import Unreadable
from fmd.data.workers import AHEAD, Shared

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 4, 3, 1), dtype=np.uint8)
LABELS = (np.arange(23) % 5).astype(np.int32)
PAIRS = list(zip(IMAGES, LABELS, strict=True))


def assert_batch(batch, step, batch_size=6, rows=slice(None)):
    indices = batch_indices(9, step, batch_size, 23)[rows]
    np.testing.assert_array_equal(batch[0], IMAGES[indices])
    np.testing.assert_array_equal(batch[1], LABELS[indices])
    assert (batch[0].dtype, batch[1].dtype) == (np.uint8, np.int32)


class Dictionaries:
    """A source of dictionaries that can read many at once, as TFDS's data sources can."""

    def __init__(self):
        self.calls = 0

    def __len__(self):
        return 23

    def __getitem__(self, index):
        raise AssertionError("the batched way must be used")

    def __getitems__(self, indices):
        self.calls += 1
        return [{"image": IMAGES[i], "label": LABELS[i], "id": i} for i in indices]


@pytest.mark.parametrize("source", [PAIRS, Dictionaries()])
def test_the_stream_is_the_order_in_memory(source):
    stream = ImageStream(source, batch_size=6, seed=9, threads=3)
    for step in range(12):  # three epochs, with batches across their borders
        assert stream.step == step
        assert_batch(next(stream), step)
    stream.close()


def test_resuming_in_the_middle_is_exact_whatever_was_read_ahead():
    stream = ImageStream(PAIRS, batch_size=6, seed=9, threads=4)
    for _ in range(5):
        next(stream)
    state = json.loads(json.dumps(stream.get_state()))
    assert state["step"] == 5
    resumed = ImageStream(PAIRS, batch_size=6, seed=9)
    resumed.set_state(state)
    for step in range(5, 9):
        assert_batch(next(resumed), step)
    stream.set_state({**state, "step": 2})  # and back, on the same stream
    assert_batch(next(stream), 2)
    for s in (stream, resumed):
        s.close()


def test_any_step_is_reached_without_reading_what_lies_before():
    source = Dictionaries()
    stream = ImageStream(source, batch_size=6, seed=9, step=10**12, threads=1)
    assert_batch(next(stream), 10**12)
    stream.close()
    assert source.calls <= 3


@pytest.mark.parametrize("hosts", [2, 3])
def test_each_host_reads_its_rows_and_states_fit_any_number_of_hosts(hosts):
    streams = [ImageStream(PAIRS, batch_size=6, seed=9, process_index=k, process_count=hosts) for k in range(hosts)]
    rows = 6 // hosts
    for step in range(8):
        for k, stream in enumerate(streams):
            assert_batch(next(stream), step, rows=slice(k * rows, (k + 1) * rows))
    single = ImageStream(PAIRS, batch_size=6, seed=9)
    single.set_state(streams[0].get_state())
    assert_batch(next(single), 8)
    for stream in [*streams, single]:
        stream.close()


def test_batches_are_read_ahead_by_other_threads():
    ahead, names = threading.Event(), set()

    def decode(pair):
        names.add(threading.current_thread().name)
        if pair[1] == LABELS[batch_indices(9, 1, 1, 23)[0]] and np.array_equal(
            pair[0], PAIRS[batch_indices(9, 1, 1, 23)[0]][0]
        ):
            ahead.set()
        return pair[0], int(pair[1])

    stream = ImageStream(PAIRS, batch_size=1, seed=9, decode=decode, threads=2)
    next(stream)
    assert ahead.wait(10)  # step 1 was read although only step 0 was asked for
    stream.close()
    assert threading.current_thread().name not in names


class Large:
    """Images of 3 kB, made when they are asked for; 12 MB of them."""

    def __len__(self):
        return 4000

    def __getitem__(self, index):
        return np.full((32, 32, 3), index % 256, np.uint8), index % 5


def test_memory_stays_flat_over_two_epochs():
    stream = ImageStream(Large(), batch_size=40, seed=0, threads=2)
    tracemalloc.start()
    try:
        for _ in range(200):
            next(stream)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        stream.close()
    assert peak < 2e6  # 16 of 100 batches


def test_images_of_any_size_are_fitted():
    source = [(np.full((4 + k, 6, 3), k, np.uint8), 0) for k in range(5)]
    images, _ = next(ImageStream(source, batch_size=5, seed=0, image_size=(4, 4)))
    assert images.shape == (5, 4, 4, 3)
    assert sorted(images[:, 0, 0, 0]) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"different shapes in one batch .* set image_size"):
        next(ImageStream(source, batch_size=5, seed=0))


def test_what_cannot_be_streamed_is_refused():
    with pytest.raises(ValueError, match="no examples"):
        ImageStream([], batch_size=1, seed=0)
    with pytest.raises(ValueError, match="multiple of the 4 hosts"):
        ImageStream(PAIRS, batch_size=6, seed=0, process_count=4)
    with pytest.raises(ValueError, match="process_index"):
        ImageStream(PAIRS, batch_size=6, seed=0, process_index=2, process_count=2)
    with pytest.raises(ValueError, match="uint8 images"):
        next(ImageStream([(np.zeros((2, 2, 1), np.float32), 0)], batch_size=1, seed=0))
    stream = ImageStream(PAIRS, batch_size=6, seed=9)
    with pytest.raises(ValueError, match="another stream: seed 8 is not 9"):
        stream.set_state({**stream.get_state(), "seed": 8})
    with pytest.raises(ValueError, match="must not be negative"):
        stream.set_state({**stream.get_state(), "step": -1})


def test_examples_with_named_parts_stream_as_parts():
    style = np.random.default_rng(1).random((23, 2))
    source = [(image, {"label": k % 5, "style": style[k]}) for k, image in enumerate(IMAGES)]
    stream = ImageStream(source, batch_size=6, seed=9)
    images, y = next(stream)
    stream.close()
    rows = batch_indices(9, 0, 6, 23)
    np.testing.assert_array_equal(images, IMAGES[rows])
    np.testing.assert_array_equal(y["label"], LABELS[rows])
    np.testing.assert_array_equal(y["style"], style[rows].astype(np.float32))
    assert (y["label"].dtype, y["style"].dtype) == (np.int32, np.float32)


def test_streamed_labels_are_checked_like_others():
    test = Split(IMAGES, LABELS % 3)
    dataset = ImageDataset("a", StreamedSplit(PAIRS, (4, 3, 1)), test, 3, "")
    with pytest.raises(ValueError, match="the source gives the label 4, but there are 3: 0 to 2"):
        next(dataset.train.stream(batch_size=23, seed=0))
    with pytest.raises(ValueError, match="count from 0, got -1"):
        next(ImageStream([(IMAGES[0], -1)], batch_size=1, seed=0))
    with pytest.raises(ValueError, match="labels must be int32"):
        next(ImageStream([(IMAGES[0], 1.5)], batch_size=1, seed=0))
    style = np.full(2, np.nan)
    with pytest.raises(ValueError, match="style must be finite"):
        next(ImageStream([(IMAGES[0], {"style": style})], batch_size=1, seed=0))


def test_a_split_in_memory_streams_like_one_on_disk():
    split = Split(IMAGES, {"label": LABELS, "style": np.random.default_rng(1).random((23, 2), np.float32)})
    dataset = ImageDataset("a", StreamedSplit(split, split.image_shape), split, 5, "")
    stream = dataset.train.stream(batch_size=6, seed=9, step=3)
    images, y = next(stream)
    stream.close()
    expected = split.take(batch_indices(9, 3, 6, 23))
    np.testing.assert_array_equal(images, expected.images)
    for name in ("label", "style"):
        np.testing.assert_array_equal(y[name], expected.y[name])
        assert y[name].dtype == expected.y[name].dtype


def fourth_is_broken(pair):
    """The example, unless its label is 3."""
    if pair[1] == 3:
        raise Unreadable("a broken file")
    return pair


def test_processes_read_what_threads_read():
    last = batch_indices(9, 3, 6, 23)[4]  # of the first epoch
    pairs = [(np.zeros(3) if k == last else image, label) for k, (image, label) in enumerate(PAIRS)]
    split = StreamedSplit(pairs, (4, 3, 1), decode=fourth_is_broken)
    theirs = split.stream(batch_size=6, seed=9, step=1, workers=2)
    for step in (1, 2):
        ours = split.stream(batch_size=6, seed=9, step=step)
        for one, other in zip(next(ours), next(theirs), strict=True):
            np.testing.assert_array_equal(one, other)
        ours.close()
    assert theirs.step == 3
    assert len(multiprocessing.active_children()) == 2
    with pytest.raises(ValueError, match=r"uint8 images \[H, W, C\], got float64"):
        next(theirs)
    reader = theirs._batches
    ahead = [future.result() for future in reader._batches._waiting]
    blocks = [batch.block for batch in ahead if isinstance(batch, Shared)]
    assert len(blocks) > 1
    theirs.close()
    assert multiprocessing.active_children() == []
    for block in (*blocks, reader._given.name):
        with pytest.raises(FileNotFoundError):
            SharedMemory(block)


def test_a_process_that_is_ended_is_one_line():
    stream = StreamedSplit(PAIRS, (4, 3, 1)).stream(batch_size=6, seed=9, workers=1)
    next(stream)
    multiprocessing.active_children()[0].kill()
    with pytest.raises(RuntimeError, match=r"^a worker process was ended, .* fewer with config\.data\.workers; .*$"):
        list(itertools.islice(stream, AHEAD + 1))
    stream.close()


def test_too_little_shared_memory_is_one_line():
    with pytest.raises(ValueError, match=r"workers: \S+ GB of batches wait in /dev/shm.*or 0 for threads"):
        StreamedSplit(PAIRS, (10**6, 10**6, 3)).stream(batch_size=6, seed=9, workers=2)
