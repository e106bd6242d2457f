"""The facts of a run, as JSON beside its weights: enough to sample without its data or its config file.

Format 2 added the method, the noise and the schedule of sampling, and the conditions. Format 1 stays readable: what it
does not name has the default, which was the only value then.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import fmd
from fmd.blocks import Plain, as_plain, plain
from fmd.config import Config, resolve

FILE = "config.json"
FORMAT = 2


@dataclass(frozen=True)
class RunInfo:
    """Facts about a run; those of the weights that were loaded or exported come last."""

    config: Config
    image_shape: tuple[int, int, int]  # height, width, channels
    num_classes: int  # 0: no labels
    train_images: int
    averages: tuple[str, ...]
    provenance: str
    class_names: tuple[str, ...] | None = None
    empty_classes: tuple[int, ...] | None = None  # those without training images; None where every class has some
    conditions: Plain | None = None  # by part, its kind and size; None where labels are all there is
    data_digest: str | None = None
    teacher: str | None = None  # digest of the weights of a frozen teacher
    fmd_version: str = fmd.__version__
    step: int | None = None  # training steps that the weights have seen
    average: str | None = None  # of the weights
    cost: Plain | None = None  # of training them: see fmd.checkpoints.spent
    sampler: Plain | None = None  # of an export: what its portable program holds

    @property
    def can_be_guided(self) -> bool:
        """True where the network was trained both with its condition and without."""
        parts = self.conditions or (["label"] if self.num_classes else [])
        return bool(parts) and (self.config.train.label_dropout > 0 or all(map(self.is_dropped_alone, parts)))

    def is_dropped_alone(self, part: str) -> bool:
        """True where the network was trained without this part of its condition while it was told the others."""
        train, parts = self.config.train, self.conditions or ["label"]
        return bool(train.part_dropout.get(part, 0) > 0 or (list(parts) == [part] and train.label_dropout > 0))

    @property
    def classes(self) -> list[int]:
        """The labels that the network was trained with; 0 alone without labels."""
        return [label for label in range(max(self.num_classes, 1)) if label not in (self.empty_classes or ())]

    def label_of(self, name: str) -> int | None:
        """The label of a class by its name, by its number, or of `null`; None for anything else."""
        if self.class_names is not None and name in self.class_names:
            return self.class_names.index(name)
        if name == "null":
            return self.num_classes
        return int(name) if name.strip().isdecimal() and int(name) < 2**31 else None

    def replace(self, **changes: Any) -> "RunInfo":
        return replace(self, **changes)

    def to_json(self) -> Plain:
        """Plain values; what is None of the weights, and what older formats lack, is left out."""
        values = {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name != "config"}
        optional = ("conditions", "empty_classes", "data_digest", "teacher", "step", "average", "cost", "sampler")
        kept = {key: value for key, value in values.items() if value is not None or key not in optional}
        return {"format": FORMAT, **kept, "config": as_plain(self.config)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RunInfo":
        """From what `to_json` gave, of this format or an older one. ValueError or KeyError for anything else."""
        known = {f.name for f in fields(cls)}
        found = {key: value for key, value in values.items() if key in known}
        for key in ("image_shape", "averages", "class_names", "empty_classes"):
            found[key] = None if found.get(key) is None else tuple(found[key])
        return cls(**{**found, "config": resolve(found["config"])})


def read_run_info(folder: str | Path) -> RunInfo:
    """The info of the run or export in a folder.

    Raises ValueError when the file is missing, unreadable, or of a newer format.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise ValueError(f"{folder} holds no fmd model: there is no {FILE} in it; give a workdir or an exported folder")
    try:
        values = json.loads(path.read_text())
        version = values["format"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged or was not written by fmd; restore it from a copy") from None
    if version not in range(1, FORMAT + 1):
        raise ValueError(f"{path} has format {version}; this fmd reads 1 to {FORMAT}: install a version that fits")
    try:
        return RunInfo.from_json(values)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__} at {error}; restore it from a copy") from None
    except ValueError as error:  # of a config that no fmd would write
        raise ValueError(f"{path} is damaged, or of another fmd: {error}") from None
