"""The protocol of a method: what is drawn, what is regressed, and how one samples.

A method is a frozen dataclass whose fields are keys of `config.method` (or of `config.path` and `config.train`, where
their names are those of `SHARED`), registered by name:

    @fmd.methods.register("mine")
    @dataclass(frozen=True)
    class Mine:
        schedule: Schedule = schedules.get("linear")
        second_time, needs_teacher = False, False
        def draw(self, rng, x1, y): ...
        def loss(self, network, drawn, teacher=None): ...
        def sample(self, network, x0, y, settings): ...

A method may also have `check(settings)`, which refuses settings before anything is computed, `logs`, the names of the
figures that its loss reports, `field(network)`, the velocity field behind it, where likelihoods are defined,
`frozen_teacher`, True where its teacher is the velocity of the model that `config.teacher` names, and `validated`, the
method whose loss is the validation loss. With `needs_critic` a second network of the same kind is trained beside, by
the same loss, which gets it as `critic`; its learning rate is `critic_rate` times that of the network. `no_field` says
why there is no `field`, `undropped` names the parts of a condition that label dropout and guidance leave in place, and
`solves` is False where sampling solves no equation, so that solver and steps do not count.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, PyTree

from fmd.config import Settings
from fmd.math.schedules import Schedule
from fmd.math.simulators import Solution
from fmd.types import Condition, Field, Images, Mask, Network, Rng, Times


class Drawn(NamedTuple):
    """The draw of most methods: a pair, its time, whose condition is not told. All leaves are [B, ...].

    `r` is the second time of methods that have one, `derivative` the share of a derivative along the path in a target,
    `weight` the guidance weight that the network is told, `z` the noise of an interpolant.
    """

    x0: Images
    x1: Images
    y: Condition
    t: Times
    untold: Mask
    r: Times | None = None
    derivative: Times | None = None
    weight: Float[Array, " B"] | None = None
    z: Images | None = None


class Loss(NamedTuple):
    """The loss of each example, the time at which it was seen, and further figures by name, each [B] float32."""

    value: Float[Array, " B"]
    t: Float[Array, " B"]
    figures: Mapping[str, Float[Array, " B"]] = {}


@runtime_checkable
class Flow(Protocol):
    """A method with a velocity field, and so with a density."""

    @property
    def schedule(self) -> Schedule:
        """Of the path; its `prior_std` is that of the noise."""
        ...

    def field(self, network: Network) -> Field:
        """The velocity field(t, x, y) without guidance."""
        ...


@runtime_checkable
class Method(Protocol):
    """How to train a network and how to draw with it; see the module's text."""

    second_time: bool  # the network is told r, too
    needs_teacher: bool  # `loss` asks a teacher: the averaged network, or a frozen one

    def draw(self, rng: Rng, x1: Images, y: Condition) -> PyTree:
        """All that is random in a step, a pytree whose leaves are [B, ...]."""
        ...

    def loss(self, network: Network, drawn: PyTree, teacher: Network | None = None) -> Loss:
        """The loss of each example of what was drawn."""
        ...

    def sample(self, network: Network, x0: Images, y: Condition, settings: Settings) -> Solution:
        """Images from standard normal noise x0 [B, ...]; `evaluations` counts calls of the network.

        The keyword `rng` is handed over where `settings.sde` is set, and `weak`, the weaker network, where
        `settings.guidance` has one.
        """
        ...
