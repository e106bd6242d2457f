"""Many image files decoded to one array, on all cores, and kept on disk for the next start.

Whatever a file is like, it costs at most itself: what cannot be decoded is left out with a reason.
"""

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from fmd.data import images
from fmd.data.cache import fingerprint, kept_arrays
from fmd.files import digest, printable, some

T = TypeVar("T")
R = TypeVar("R")

FORMAT = 2  # of the kept arrays; raise it when the decoding changes
DEPTHS = (8, 10, 12, 14, 16)  # bits that 16-bit grey may use


@dataclass(frozen=True)
class Decoded:
    """Pixels of the files that could be decoded.

    Attributes:
        images: uint8 [M, H, W, C], in the order of the files.
        reasons: [N]; why a file is left out, "" where it is not.
        pages: int [N]; how many pictures each file holds, of which the first is taken.
        bits: how many bits the 16-bit files use; 0 without such files.
    """

    images: np.ndarray
    reasons: list[str]
    pages: np.ndarray
    bits: int

    @property
    def good(self) -> np.ndarray:
        """Mask bool [N] of the files that are in `images`."""
        return np.array([not reason for reason in self.reasons])


def decode(
    files: Sequence[Path], size: tuple[int, int] | None, channels: int | None, name: str, *, threads: int | None = None
) -> Decoded:
    """The files as one array, from the cache folder where the same files were decoded before.

    Args:
        files: what to decode.
        size: (height, width) of the result; None where all files have one size.
        channels: 1 or 3; None where all files agree.
        name: for people who look into the cache folder.
        threads: as many as there are cores by default.

    Raises:
        ValueError: for mixed sizes or channel counts, and where no file can be decoded.
    """
    found = kept_arrays(
        name,
        ["files", FORMAT, size, channels, _contents(files, threads)],
        lambda: _decode(files, size, channels, threads),
    )
    return Decoded(found["images"], [str(reason) for reason in found["reasons"]], found["pages"], int(found["bits"]))


def by_reason(files: Sequence[Path], reasons: Sequence[str], root: Path) -> str:
    """The files left out, counted by reason: "2 x image file is truncated (a/0.png, b/3.png)"."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for file, reason in zip(files, reasons, strict=True):
        if reason:
            groups[reason].append(printable(os.path.relpath(file, root)))
    largest_first = sorted(groups.items(), key=lambda item: -len(item[1]))
    return "; ".join(f"{len(names)} x {reason} ({some(names)})" for reason, names in largest_first)


def _contents(files: Sequence[Path], threads: int | None) -> list[str]:
    """The digest of each file, "" for one that cannot be read. They are kept on disk until a file is touched."""

    def build() -> dict[str, np.ndarray]:
        found = _each(digest, files, "reading files", threads)
        return {"digests": np.array([d if isinstance(d, str) else "" for d in found])}

    return [str(code) for code in kept_arrays("contents", ["contents", FORMAT, fingerprint(files)], build)["digests"]]


def _decode(
    files: Sequence[Path], size: tuple[int, int] | None, channels: int | None, threads: int | None
) -> dict[str, np.ndarray]:
    headers = _each(images.probe, files, "reading headers", threads)
    reasons = ["" if isinstance(header, images.Header) else images.reason(header) for header in headers]
    shape = _common_shape(files, headers, reasons, size, channels)
    top = max(header.top for header in headers if isinstance(header, images.Header))
    bits = next(depth for depth in DEPTHS if top < 2**depth)
    pixels = np.zeros((len(files), *shape), np.uint8)

    def fill(numbered: tuple[int, Path]) -> None:
        number, file = numbered
        if not reasons[number]:
            pixels[number] = images.read(file, shape[:2], shape[2], bits)

    for number, failed in enumerate(_each(fill, list(enumerate(files)), "decoding images", threads)):
        if isinstance(failed, Exception):
            reasons[number] = images.reason(failed)
    _need_one(files, reasons)
    return {
        "images": pixels[[not reason for reason in reasons]] if any(reasons) else pixels,
        "reasons": np.array(reasons),
        "pages": np.array([header.pages if isinstance(header, images.Header) else 0 for header in headers]),
        "bits": np.array(bits if top else 0),
    }


def _common_shape(
    files: Sequence[Path],
    headers: Sequence[images.Header | Exception],
    reasons: list[str],
    size: tuple[int, int] | None,
    channels: int | None,
) -> tuple[int, int, int]:
    """(height, width, channels) of the result. A file that differs is tried: damage may have changed its header."""
    _need_one(files, reasons)
    known = [
        (number, (*(size or header.shape[:2]), channels or header.shape[2]))
        for number, header in enumerate(headers)
        if isinstance(header, images.Header)
    ]
    common, _ = Counter(shape for _, shape in known).most_common(1)[0]
    one = printable(files[next(number for number, shape in known if shape == common)])
    for number, (height, width, depth) in known:
        if (height, width, depth) == common:
            continue
        try:
            images.read(files[number], (height, width), depth)
        except Exception as error:  # whatever a plugin raises
            reasons[number] = images.reason(error)
            continue
        other = printable(files[number])
        if depth != common[2]:
            raise ValueError(
                f"mixed channel counts: {one} has {common[2]}, {other} has {depth}; set channels to 1 or 3 to convert"
            )
        raise ValueError(
            f"images of different sizes: {one} is {common[0]}x{common[1]}, {other} is {height}x{width}; "
            f"set image_size to resize them"
        )
    return common


def _need_one(files: Sequence[Path], reasons: Sequence[str]) -> None:
    if all(reasons):
        root = Path(os.path.commonpath([file.parent for file in files]))
        raise ValueError(f"none of the {len(files)} image files can be read: {by_reason(files, reasons, root)}")


def _each(function: Callable[[T], R], items: Sequence[T], what: str, threads: int | None) -> list[R | Exception]:
    """`function` of every item on all cores, or the exception it raises, with a progress bar.

    An interrupt ends it as soon as the items in work are done.
    """
    from tqdm import tqdm

    def attempt(item: T) -> R | Exception:
        try:
            return function(item)
        except Exception as error:  # whatever a plugin raises
            return error

    with warnings.catch_warnings(), ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # Pillow's, of odd metadata
        try:
            results = pool.map(attempt, items)
            return list(tqdm(results, total=len(items), desc=what, unit="file", leave=False, disable=None))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
