"""Features of a TFDS set as parts of a condition.

class label, whole number          label     a class label says how many there are
truth value                        label     0 or 1
float                              number
numbers [D], or by name            vector    those by name in the order of their names
truth values [K], or by name       labels    the same
image, or numbers [h, w, C]        image
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from absl import logging

from fmd.data import images
from fmd.data.cache import Arrays
from fmd.data.parts import ON_GRID, Spec, as_kind, own_size
from fmd.data.reading import Example

Builder: TypeAlias = Any  # tensorflow_datasets.core.DatasetBuilder; that package has no types
Feature: TypeAlias = Any


class Features:
    """The features of a set that are told; `wanted` has the spec of each, as far as it was given or the set says it.

    Args:
        builder: of the set.
        asked: the specs that were given, by feature.
        size: (height, width) of images where a spec says no other; None where all have one size.

    Raises ValueError for a feature that the set does not have, or that is of no kind.
    """

    def __init__(self, builder: Builder, asked: Mapping[str, Spec], size: tuple[int, int] | None) -> None:
        self.size, self.wanted = size, {name: _spec(builder, name, given) for name, given in asked.items()}

    def of(self, example: Example) -> dict[str, np.ndarray]:
        """The parts of one example, as a split has them without their first axis.

        Raises ValueError for values that are not of the kind.
        """
        found = {}
        for name, given in self.wanted.items():
            value = example[name]
            if isinstance(value, Mapping):
                value = [value[key] for key in sorted(value)]
            value = np.asarray(value)
            if given["kind"] in ON_GRID and value.dtype == np.uint8:
                value = images.fit_array(value, own_size(given, self.size))
            found[name] = as_kind(value[None], name, given)[0]
        return found

    def stacked(self, parts: Sequence[Mapping[str, np.ndarray]]) -> Arrays:
        """The parts of all examples, called told_NAME. Raises ValueError for images of different sizes."""
        for name in self.wanted:
            if len({part[name].shape for part in parts}) > 1:
                raise ValueError(f"condition {name!r} has images of different sizes: set image_size")
        return {f"told_{name}": np.stack([part[name] for part in parts]) for name in self.wanted}


def keys(builder: Builder, told: Collection[str] = ()) -> tuple[str, str | None]:
    """The keys of the image and of the class label, if there is one, among features that are not told as conditions.

    Raises ValueError where there is not one image, or there are several class labels.
    """
    from tensorflow_datasets import features

    found = {key: feature for key, feature in builder.info.features.items() if key not in told}
    image_keys = [key for key in found if isinstance(found[key], features.Image)]
    label_keys = [key for key in found if isinstance(found[key], features.ClassLabel)]
    supervised = builder.info.supervised_keys or ()
    image_keys = [key for key in image_keys if key in supervised] or image_keys
    label_keys = [key for key in label_keys if key in supervised] or label_keys
    if len(image_keys) != 1 or len(label_keys) > 1:
        raise ValueError(
            f"TFDS set {builder.info.name} is not for image classification: one image and at most one class label are "
            f"needed, its features are {', '.join(sorted(found))}; name others of these kinds as conditions"
        )
    return image_keys[0], label_keys[0] if label_keys else None


def _spec(builder: Builder, name: str, given: Spec) -> Spec:
    """The spec of a feature: what is given, and what the set says of the same kind."""
    from tensorflow_datasets import features

    info = builder.info
    if name not in info.features:
        raise ValueError(f"TFDS set {info.name} has no feature '{name}', only: {', '.join(sorted(info.features))}")
    feature = info.features[name]
    usual = _usual(feature)
    if isinstance(feature, features.FeaturesDict) and usual:
        logging.info("TFDS set %s: %s: %s", info.name, name, ", ".join(sorted(feature)))
    if "kind" not in (usual | given):
        raise ValueError(
            f"TFDS set {info.name}: feature '{name}', of type {type(feature).__name__}, is of no kind that can be "
            f"told: leave it out, or say its kind"
        )
    return usual | given if given.get("kind") in (None, usual.get("kind")) else given


def _usual(feature: Feature) -> Spec:
    """The kind of a feature with what is known of it; empty where it has none."""
    from tensorflow_datasets import features

    if isinstance(feature, features.Image):
        return {"kind": "image"}
    if isinstance(feature, features.ClassLabel):
        return {"kind": "label", "num_classes": feature.num_classes}
    if isinstance(feature, features.FeaturesDict):
        inner = list(feature.values())
        if not inner or any(isinstance(one.shape, dict) or one.shape != () for one in inner):
            return {}
        types, shape = {np.dtype(one.np_dtype).kind for one in inner}, (len(inner),)
    else:
        types, shape = {np.dtype(feature.np_dtype).kind}, feature.shape
    if None in shape or not types <= set("biuf"):
        return {}
    if len(shape) == 0:
        truth: Spec = {"num_classes": 2} if types == {"b"} else {}
        return {"kind": "number"} if types == {"f"} else {"kind": "label", **truth}
    if len(shape) == 1:
        return {"kind": "labels" if types == {"b"} else "vector"}
    return {"kind": "image"} if len(shape) == 3 else {}
