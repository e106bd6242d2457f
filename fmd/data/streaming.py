"""Sets that do not fit into memory, streamed with grain.

The order is that of `fmd.data.order`, as for sets in memory.

The batch of a step is a pure function of (seed, step), so the position in the stream is the number of the next step:
starting at any step costs nothing, and saving it is saving one number. Each host reads only its own rows of every
global batch: [process_index * b, (process_index + 1) * b) with b = batch_size / process_count.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fmd.data import images
from fmd.data.arrays import as_labels, as_part
from fmd.data.order import example_indices
from fmd.data.split import Parts, Split
from fmd.extras import need

Batch = tuple[np.ndarray, np.ndarray | Parts]
Example = Any  # whatever a source holds; `decode` makes it (image, y)
Decode = Callable[[Example], tuple[np.ndarray, Any]]


@runtime_checkable
class RandomAccess(Protocol):
    """Examples by index: any sequence, a TFDS data source, grain's ArrayRecordDataSource."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Example: ...


def image_and_label(example: Example) -> tuple[np.ndarray, Any]:
    """(image, y) of an example.

    The example is a pair, or a dictionary with `image` and `label` (0 if it has none).

    `y` is a label, or a dictionary of named parts.
    """
    if isinstance(example, dict):
        return example["image"], example.get("label", 0)
    image, y = example
    return image, y


class ImageStream:
    """An endless iterator of batches (images, y), read ahead by threads.

    The images are uint8 [b, H, W, C].

    `y` is int32 [b], or a dictionary of parts [b, ...] where the examples have them.

    Args:
        source: examples by index, with `__len__` and `__getitem__`; `__getitems__` is used where it exists.
        batch_size: of the global batch; b = batch_size / process_count.
        seed, step: of the order; the first batch is that of `step`.
        process_index, process_count: which host this is of how many.
        image_size: as in `fmd.data.images`; None where all images have one size.
        decode: from an example of the source to (image uint8 [H, W, C], label or dictionary of parts).
        limits: the number of classes of parts of kind label; larger labels are refused.
        threads: each reads one batch at a time, so up to this many finished batches wait in memory.

    Raises:
        ValueError: where grain is not installed, for an empty source, a batch that the hosts cannot share evenly, or a
            host number out of range; from `next`, for examples that are not uint8 images of one size with conditions of
            one form.
    """

    def __init__(
        self,
        source: RandomAccess,
        *,
        batch_size: int,
        seed: int,
        step: int = 0,
        process_index: int = 0,
        process_count: int = 1,
        image_size: images.Size = None,
        decode: Decode = image_and_label,
        limits: Mapping[str, int] | None = None,
        threads: int = 8,
    ) -> None:
        grain = need("grain", "stream")
        if not 0 <= process_index < process_count:
            raise ValueError(f"process_index must lie in [0, {process_count}), got {process_index}")
        if batch_size < 1 or batch_size % process_count:
            raise ValueError(f"batch_size must be a positive multiple of the {process_count} hosts, got {batch_size}")
        if len(source) == 0:
            raise ValueError("the source has no examples")
        local = batch_size // process_count
        size, shape = len(source), images.height_width(image_size)

        def read(step: int) -> Batch:
            first = step * batch_size + process_index * local
            return _read_batch(source, example_indices(seed, first, local, size), shape, decode, limits or {})

        self._identity = {"seed": seed, "batch_size": batch_size, "size": size}
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
        self._batches = iter(grain.MapDataset.range(2**62).map(read).to_iter_dataset(options))
        self.set_state({"step": step, **self._identity})

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch: Batch = next(self._batches)
        return batch

    @property
    def step(self) -> int:
        """The step whose batch `next` returns."""
        return int(self._batches.get_state()["next_index"])

    def get_state(self) -> dict[str, int]:
        """The position, a dictionary of plain integers.

        What was read ahead is not part of it.
        """
        return {"step": self.step, **self._identity}

    def set_state(self, state: dict[str, int]) -> None:
        """Go to a position saved by `get_state`.

        It may come from another number of hosts. Nothing is read.

        Raises ValueError for the state of another order (seed, batch size or number of examples) or a negative step.
        """
        differences = [f"{k} {state.get(k)} is not {v}" for k, v in self._identity.items() if state.get(k) != v]
        if differences:
            raise ValueError(f"this position belongs to another stream: {', '.join(differences)}")
        if state["step"] < 0:
            raise ValueError(f"step must not be negative, got {state['step']}")
        self._batches.set_state({"next_index": state["step"]})

    def close(self) -> None:
        """Stop the threads."""
        self._batches.close()


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """A training split that stays on disk: examples by index.

    `image_shape` is (H, W, C) of every image of the stream; `image_size`, `decode` and `limits` are as in `ImageStream`
    (`ImageDataset` sets the limits).
    """

    source: RandomAccess
    image_shape: tuple[int, int, int]
    image_size: images.Size = None
    decode: Decode = image_and_label
    limits: Mapping[str, int] = field(default_factory=dict)

    SAMPLED = 64  # examples that stand for all in the digest of a set

    def __len__(self) -> int:
        return len(self.source)

    def stream(self, **position: int) -> ImageStream:
        """The batches from a step on.

        `position` holds batch_size, seed, step, process_index and process_count.
        """
        return ImageStream(self.source, image_size=self.image_size, decode=self.decode, limits=self.limits, **position)

    def sample(self) -> list[tuple[np.ndarray, Any]]:
        """`SAMPLED` examples (image, y) or all there are, evenly spread."""
        count = min(self.SAMPLED, len(self))
        return [self.decode(e) for e in _read(self.source, [k * len(self) // count for k in range(count)])]

    def pieces(self) -> Iterator[bytes]:
        """Bytes of the sampled examples."""
        for image, y in self.sample():
            yield repr(image.shape).encode() + image.tobytes()
            for name, part in sorted(y.items() if isinstance(y, dict) else [("label", y)]):
                yield name.encode() + as_part(np.asarray(part)[None]).tobytes()


def _read(source: RandomAccess, wanted: list[int]) -> Sequence[Example]:
    read_all: Callable[[list[int]], Sequence[Example]] | None = getattr(source, "__getitems__", None)
    return read_all(wanted) if read_all else [source[index] for index in wanted]


def _read_batch(
    source: RandomAccess,
    indices: np.ndarray,
    size: tuple[int, int] | None,
    decode: Decode,
    limits: Mapping[str, int],
) -> Batch:
    pixels, conditions = zip(*map(decode, _read(source, indices.tolist())), strict=True)
    for image in pixels:
        if image.dtype != np.uint8 or image.ndim != 3:
            raise ValueError(f"the source must give uint8 images [H, W, C], got {image.dtype} {list(image.shape)}")
    if size is not None:
        pixels = tuple(images.fit_array(image, size) for image in pixels)
    if len(shapes := {image.shape for image in pixels}) > 1:
        raise ValueError(f"images of different shapes in one batch ({sorted(shapes)[:2]}, ...): set image_size")
    if isinstance(conditions[0], dict):
        y: np.ndarray | Parts = {name: as_part(np.stack([c[name] for c in conditions])) for name in conditions[0]}
    else:
        y = as_labels(np.array(conditions))
    batch = Split(np.stack(pixels), y)
    for name, limit in limits.items():
        if (worst := int(batch.parts[name].max())) >= limit:
            raise ValueError(f"the source gives the {name} {worst}, but there are {limit}: 0 to {limit - 1}")
    return batch.images, batch.y
