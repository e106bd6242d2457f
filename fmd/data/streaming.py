"""Sets that do not fit into memory, streamed in the order of `fmd.data.order`.

The batch of a step is a pure function of (seed, step), so the position in the stream is the number of the next step:
starting at any step costs nothing, and saving it is saving one number. Each host reads only its own rows of every
global batch: [process_index * b, (process_index + 1) * b) with b = batch_size / process_count.

Threads read ahead, or processes. Pillow decodes outside the interpreter's lock, so that threads do for a few cores;
processes share no lock, and hand batches over in shared memory.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fmd.data import images
from fmd.data.ahead import Ahead
from fmd.data.arrays import as_part
from fmd.data.reading import Batch, Decode, RandomAccess, Read, decoded, image_and_label, read
from fmd.data.split import named, spread
from fmd.data.workers import AHEAD, Workers, need_shared_memory


class ImageStream:
    """An endless iterator of batches (images, y), read ahead by threads or processes.

    The images are uint8 [b, H, W, C]. `y` is int32 [b], or a dictionary of parts [b, ...] where the examples have them.

    Args:
        source: examples by index, with `__len__` and `__getitem__`; `__getitems__` is used where it exists.
        batch_size: of the global batch; b = batch_size / process_count.
        seed, step: of the order; the first batch is that of `step`.
        process_index, process_count: which host this is of how many.
        image_size: as in `fmd.data.images`; None where all images have one size.
        decode: from an example of the source to (image uint8 [H, W, C], label or dictionary of parts). In place of an
            example for which it raises `Unreadable` the next one of the source is taken, with a warning.
        limits: the number of classes of parts of kind label; larger labels are refused.
        threads: each reads one batch at a time, so up to this many batches are under way or wait in memory.
        workers: processes that read in place of the threads, each one batch at a time; 0 for threads. They get a copy
            of `source` and `decode` by pickle. The batches are the same.

    Raises:
        ValueError: for an empty source, a batch that the hosts cannot share evenly, or a host number out of range; from
            `next`, for examples that are not uint8 images of one size with conditions of one form.
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
        workers: int = 0,
    ) -> None:
        if not 0 <= process_index < process_count:
            raise ValueError(f"process_index must lie in [0, {process_count}), got {process_index}")
        if batch_size < 1 or batch_size % process_count:
            raise ValueError(f"batch_size must be a positive multiple of the {process_count} hosts, got {batch_size}")
        if len(source) == 0:
            raise ValueError("the source has no examples")
        self._identity = {"seed": seed, "batch_size": batch_size, "size": len(source)}
        size, local = images.height_width(image_size), batch_size // process_count
        self._read = Read(source, decode, seed, batch_size, process_index, local, size, dict(limits or {}))
        self._threads, self._workers = threads, workers
        self._batches = self._begin(step)

    def _begin(self, step: int) -> Workers | Ahead[Batch]:
        """An iterator of the batches from a step on; nothing is read before its first `next`."""
        self.step = step
        if self._workers:
            return Workers(self._read, step, self._workers)
        return Ahead(ThreadPoolExecutor(self._threads), self._read, step, self._threads)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self.step += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """The position, a dictionary of plain integers. What was read ahead is not part of it."""
        return {"step": self.step, **self._identity}

    def set_state(self, state: dict[str, int]) -> None:
        """Go to a position saved by `get_state`, of any number of hosts. Nothing is read.

        Raises ValueError for the state of another order (seed, batch size or number of examples) or a negative step.
        """
        differences = [f"{k} {state.get(k)} is not {v}" for k, v in self._identity.items() if state.get(k) != v]
        if differences:
            raise ValueError(f"this position belongs to another stream: {', '.join(differences)}")
        if state["step"] < 0:
            raise ValueError(f"step must not be negative, got {state['step']}")
        self.close()
        self._batches = self._begin(state["step"])

    def close(self) -> None:
        """Stop the threads or processes."""
        self._batches.close()


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """A training split that stays on disk: examples by index.

    `image_shape` is (H, W, C) of every image of the stream; `image_size`, `decode` and `limits` are as in `ImageStream`
    (`ImageDataset` sets the limits). `counts` are the images of each class [num_classes], where the source knows them;
    `identity` is a text that changes with the examples, where the source has a cheap one, such as their check sums.
    """

    source: RandomAccess
    image_shape: tuple[int, int, int]
    image_size: images.Size = None
    decode: Decode = image_and_label
    limits: Mapping[str, int] = field(default_factory=dict)
    counts: np.ndarray | None = None
    identity: str = ""

    SAMPLED = 64  # examples that stand for all in the digest of a set

    def __len__(self) -> int:
        return len(self.source)

    def stream(self, *, workers: int = 0, **position: int) -> ImageStream:
        """The batches from a step on; `position` holds batch_size, seed, step, process_index and process_count.

        Raises ValueError where the shared memory is too small for the batches that `workers` processes read ahead.
        """
        local = position["batch_size"] // position.get("process_count", 1)
        need_shared_memory(AHEAD * workers * local * int(np.prod(self.image_shape)))
        return ImageStream(
            self.source,
            image_size=self.image_size,
            decode=self.decode,
            limits=self.limits,
            workers=workers,
            **position,
        )

    def __getitem__(self, index: int) -> tuple[np.ndarray, Any]:
        """(image, y) of one example. Raises `Unreadable` where it cannot be decoded."""
        image, y = self.decode(read(self.source, [index])[0])
        return images.fit_array(image, images.height_width(self.image_size)), y

    def sample(self) -> list[tuple[np.ndarray, Any]]:
        """`SAMPLED` examples (image, y) or all there are, evenly spread."""
        wanted = spread(self.SAMPLED, len(self)).tolist()
        return [decoded(self.source, self.decode, *one) for one in zip(wanted, read(self.source, wanted), strict=True)]

    def pieces(self) -> Iterator[bytes]:
        """Bytes that stand for the split: its identity, and the sampled examples."""
        if self.identity:
            yield self.identity.encode()
        for image, y in self.sample():
            yield repr(image.shape).encode() + image.tobytes()
            for name, part in sorted(named(y).items()):
                yield name.encode() + as_part(np.asarray(part)[None]).tobytes()
