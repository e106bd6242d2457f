"""A set prepared for streaming: array_record shards of raw pixels, and an index.

    PATH/train-00000.array_record ...     a record is a row of `Form.dtype`: the pixels, then each part of the condition
    PATH/test-00000.array_record ...
    PATH/index.json                       written last: the form, the classes, and the check sum of each shard

Pixels are not compressed: a core reads ten times as many images of 256 px in a second as it decodes JPEG files, and
JPEG would change them again (`experiments/benchmarks/streaming.py` measures it). An image of 256 px takes 197 kB.
"""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from fmd.data.arrays import as_part
from fmd.data.split import named
from fmd.extras import need
from fmd.files import printable

INDEX, UNFINISHED = "index.json", "unfinished.json"
FORMAT = 1  # of the shards and the index
PIXELS = "pixels"
AGAIN = "run the same command with --mode=prepare again, which writes it anew"


@dataclass(frozen=True)
class Form:
    """The form of a record: the shape of the image, and the type and shape of each part.

    `parts` is None where the condition is a label alone. A row has them in the order of their names, as JSON does.
    """

    image_shape: tuple[int, ...]
    parts: dict[str, tuple[str, tuple[int, ...]]] | None

    @classmethod
    def of(cls, image: np.ndarray, y: Any) -> "Form":
        """The form of an example."""
        if not isinstance(y, dict):
            return cls(image.shape, None)
        arrays = {name: as_part(np.asarray(part)[None]) for name, part in y.items()}
        return cls(image.shape, {name: (part.dtype.str, part.shape[1:]) for name, part in arrays.items()})

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Form":
        """The form that `dataclasses.asdict` and JSON made of one."""
        parts = value["parts"]
        given = None if parts is None else {name: (kind, tuple(shape)) for name, (kind, shape) in parts.items()}
        return cls(tuple(value["image_shape"]), given)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of a row."""
        parts = {"label": ("<i4", ())} if self.parts is None else self.parts
        fields = [(f"y.{name}", kind, shape) for name, (kind, shape) in sorted(parts.items())]
        return np.dtype([(PIXELS, "u1", self.image_shape), *fields])

    def encode(self, image: np.ndarray, y: Any) -> bytes:
        """The record of an example. Raises ValueError for an example of another form."""
        found = Form.of(image, y)
        if image.dtype != np.uint8 or found != self:
            raise ValueError(f"examples of different forms: uint8 {self}, and {image.dtype} {found}; set image_size")
        row = np.zeros(1, self.dtype)
        row[PIXELS][0] = image
        for name, part in named(y).items():
            row[f"y.{name}"][0] = part
        return row.tobytes()

    def decode(self, record: bytes) -> tuple[np.ndarray, Any]:
        """(image, y) of a record."""
        row = np.frombuffer(record, self.dtype)[0]
        if self.parts is None:
            return row[PIXELS], row["y.label"]
        return row[PIXELS], {name: row[f"y.{name}"] for name in self.parts}


@dataclass(frozen=True)
class Shard:
    """A file of records: how many, its length, its check sum, and how many images of each class."""

    records: int
    bytes: int
    digest: str
    counts: list[int]


@dataclass(frozen=True)
class Index:
    """All that `index.json` says.

    Attributes:
        plan: what is prepared; a folder is gone on with where this is the same.
        about: name, num_classes, class_names, conditions and provenance of the set.
        form: of each record.
        shards: those that are finished, by the names of their files.
    """

    plan: dict[str, Any]
    about: dict[str, Any]
    form: Form
    shards: dict[str, Shard]

    def of(self, split: str) -> dict[str, Shard]:
        """The shards of a split, in order."""
        return {name: shard for name, shard in sorted(self.shards.items()) if name.startswith(f"{split}-")}


def read_index(path: Path) -> Index:
    """The index in a file. Raises ValueError for one that is damaged or of another format."""
    try:
        found = json.loads(path.read_text())
        if found["plan"]["format"] != FORMAT:
            raise ValueError(f"it has format {found['plan']['format']}, this version reads {FORMAT}")
        shards = {name: Shard(**one) for name, one in found["shards"].items()}
        return Index(found["plan"], found["about"], Form.from_json(found["form"]), shards)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{printable(path)} is no index of prepared data ({error}): remove the folder and prepare it anew"
        ) from None


class Records:
    """The records of some shards by index: bytes. A shard is opened when it is first read, anew in each process."""

    def __init__(self, folder: Path, shards: Mapping[str, Shard], length: int) -> None:
        source = need("array_record.python.array_record_data_source", "stream").ArrayRecordDataSource
        self._length = length
        self._files = [
            SimpleNamespace(filename=str(folder / name), skip=0, take=shard.records, examples_in_shard=shard.records)
            for name, shard in shards.items()
        ]
        self._source = source(self._files)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> bytes:
        try:
            record: bytes = self._source[index]
            if len(record) != self._length:
                raise RuntimeError(f"a record of {len(record)} bytes in place of {self._length}")
        except (RuntimeError, IndexError, ValueError) as error:
            ends = itertools.accumulate(file.take for file in self._files)
            name = next(file.filename for file, end in zip(self._files, ends, strict=True) if index < end)
            reason = (str(error).splitlines() or [""])[0][:120]
            raise ValueError(f"{printable(name)} is damaged ({reason}): {AGAIN}") from None
        return record
