"""Images from a trained model: parameters, labels and a key in, uint8 pictures out, over all devices.

    sampler = load("runs/mnist_cfg_strong")
    images = sampler([0, 1, 2], jax.random.key(0), weight=2.0)       # uint8 [3, 28, 28, 1]

The noise of example i is a function of (key, i), so an image does not depend on how many are drawn with it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fmd.checkpoints.weights import load_weights
from fmd.math.integration import Times
from fmd.models.registry import build_model, import_user_modules
from fmd.sampling.program import Samples, Settings, choose, make_program
from fmd.utils.compile import cpu_compiler_options
from fmd.utils.distributed import Layout, make_layout, replicate, split_batch
from fmd.utils.seed import example_normal


class Sampler:
    """Draws images from one model. Build it with `load` or `Sampler.from_facts`.

    Args:
        model: the network, see fmd.models.conditional_vector_field.
        params: its parameters; may be given per call instead.
        facts: what the run stored about itself: config, image_shape, num_classes.
        layout: the devices to use; all of them by default.
    """

    def __init__(self, model: Any, params: Any, facts: Mapping[str, Any], layout: Layout | None = None) -> None:
        self.layout = make_layout() if layout is None else layout
        self.params = None if params is None else replicate(self.layout, params)
        self.facts = dict(facts)
        self.image_shape = tuple(facts["image_shape"])
        self.num_classes = int(facts["num_classes"])
        self.model = model
        self._programs: dict[Any, Callable[..., Samples]] = {}
        choose(facts)  # so that a wrong default is refused now, not after the training

    @classmethod
    def from_facts(
        cls, facts: Mapping[str, Any], *, params: Any = None, model: Any = None, layout: Layout | None = None
    ) -> "Sampler":
        """A sampler from the facts of a run, building its model where none is given."""
        if model is None:
            import_user_modules(facts["config"]["imports"])
            config = facts["config"]["model"]
            model = build_model(config["name"], {**config, "num_classes": facts["num_classes"]})
        return cls(model, params, facts, layout)

    def __call__(self, labels: Any, key: jax.Array | None = None, **settings: Any) -> np.ndarray:
        """Images uint8 [B, H, W, C]; see `sample` for the settings."""
        return self.sample(labels, key, **settings).images

    def sample(
        self,
        labels: Any,
        key: jax.Array | None = None,
        *,
        noise: Any = None,
        weight: float | None = None,
        rule: Mapping[str, Any] | None = None,
        solver: str | None = None,
        steps: int | None = None,
        grid: Mapping[str, Any] | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        times: Times | None = None,
        batch_size: int = 256,
        params: Any = None,
    ) -> Samples:
        """Draws one image per label.

        Args:
            labels: int [B] in [0, num_classes]; num_classes itself asks for an unconditional image.
            key: a typed key, `jax.random.key(seed)`.
            noise: standard normal numbers [B, H, W, C] to start from, instead of the key's.
            weight: guidance weight; 1 is conditional, 0 unconditional. Default: the config's.
            rule: another guidance rule than the config's, e.g. {"name": "cfg", "interval": (0.1, 0.8)}.
            solver: a solver of fmd.math.simulators; default: the config's.
            steps: steps of a fixed-grid solver; default: the config's.
            grid: how they are spread over time, e.g. {"name": "shifted", "factor": 2.0}, see fmd.math.times.grid;
                default: the config's.
            rtol, atol: tolerances of an adaptive solver.
            times: show each image at these increasing times in [0, 1] instead, see fmd.sampling.trajectory.
            batch_size: images per call of the compiled program; more are drawn in several calls.
            params: parameters to use instead of the sampler's own.

        Raises:
            ValueError: for labels outside the classes, noise of another shape, a weight that is not finite, guidance
                on a model trained without label dropout, or an unknown solver, grid or rule.
        """
        labels = self._check_labels(labels)
        noise = self._check_noise(noise, key, len(labels))
        settings = choose(
            self.facts,
            rule=rule,
            weight=weight,
            solver=solver,
            steps=steps,
            grid=grid,
            rtol=rtol,
            atol=atol,
            times=times,
        )
        params = self.params if params is None else params

        batch = _round_up(min(batch_size, len(labels)), self.layout.mesh.size)
        program = self._program(settings, given_noise=noise is not None)
        finished = []
        for first in range(0, len(labels), batch):
            index = np.arange(first, first + batch, dtype=np.int32)
            rows = np.minimum(index, len(labels) - 1)  # the last part is filled up with copies
            source = index if noise is None else noise[rows]
            split = split_batch(self.layout, source, labels[rows])
            finished.append(program(params, key, *split, np.float32(settings.rule["weight"])))
        columns = zip(*finished, strict=True)
        return Samples(*(np.concatenate([np.asarray(part) for part in column])[: len(labels)] for column in columns))

    def _program(self, settings: Settings, *, given_noise: bool = False) -> Callable[..., Samples]:
        """The compiled sampler for these settings; weights other than exactly 1 and 0 share one."""
        weight = settings.rule["weight"]
        fixed_weight = weight if weight in (0.0, 1.0) else None
        rule = {**settings.rule, "weight": fixed_weight}
        name = (repr(settings._replace(rule=rule)), given_noise)
        if name not in self._programs:
            draw = make_program(self.model, self.facts, settings, fixed_weight)

            def run(params: Any, key: Any, source: jax.Array, labels: jax.Array, traced_weight: jax.Array) -> Samples:
                noise = source if given_noise else example_normal(key, source, self.image_shape)
                return draw(params, noise, labels, traced_weight)

            self._programs[name] = jax.jit(
                run, out_shardings=self.layout.replicated, compiler_options=cpu_compiler_options()
            )
        return self._programs[name]

    def _check_labels(self, labels: Any) -> np.ndarray:
        array = np.asarray(labels)
        if array.ndim != 1 or not len(array) or not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"labels must be a list of one or more whole numbers, not {array.dtype} {array.shape}")
        if self.num_classes == 0 and array.any():
            raise ValueError("labels must all be 0: this model was trained without labels and takes 0 alone")
        if array.min() < 0 or array.max() > self.num_classes:
            raise ValueError(
                f"labels run from {array.min()} to {array.max()}; this model knows 0 to {self.num_classes - 1}, "
                f"and {self.num_classes} for an unconditional image"
            )
        return array.astype(np.int32)

    def _check_noise(self, noise: Any, key: jax.Array | None, count: int) -> np.ndarray | None:
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


def load(path: str | Path, *, which: str | None = None, layout: Layout | None = None) -> Sampler:
    """A sampler from a workdir (newest checkpoint), one step inside it, or an exported folder; averaged weights.

    Args:
        path: the folder.
        which: the average to use where a run keeps several, e.g. "decay1"; default: its first.
        layout: the devices to use; all of them by default.

    Raises:
        ValueError: when there is no such folder, it is not fmd's, or its files are damaged.
    """
    params, facts = load_weights(path, which)
    return Sampler.from_facts(facts, params=params, layout=layout)


def _round_up(count: int, divisor: int) -> int:
    return -(-count // divisor) * divisor
