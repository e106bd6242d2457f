"""Images from a trained model: a condition and a key in, uint8 pictures out, over all devices.

    sampler = load("runs/mnist_cfg_strong")
    images = sampler([0, 1, 2], jax.random.key(0), weight=2.0)       # uint8 [3, 28, 28, 1]

The noise of example i is a function of (key, i), so an image does not depend on how many are drawn with it.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from fmd import methods
from fmd.blocks import Plain
from fmd.checkpoints.weights import load_weights
from fmd.config import Config, Settings
from fmd.devices import Layout, cpu_compiler_options, make_layout, map_batches, replicate
from fmd.math import solvers
from fmd.math.operators import Map, Operator
from fmd.math.pixels import to_uint8
from fmd.methods import Method
from fmd.models.contract import Model
from fmd.models.network import ModelNetwork, in_float32
from fmd.models.registry import build_model
from fmd.randomness import example_normal, request_rng
from fmd.registry import import_modules
from fmd.run_info import RunInfo
from fmd.sampling import checks, editing, judging, restoring
from fmd.sharding import gather_params
from fmd.types import Condition, Images, Params, Rng, TypedKey


class Samples(NamedTuple):
    """Images with their cost."""

    images: PyTree  # uint8 [N, H, W, C], or [N, T, H, W, C] where times were asked for
    evaluations: PyTree  # int32 [N]: calls of the model on one example, both halves of guidance counted
    success: PyTree  # bool [N]: the solver arrived and every pixel is finite


class Sampler:
    """Draws images from one model. Build it with `load` or `Sampler.from_info`.

    Args:
        model: the network, see fmd.models.contract.
        params: its parameters; may be given per call instead.
        info: what the run stored about itself.
        layout: the devices to use; all of them by default.
    """

    def __init__(self, model: Model, params: Params | None, info: RunInfo, layout: Layout | None = None) -> None:
        self.layout = make_layout() if layout is None else layout
        self.params = None if params is None else replicate(self.layout, params)
        self.info, self.model = info, model
        self.settings = info.config.sample
        self.image_shape, self.num_classes = info.image_shape, info.num_classes
        self.method: Method = methods.from_config(info.config)
        self.programs: dict[Any, Callable[..., PyTree]] = {}
        self._weak: dict[str, tuple[Model, Params]] = {}
        checks.check(self.method, info, self.settings)  # so that a wrong default is refused now, not after the training

    @classmethod
    def from_info(
        cls, info: RunInfo, *, params: Params | None = None, model: Model | None = None, layout: Layout | None = None
    ) -> "Sampler":
        """A sampler from what a run stored, building its model where none is given."""
        return cls(model_of(info) if model is None else model, params, info, layout)

    def __call__(
        self, y: Condition, key: TypedKey | None = None, settings: Settings | None = None, **changes: Any
    ) -> np.ndarray:
        """Images uint8 [B, H, W, C]; see `sample` for the arguments."""
        images: np.ndarray = self.sample(y, key, settings, **changes).images
        return images

    def sample(
        self,
        y: Condition,
        key: TypedKey | None = None,
        settings: Settings | None = None,
        *,
        noise: Any = None,
        batch_size: int = 256,
        params: Params | None = None,
        quiet: bool = True,
        **changes: Any,
    ) -> Samples:
        """One image for each condition.

        Args:
            y: labels int [B] in [0, num_classes], where num_classes asks for an unconditional image; or a dictionary
                of named parts, each [B, ...], for a model that is told more.
            key: a typed key, `jax.random.key(seed)`.
            settings: how to sample; default: the config's.
            noise: standard normal numbers [B, H, W, C] to start from, instead of the key's.
            batch_size: images per call of the compiled program; more are drawn in several calls.
            params: parameters to use instead of the sampler's own.
            quiet: without a progress bar.
            changes: settings to change, by the names of `fmd.config.Settings` or short ones: weight (1 is
                conditional, 0 unconditional), solver, steps, rule, grid, shift, tolerance, times, ...

        Raises:
            ValueError: for a condition that does not fit, noise of another shape, guidance on a model that was trained
                without dropping its condition, or settings that do not go together.
        """
        settings = (self.settings if settings is None else settings).replace(**changes)
        checks.refuse_without_effect(settings, [name for name, value in changes.items() if value is not None])
        checks.check(self.method, self.info, settings)
        y, count = checks.condition(y, self.info)
        noise = checks.noise(noise, key, (count, *self.image_shape))
        params = self.params if params is None else params
        program = self.program(settings)
        source = np.arange(count, dtype=np.int32) if noise is None else noise
        weaker = self._weaker(settings)
        shared = (params, None if weaker is None else weaker[1], key, np.float32(settings.weight))
        drawn: Samples = map_batches(
            self.layout, partial(program, *shared), batch_size, source, y, quiet=quiet, what="sampling"
        )
        return drawn

    def restore(
        self, measurement: Any, operator: Operator | Map, key: TypedKey, y: Condition = None, **options: Any
    ) -> np.ndarray:
        """Draws of the images behind measurements, uint8; see `fmd.sampling.restoring.restore`."""
        return restoring.restore(self, measurement, operator, key, y, **options)

    def edit(self, images: Any, y: Condition, key: TypedKey, **options: Any) -> np.ndarray:
        """The images told `y`, uint8 [B, H, W, C]; see `fmd.sampling.editing.edit`."""
        return editing.edit(self, images, y, key, **options)

    def invert(self, images: Any, y: Condition = None, **options: Any) -> np.ndarray:
        """The noise float32 [B, H, W, C] that flows to the images; see `round_trip`."""
        return self.round_trip(images, y, **options)[0]

    def round_trip(self, images: Any, y: Condition = None, **options: Any) -> tuple[np.ndarray, np.ndarray]:
        """(their noise, the error [B] of flowing there and back); see `fmd.sampling.editing.round_trip`."""
        return editing.round_trip(self, images, y, **options)

    def interpolate(self, first: Any, second: Any, y: Condition = None, **options: Any) -> np.ndarray:
        """Images between two, uint8 [shares, B, H, W, C]; see `fmd.sampling.editing.interpolate`."""
        return editing.interpolate(self, first, second, y, **options)

    def classify(self, images: Any, key: TypedKey | None = None, **options: Any) -> np.ndarray:
        """log p(y | x) float32 [B, classes]; see `fmd.sampling.judging.classify`."""
        return judging.classify(self, images, key, **options)

    def bits_per_dim(self, images: Any, y: Condition = None, key: TypedKey | None = None, **options: Any) -> np.ndarray:
        """Bits per dimension of each image, [B]; see `fmd.sampling.judging.bits_per_dim`."""
        return judging.bits_per_dim(self, images, y, key, **options)

    def program(self, settings: Settings) -> Callable[..., Samples]:
        """The compiled sampler for these settings; weights other than exactly 1 and 0 share one."""
        fixed = settings.weight in (0.0, 1.0)
        name = settings if fixed else settings.replace(weight=2.0)
        if name not in self.programs:
            weaker = self._weaker(settings)
            draw = make_program(
                self.model, self.method, self.info, settings,
                traced_weight=not fixed, weak=weaker and weaker[0], layout=self.layout,
            )  # fmt: skip

            def run(
                params: Params, weak: Params | None, key: TypedKey | None, weight: Array, source: Array, y: Condition
            ) -> Samples:
                if key is None:
                    return draw(params, source, y, weight, weak_params=weak)
                rng = request_rng(key, source, len(source))
                noise = example_normal(key, source, self.image_shape)
                return draw(params, noise, y, weight, weak_params=weak, rng=rng)

            self.programs[name] = jax.jit(
                run, out_shardings=self.layout.replicated, compiler_options=cpu_compiler_options()
            )
        return self.programs[name]

    def _weaker(self, settings: Settings) -> tuple[Model, Params] | None:
        """The weaker model that the settings guide by, with its parameters, if they name one."""
        path = settings.guidance.get("weak")
        if path is None:
            return None
        if path not in self._weak:
            params, info = load_weights(path)
            checks.refuse_imports(path, info)
            checks.refuse_other(f"guidance.weak={path}", info, self.info)
            if info.config.path != self.info.config.path:
                raise ValueError(f"guidance.weak={path} was trained along another path; give a model of the same path")
            self._weak[path] = model_of(info), replicate(self.layout, params)
        return self._weak[path]


def load(
    path: str | Path,
    *,
    average: str | None = None,
    which: str | None = None,
    trust: bool = False,
    layout: Layout | None = None,
) -> Sampler:
    """A sampler of averaged weights: from a run, an export, or a model that ships.

    Args:
        path: a workdir (its newest checkpoint), one step inside it, an exported folder, the name of a model that
            ships with fmd, e.g. "mnist", or one on the Hub, "hf://owner/name" or "hf://owner/name@revision", which is
            fetched. A folder of the name of a shipped model comes before it if it holds a model.
        average: the average to use where a run keeps several, e.g. "decay1"; default: its first. `which` is an older
            name of this.
        trust: import the modules that the folder names, which runs their code. Those that are imported already, and
            fmd's own, need no trust.
        layout: the devices to use; all of them by default.

    Raises:
        ValueError: when there is no such model, it is not fmd's, its files are damaged, or it names modules that are
            not to be trusted.
        OSError: when the Hub cannot be reached and its cache does not have the model.
    """
    params, info = load_weights(path, average or which)
    if not trust:
        checks.refuse_imports(path, info)
    return Sampler.from_info(info, params=params, layout=layout)


def model_of(info: RunInfo) -> Model:
    """The network of a run, after importing the modules that its config names."""
    import_modules(info.config.imports)
    return make_model(info.config, info.num_classes, info.conditions)


def make_model(config: Config, num_classes: int, told: Plain | None = None) -> Model:
    """The network of a config for these conditions. Raises ValueError where the config has other classes."""
    offered: dict[str, object] = {"num_classes": num_classes, **({} if told is None else {"conditions": told})}
    offered |= methods.inputs_of(config)
    given = config.model.params.get("num_classes", num_classes)
    if given != num_classes:
        raise ValueError(f"config.model.num_classes = {given}, but the data set has {num_classes}; leave it out")
    return build_model(config.model.name, config.model.params, **offered)


def make_program(
    model: Model,
    method: Method,
    info: RunInfo,
    settings: Settings,
    *,
    traced_weight: bool,
    weak: Model | None = None,
    layout: Layout | None = None,
) -> Callable[..., Samples]:
    """The function to trace: draw(params, noise [B, H, W, C], y, weight [], weak_params=None, rng=None) -> Samples.

    With `traced_weight` the input `weight` is used, else that of the settings: exactly 1 and 0 save half of the work.
    Parameters in parts are gathered over `layout`.
    """

    def network(model: Model, params: Params) -> ModelNetwork:
        if settings.solver in solvers.ADAPTIVE:  # the rounding of bfloat16 would be taken for the solver's error
            model = in_float32(model)
        return ModelNetwork(gather_params(layout, model), params, info.num_classes, info.conditions)

    def draw(
        params: Params,
        noise: Images,
        y: Condition,
        weight: Array,
        weak_params: Params | None = None,
        rng: Rng | None = None,
    ) -> Samples:
        chosen = settings.replace(weight=weight) if traced_weight else settings
        more: dict[str, Any] = {} if settings.sde is None else {"rng": rng}
        more |= {} if weak is None else {"weak": network(weak, weak_params)}
        solution = method.sample(network(model, params), noise, y, chosen, **more)
        x = solution.x if settings.times is None else jnp.moveaxis(solution.trajectory, 0, 1)
        return Samples(to_uint8(x), solution.evaluations, solution.success)

    return draw
