"""Images from a trained model: a condition and a key in, uint8 pictures out, over all devices.

    sampler = load("runs/mnist_cfg_strong")
    images = sampler([0, 1, 2], jax.random.key(0), weight=2.0)       # uint8 [3, 28, 28, 1]

The noise of example i is a function of (key, i), so an image does not depend on how many are drawn with it.
"""

import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from fmd import methods
from fmd.checkpoints.weights import load_weights
from fmd.config import Settings
from fmd.devices import Layout, cpu_compiler_options, make_layout, map_batches, replicate
from fmd.math import solvers
from fmd.math.operators import Map, Operator
from fmd.math.pixels import to_uint8
from fmd.methods import Method
from fmd.models import conditions
from fmd.models.contract import Model
from fmd.models.network import ModelNetwork, in_float32
from fmd.models.registry import build_model
from fmd.randomness import example_normal, request_rng
from fmd.registry import import_modules
from fmd.run_info import RunInfo
from fmd.sampling import editing, judging, restoring
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
        check(self.method, info, self.settings)  # so that a wrong default is refused now, not after the training

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
        refuse_without_effect(settings, [name for name, value in changes.items() if value is not None])
        check(self.method, self.info, settings)
        y, count = self.check_condition(y)
        noise = self._check_noise(noise, key, count)
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
                self.model, self.method, self.info, settings, traced_weight=not fixed, weak=weaker and weaker[0]
            )

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
            for key in ("image_shape", "num_classes", "conditions"):
                if getattr(info, key) != getattr(self.info, key):
                    raise ValueError(
                        f"guidance.weak={path}: its {key} is {getattr(info, key)}, this model's "
                        f"{getattr(self.info, key)}; give an earlier step or a smaller model of the same task"
                    )
            if info.config.path != self.info.config.path:
                raise ValueError(f"guidance.weak={path} was trained along another path; give a model of the same path")
            self._weak[path] = model_of(info), replicate(self.layout, params)
        return self._weak[path]

    def check_condition(self, y: Condition) -> tuple[Condition, int]:
        """The condition as host arrays, and the number of its examples."""
        told = self.info.conditions
        y = jax.tree.map(np.asarray, y if isinstance(y, dict) or hasattr(y, "dtype") else np.asarray(y))
        leaves = jax.tree.leaves(y)
        if told is not None:
            count = len(leaves[0]) if leaves and leaves[0].ndim else 0
            conditions.check(y, told, self.num_classes, count)
            for name, spec in told.items():
                if spec["kind"] == "label":
                    self._check_null(y[name], int(spec["num_classes"]))
            return y, count
        labels = leaves[0] if len(leaves) == 1 else np.zeros(0)
        if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels must be a list of one or more whole numbers, not {labels.dtype} {labels.shape}")
        if self.num_classes == 0 and labels.any():
            raise ValueError("labels must all be 0: this model was trained without labels and takes 0 alone")
        if labels.min() < 0 or labels.max() > self.num_classes:
            raise ValueError(
                f"labels run from {labels.min()} to {labels.max()}; this model knows 0 to {self.num_classes - 1}, "
                f"and {self.num_classes} for an unconditional image"
            )
        if self.num_classes:
            self._check_null(labels, self.num_classes)
        return labels.astype(np.int32), len(labels)

    def _check_null(self, labels: np.ndarray, null: int) -> None:
        if labels.max() == null and not self.info.can_be_guided:
            raise ValueError(
                f"label {null} asks for an unconditional image, but this model was trained with "
                f"train.label_dropout = 0 and never saw one"
            )

    def _check_noise(self, noise: Any, key: TypedKey | None, count: int) -> np.ndarray | None:
        if (noise is None) == (key is None):
            raise ValueError("a sampler starts from a key or from noise: give one of the two")
        if noise is None:
            return None
        array, shape = np.asarray(noise), (count, *self.image_shape)
        if array.shape != shape or not np.issubdtype(array.dtype, np.floating):
            raise ValueError(
                f"noise must be floats of shape {shape}, one image per label, not {array.dtype} {array.shape}"
            )
        return array.astype(np.float32)


def load(
    path: str | Path,
    *,
    average: str | None = None,
    which: str | None = None,
    trust: bool = False,
    layout: Layout | None = None,
) -> Sampler:
    """A sampler from a workdir (newest checkpoint), one step inside it, or an exported folder; averaged weights.

    Args:
        path: the folder.
        average: the average to use where a run keeps several, e.g. "decay1"; default: its first. `which` is an older
            name of this.
        trust: import the modules that the folder names, which runs their code. Those that are imported already, and
            fmd's own, need no trust.
        layout: the devices to use; all of them by default.

    Raises:
        ValueError: when there is no such folder, it is not fmd's, its files are damaged, or it names modules that are
            not to be trusted.
    """
    params, info = load_weights(path, average or which)
    if not trust:
        refuse_imports(path, info)
    return Sampler.from_info(info, params=params, layout=layout)


def refuse_imports(path: str | Path, info: RunInfo) -> None:
    """Raises ValueError where the info in a folder names modules that are not imported already."""
    if strange := [name for name in info.config.imports if name not in sys.modules]:
        raise ValueError(
            f"{path} asks to import {', '.join(strange)}, which runs the code of whoever made it; if you trust it, "
            f"give trust=True (--trust on the command line), or import it yourself first"
        )


def model_of(info: RunInfo) -> Model:
    """The network of a run, after importing the modules that its config names."""
    import_modules(info.config.imports)
    offered: dict[str, object] = {"num_classes": info.num_classes}
    offered |= {} if info.conditions is None else {"conditions": info.conditions}
    offered |= methods.inputs_of(info.config)
    return build_model(info.config.model.name, info.config.model.params, **offered)


def check(method: Method, info: RunInfo, settings: Settings) -> None:
    """Raises ValueError for settings that the method or the model does not allow."""
    weight = settings.weight
    if isinstance(weight, str) or not np.isfinite(weight):
        raise ValueError(f"guidance weight is {weight!r}; it must be a number: 1 is conditional, 0 unconditional")
    refuse = getattr(method, "check", None)
    if refuse is not None:
        refuse(settings)
    if weight != 1.0 and not info.can_be_guided and "weak" not in settings.guidance:
        raise ValueError(
            f"guidance weight {weight} needs a model trained with labels and train.label_dropout > 0 (this "
            f"one: {info.num_classes} classes, dropout {info.config.train.label_dropout}); use weight 1"
        )


def refuse_without_effect(settings: Settings, given: Iterable[str]) -> None:
    """Raises ValueError where `steps` is among the settings that somebody gave, and the solver chooses its own."""
    if settings.solver in solvers.ADAPTIVE and "steps" in given:
        raise ValueError(
            f"steps = {settings.steps} has no effect with {settings.solver!r}, which chooses its own steps; leave it "
            f"out, give a tolerance, or take a solver with steps: {', '.join(solvers.FIXED)}"
        )


def make_program(
    model: Model,
    method: Method,
    info: RunInfo,
    settings: Settings,
    *,
    traced_weight: bool,
    weak: Model | None = None,
) -> Callable[..., Samples]:
    """The function to trace: draw(params, noise [B, H, W, C], y, weight [], weak_params=None, rng=None) -> Samples.

    With `traced_weight` the input `weight` is used, else that of the settings: exactly 1 and 0 save half of the work.
    """

    def network(model: Model, params: Params) -> ModelNetwork:
        if settings.solver in solvers.ADAPTIVE:  # the rounding of bfloat16 would be taken for the solver's error
            model = in_float32(model)
        return ModelNetwork(model.apply, params, info.num_classes, info.conditions)

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
