"""Bridge: flow matching that begins at an image of the condition in the place of noise.

    x0 = source + noise_std n,      x_t = alpha(t) x1 + sigma(t) x0 + gamma(t) z,      n, z ~ N(0, I)

(arXiv 2303.08797, 2310.03725). The source is a part of the condition, resized to the grid of x1: a small image to
enlarge, a noisy or a grey one, a digit of another data set. The network is regressed on the velocity
alpha' x1 + sigma' x0 + gamma' z, and sampling solves the flow from the source that is given.

    paired = True     source and image of an example belong together: told the source, the network learns p(x1 | source)
    paired = False    they do not: sources are shuffled over the batch, or paired by `config.path.coupling`

The flow is a function of where it begins. With noise_std = 0 a network that is told its source therefore ends at the
one image E[x1 | source], whatever gamma is, and a network that is not told it learns of the pairs through x_t alone.
The law of x1 given a source is drawn with noise_std above 0 and the source told.

Nothing here is a density against N(0, I): there is no score, so no stochastic equation, likelihood or restoration.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmd.config import Settings
from fmd.math import couplings, interpolants, paths, schedules, times
from fmd.math.couplings import Coupling
from fmd.math.pixels import to_unit
from fmd.math.schedules import Schedule
from fmd.math.simulators import Solution
from fmd.math.times import TimeSampler
from fmd.methods import flow_matching, register, solving
from fmd.methods.method import Drawn, Loss
from fmd.methods.solving import Velocity
from fmd.registry import Between
from fmd.types import Condition, Images, Labels, Mask, Network, Rng, Times, Told

Hearing = Literal["always", "sometimes", "never"]
START = 0.02  # how far alpha(0) and sigma(0) may be from 0 and 1


@register("bridge")
@dataclass(frozen=True)
class Bridge:
    """The method; `source` names the part of the condition, `gamma` is the scale of the interpolant's noise.

    `told` says when the network is told the source, from which it begins in any case: "always", so that label dropout
    and the untold half of guidance leave out the other parts alone; "sometimes", left out with them; or "never".
    `clip_data` is as in `flow_matching`.
    """

    source: str = "source"
    noise_std: Annotated[float, Between(0)] = 0.5
    gamma: Annotated[float, Between(0)] = 0.0
    paired: bool = True
    told: Hearing = "always"
    schedule: Schedule = schedules.get("linear")
    times: TimeSampler = times.get("uniform")
    coupling: Coupling = couplings.get("independent")
    label_dropout: float = 0.1
    clip_data: bool = False

    second_time = False
    needs_teacher = False
    no_field = "it begins at an image and not at N(0, I), so that there is no density and no score"

    def __post_init__(self) -> None:
        if self.paired and not self.coupling.independent:
            raise ValueError(
                f"config.path.coupling = {self.coupling.name!r} would part what the data pair: leave it out, or say "
                f"--config.method.paired=False"
            )
        if self.gamma and self.clip_data:
            raise ValueError("method 'bridge': clip_data needs gamma = 0, a velocity that tells the data")
        with jax.ensure_compile_time_eval():
            start = self.schedule.at(0.0)
            if abs(start.alpha) > START or abs(start.sigma - 1) > START:
                raise ValueError(
                    f"config.path.schedule = {self.schedule.name!r} begins with {float(start.alpha):g} x1 + "
                    f"{float(start.sigma):g} x0; a bridge begins at x0: take another, e.g. linear"
                )

    @property
    def undropped(self) -> tuple[str, ...]:
        """The parts that neither label dropout nor guidance leaves out."""
        return () if self.told == "sometimes" else (self.source,)

    @property
    def validated(self) -> "Bridge":
        """The method with the pairs of the data, which do not depend on a batch."""
        return replace(self, paired=True, coupling=couplings.get("independent"))

    def start(self, y: Condition, noise: Images) -> Images:
        """source + noise_std noise, [B, H, W, C] like the noise.

        Raises ValueError where the condition has no such image, or one of other channels; a grey one fits all.
        """
        part = y.get(self.source) if isinstance(y, Mapping) else None
        if part is None:
            found = f"parts {', '.join(y)}" if isinstance(y, Mapping) else "a label alone"
            raise ValueError(
                f"config.method.source = {self.source!r}: the condition is {found}; name one of its parts, an image"
            )
        value = jnp.asarray(part.value if isinstance(part, Told) else part)
        _, *size, channels = noise.shape
        if value.ndim != noise.ndim or value.shape[-1] not in (1, channels):
            raise ValueError(
                f"config.method.source = {self.source!r} is of shape [B, {', '.join(map(str, value.shape[1:]))}]; a "
                f"source must be an image [B, h, w, {channels}], or grey, of any size"
            )
        pixels = to_unit(value) if value.dtype == jnp.uint8 else value
        if pixels.shape[1:-1] != tuple(size):
            pixels = jax.image.resize(pixels, (pixels.shape[0], *size, pixels.shape[-1]), "linear")
        return pixels + self.noise_std * noise

    def draw(self, rng: Rng, x1: Images, y: Condition) -> Drawn:
        """Noise for the source and for the way, a time, and the source that each image is paired with."""
        t = times.draw(self.times, rng.key("time"), rng.index, rng.batch_size)
        noise, untold = rng.normal("noise", x1.shape[1:]), rng.uniform("label_dropout") < self.label_dropout
        self.start(y, noise)  # a condition that does not fit is named here
        z = rng.normal("interpolant", x1.shape[1:]) if self.gamma else None
        drawn = Drawn(noise, x1, y, t, untold, z=z)
        return drawn if self.paired else self._paired_anew(rng, drawn)

    def _paired_anew(self, rng: Rng, drawn: Drawn) -> Drawn:
        """The draw with sources, and the noise on them, in another order over the whole batch."""

        def reorder(key: Array, source: Any, noise: Images, x1: Images, labels: Labels | None) -> tuple[Any, Images]:
            if self.coupling.match is None:
                order = jax.random.permutation(key, x1.shape[0])
            else:
                x0 = self.start({self.source: source}, noise)
                order = self.coupling.match(key, couplings.transport_cost(x0, x1, labels))
            ordered: tuple[Any, Images] = jax.tree.map(lambda part: part[order], (source, noise))
            return ordered

        y: Any = drawn.y
        key = rng.key("coupling")
        source, noise = rng.whole_batch(
            lambda *batch: reorder(key, *batch), y[self.source], drawn.x0, drawn.x1, y.get("label")
        )
        return drawn._replace(x0=noise, y={**y, self.source: source})

    def loss(self, network: Network, drawn: Drawn, teacher: Network | None = None) -> Loss:
        """The squared error of the velocity, the mean over pixels and channels, [B] float32."""
        t, x0, network = self._asked(drawn.t), self.start(drawn.y, drawn.x0), Beside(network, self)
        x_t, v = (
            f(self.schedule, x0, drawn.x1, t, drawn.z, scale=self.gamma)
            for f in (interpolants.interpolate, interpolants.velocity)
        )
        predicted = network(x_t, t, network.drop(drawn.y, drawn.untold))
        error = predicted - v
        if self.clip_data:
            data = paths.convert(self.schedule, x_t, t, predicted, source="velocity", target="data")
            error = flow_matching.without_overshoot(error, data, drawn.x1)
        return Loss(jnp.mean(error**2, axis=tuple(range(1, error.ndim))), t)

    def velocity(self, network: Network) -> Velocity:
        """The velocity(x, t, y) of the network."""

        def velocity(x: Images, t: Times, y: Condition) -> Images:
            return network(x, self._asked(t), y)

        return flow_matching.clipped(velocity, self.schedule) if self.clip_data else velocity

    def sample(
        self,
        network: Network,
        x0: Images,
        y: Condition,
        settings: Settings,
        *,
        rng: Rng | None = None,
        weak: Network | None = None,
    ) -> Solution:
        """Solves the guided equation from the source in `y`, with noise_std x0 on it."""
        weaker = None if weak is None else self.velocity(weak)
        return solving.solve(
            self, Beside(network, self), self.velocity(network), self.start(y, x0), y, settings, rng=rng, weak=weaker
        )

    def check(self, settings: Settings) -> None:
        """Raises ValueError for settings that cannot be sampled with."""
        if settings.sde is not None:
            raise ValueError(
                f"sample.sde = {dict(settings.sde)}: the stochastic equation needs the score, and method 'bridge' has "
                f"none; leave it out"
            )
        if settings.schedule is not None and self.gamma:
            raise ValueError(
                f"sample.schedule = {settings.schedule.name!r}: with gamma = {self.gamma} a bridge is sampled along "
                f"the schedule of its training; leave it out"
            )
        solving.check(self, settings)

    def _asked(self, t: Times) -> Times:
        return interpolants.inside(t) if self.gamma else t


@dataclass(frozen=True)
class Beside:
    """A network as its bridge asks it: dropped is what the bridge's `told` says."""

    network: Network
    bridge: Bridge

    def __call__(
        self, x: Images, t: Times, y: Condition, r: Times | None = None, w: Float[Array, " B"] | None = None
    ) -> Images:
        return self.network(x, t, y, r, w)

    def drop(self, y: Any, mask: Mask | None = None, parts: Sequence[str] | None = None) -> Condition:
        source = self.bridge.source
        if self.bridge.told == "sometimes":
            return self.network.drop(y, mask, parts)
        others = [name for name in y if name != source and (parts is None or name in parts)]
        value = y[source].value if isinstance(y[source], Told) else y[source]
        y = self.network.drop({**y, source: value}, mask, others)
        return y if self.bridge.told == "always" else self.network.drop(y, None, [source])
