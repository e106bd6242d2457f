"""Requests to a sampler, checked: conditions, noise, settings, and whose code a folder asks to run."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from fmd.config import Settings
from fmd.files import some
from fmd.math import solvers
from fmd.methods import Method
from fmd.models import conditions
from fmd.run_info import RunInfo
from fmd.types import Condition


def condition(y: Condition, info: RunInfo) -> tuple[Condition, int]:
    """The condition as host arrays, and the number of its examples.

    Raises ValueError for one that the model of `info` does not take.
    """
    told = info.conditions
    y = jax.tree.map(np.asarray, y if isinstance(y, dict) or hasattr(y, "dtype") else np.asarray(y))
    leaves = jax.tree.leaves(y)
    if told is not None:
        count = len(leaves[0]) if leaves and leaves[0].ndim else 0
        conditions.check(y, told, info.num_classes, count)
        for name, spec in told.items():
            if spec["kind"] == "label":
                _null(y[name], int(spec["num_classes"]), info)
        return y, count
    labels = leaves[0] if len(leaves) == 1 else np.zeros(0)
    if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels must be a list of one or more whole numbers, e.g. [3, 1], not {labels.dtype} {labels.shape}"
        )
    if info.num_classes == 0 and labels.any():
        raise ValueError("labels must all be 0: this model was trained without labels and takes 0 alone")
    if (unknown := (labels < 0) | (labels > info.num_classes)).any():
        raise ValueError(
            f"label {labels[unknown][0]}; this model knows 0 to {info.num_classes - 1}, and {info.num_classes} for an "
            f"unconditional image"
        )
    if info.num_classes:
        _null(labels, info.num_classes, info)
    return labels.astype(np.int32), len(labels)


def _null(labels: np.ndarray, null: int, info: RunInfo) -> None:
    """Raises ValueError for a null label among `labels` that the model never saw."""
    if labels.max() == null and not info.can_be_guided:
        raise ValueError(
            f"label {null} asks for an unconditional image, but this model was trained with "
            f"train.label_dropout = 0 and never saw one"
        )


def noise(given: Any, key: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """The noise to start from as float32, None where a key draws it. ValueError for both, none, or another shape."""
    if (given is None) == (key is None):
        raise ValueError("a sampler starts from a key, jax.random.key(seed), or from noise=...: give one of the two")
    if given is None:
        check_key(key)
        return None
    array = np.asarray(given)
    if array.shape != shape or not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"noise must be floats of shape {shape}, one image per label, not {array.dtype} {array.shape}")
    return array.astype(np.float32)


def check_key(key: Any) -> None:
    """Raises ValueError for what is no key of JAX."""
    if not isinstance(key, jax.Array):
        raise ValueError(f"key={key!r}; give a key of JAX, jax.random.key(seed)")


def check(method: Method, info: RunInfo, settings: Settings) -> None:
    """Raises ValueError for settings that the method or the model does not allow."""
    weight = settings.weight
    if isinstance(weight, str) or not np.isfinite(weight):
        raise ValueError(f"guidance weight is {weight!r}; it must be a number: 1 is conditional, 0 unconditional")
    check_weights(info, settings)
    refuse = getattr(method, "check", None)
    if refuse is not None:
        refuse(settings)
    undropped: tuple[str, ...] = getattr(method, "undropped", ())
    if weight != 1.0 and info.conditions and not info.conditions.keys() - set(undropped):
        raise ValueError(
            f"guidance weight {weight} has no effect: the network is told nothing but {undropped[0]!r}, which method "
            f"{info.config.method.name!r} as it is set does not leave out; use weight 1"
        )
    if weight != 1.0 and not info.can_be_guided and "weak" not in settings.guidance:
        raise ValueError(
            f"guidance weight {weight} needs a model trained with labels and train.label_dropout > 0 (this "
            f"one: {info.num_classes} classes, dropout {info.config.train.label_dropout}); use weight 1"
        )


def check_weights(info: RunInfo, settings: Settings) -> None:
    """Raises ValueError for guidance weights of parts that the model does not have, or never did without."""
    weights = settings.guidance.get("weights")
    if not weights:
        return
    if not isinstance(weights, Mapping):
        raise ValueError(f"guidance.weights = {weights!r}; name a part with its weight, e.g. weights.image=1.5")
    parts = list(info.conditions or ["label"])
    for name, weight in weights.items():
        if name not in parts:
            raise ValueError(f"guidance.weights names {name!r}; the model is told {', '.join(parts)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not np.isfinite(weight):
            raise ValueError(f"guidance.weights.{name} = {weight!r}; it must be a number: 1 is told, 0 untold")
        if not info.is_dropped_alone(name):
            raise ValueError(
                f"guidance.weights.{name} needs a model that was trained without {name!r} at times: "
                f"--config.train.part_dropout.{name}=0.1"
            )
    if settings.weight not in (0, 1) or "weak" in settings.guidance:
        other = "guidance.weak" if "weak" in settings.guidance else f"guidance weight {settings.weight}"
        raise ValueError(f"{other} beside guidance.weights: each part has a weight of its own; leave one of them out")


def refuse_without_effect(settings: Settings, given: Iterable[str]) -> None:
    """Raises ValueError where `steps` is among the settings that somebody gave, and the solver chooses its own."""
    if settings.solver in solvers.ADAPTIVE and "steps" in given:
        raise ValueError(
            f"steps = {settings.steps} has no effect with {settings.solver!r}, which chooses its own steps; leave it "
            f"out, give a tolerance, or take a solver with steps: {', '.join(solvers.FIXED)}"
        )


def refuse_other(what: str, theirs: RunInfo, ours: RunInfo) -> None:
    """Raises ValueError where a model, `what` it is, has other images, classes or conditions than this one.

    Other training data, by their digest, are worth a warning.
    """
    for key in ("image_shape", "num_classes", "conditions"):
        if getattr(theirs, key) != getattr(ours, key):
            raise ValueError(
                f"{what}: its {key} is {getattr(theirs, key)}, this model's {getattr(ours, key)}; give a model of the "
                f"same images"
            )
    if renamed := renamed_classes(theirs.class_names, ours.class_names):
        raise ValueError(f"{what}: its classes are not this model's: {renamed}; give a model of the same images")
    if None not in (digests := {theirs.data_digest, ours.data_digest}) and len(digests) > 1:
        logging.warning("%s: it was trained on other data than this model", what)


def renamed_classes(old: Sequence[str] | None, new: Sequence[str] | None) -> str:
    """The classes of another name, `was -> is`; empty where there are none, or names are not known."""
    return some([f"{was} -> {now}" for was, now in zip(old or (), new or (), strict=False) if was != now])


def refuse_imports(path: str | Path, info: RunInfo) -> None:
    """Raises ValueError where the info in a folder names modules that are not imported already."""
    if strange := [name for name in info.config.imports if name not in sys.modules]:
        raise ValueError(
            f"{path} asks to import {', '.join(strange)}, which runs the code of whoever made it; if you trust it, "
            f"give trust=True (--trust on the command line), or import it yourself first"
        )
