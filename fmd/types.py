"""Array and function types, each named once.

B is the batch, H x W x C an image. Times run from 0 (noise) to 1 (data).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Real, Shaped, UInt8

Number = float | int
"""A Python number: a parameter fixed when a function is built."""

Scalars = Real[Array, "..."] | Real[np.ndarray, "..."] | np.floating | np.integer | float | int
"""A real number or an array of them: times, log signal-to-noise ratios, weights."""

Times = Float[Array, "..."]
"""Times in [0, 1], float32 or wider: a scalar or one per example."""

Images = Float[Array, "B ..."]
"""Floats [B, ...]; images are [B, H, W, C], nominally in [-1, 1]."""

Pixels = UInt8[Array, "B ..."]
"""uint8 [B, H, W, C], as files hold them."""

Labels = Int[Array, " B"]
"""int32 [B] in [0, num_classes]; `num_classes` is the null label."""

Index = Int[Array, " B"]
"""int32 [B]: the number of each example in the global batch, or in a whole request."""

Mask = Bool[Array, " B"]
"""bool [B]."""

TypedKey = Key[Array, ""]
"""`jax.random.key(seed)`."""

Params: TypeAlias = PyTree[object]
"""The parameters of a network, or a tree of their structure."""

Condition: TypeAlias = PyTree[object]
"""All that a network is told beside x and t: labels [B], or a dictionary of named parts, each [B, ...] (see `Told`)."""

Field = Callable[..., PyTree]
"""field(t, x, args=None) -> dx/dt, t a scalar or [B], x [B, ...]."""


class Told(NamedTuple):
    """A part of a condition with a mark for each example: where `told` is False the network is not told it."""

    value: Shaped[Array, "B ..."]
    told: Mask


@runtime_checkable
class Network(Protocol):
    """A network with its parameters: all that a method knows of a model."""

    def __call__(
        self, x: Images, t: Times, y: Condition, r: Times | None = None, w: Float[Array, " B"] | None = None
    ) -> Images:
        """The prediction [B, ...] for x at t [B]; for the step from t to r where the network has a second time.

        `w` is the guidance weight of each example, for networks that were trained with several.
        """
        ...

    def drop(self, y: Condition, mask: Mask | None = None, parts: Sequence[str] | None = None) -> Condition:
        """`y` untold where mask says so (everywhere by default), all of it or the named parts.

        Every result has the same structure, so that told and untold conditions can be stacked.
        """
        ...


@runtime_checkable
class Rng(Protocol):
    """The random numbers of one step, by the name of their use: functions of (seed, step, index of the example)."""

    @property
    def index(self) -> Index:
        """The place of each example in the global batch."""
        ...

    @property
    def batch_size(self) -> int:
        """Of the global batch."""
        ...

    @property
    def step(self) -> Int[Array, ""] | int:
        """Of the training, from 0."""
        ...

    def key(self, name: str) -> TypedKey:
        """The key of one use, the same on every device."""
        ...

    def normal(self, name: str, shape: tuple[int, ...]) -> Float[Array, "B ..."]:
        """Standard normal numbers [B, *shape], float32."""
        ...

    def uniform(self, name: str) -> Float[Array, " B"]:
        """Uniform numbers in [0, 1), float32."""
        ...

    def whole_batch(self, function: Callable[..., PyTree], *parts: PyTree) -> PyTree:
        """`function(*parts)` of the global batch, cut to the examples at hand."""
        ...
