"""The host's side of a dispatch: a streamed set feeds the step what a resident one does."""

import numpy as np
import pytest

from fmd.data import ImageDataset
from fmd.training import feed as feeds
from tests.helpers import toys

STEPS = {"num_steps": 8, "steps_per_dispatch": 2}
EVERY = {"log": {"every": 2}, "checkpoint": {"every": 4}}


def test_a_streamed_set_cannot_be_resident():
    data = toys.dataset()
    streamed = ImageDataset(data.name, feeds.as_streamed(data.train), data.test, data.num_classes, data.provenance)
    with pytest.raises(ValueError, match=r"config\.data\.resident = True, but this set is streamed"):
        feeds.resident_split(toys.config(data={"resident": True}), streamed)


@pytest.mark.parametrize("resident", [True, False])
def test_workers_of_a_set_in_memory_are_said_to_do_nothing(resident, caplog):
    config = toys.config(train=STEPS, data={"workers": 2, "resident": resident}, **EVERY)
    next(feeds.feed(config, toys.dataset(), 0))
    assert "data.workers=2 has no effect" in caplog.text


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("start", [0, 4])
def test_streamed_batches_are_those_of_the_resident_set(on_disk, start):
    resident = toys.config(train=STEPS, **EVERY)
    streamed = toys.config(train=STEPS, data={"resident": False}, **EVERY)
    data = toys.dataset()
    other = data
    if on_disk:
        split = feeds.as_streamed(data.train)
        other = ImageDataset(data.name, split, data.test, data.num_classes, data.provenance)
        streamed = resident
    dispatches = list(feeds.feed(resident, data, start))
    assert len(dispatches) == (8 - start) // 2
    for rows, pixels in zip(dispatches, feeds.feed(streamed, other, start), strict=True):
        np.testing.assert_array_equal(pixels["x"], data.train.images[rows["rows"]])
        np.testing.assert_array_equal(pixels["y"], data.train.labels[rows["rows"]])
        np.testing.assert_array_equal(pixels["index"], rows["index"])
