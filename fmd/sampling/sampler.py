"""Images from a trained model: parameters, labels and a key in, uint8 pictures out, over all devices.

    sampler = load("runs/mnist_cfg_strong")
    images = sampler([0, 1, 2], jax.random.key(0), weight=2.0)       # uint8 [3, 28, 28, 1]

The noise of example i is a function of (key, i), so an image does not depend on how many are drawn with it.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fmd.checkpoints.weights import load_weights
from fmd.math import guidance, odes, schedules
from fmd.math.integration import Times
from fmd.math.simulators import solve_ode
from fmd.math.solvers import ADAPTIVE, check_name
from fmd.models.registry import build_model, import_user_modules
from fmd.sampling.trajectory import states_to_show
from fmd.utils.compile import cpu_compiler_options
from fmd.utils.distributed import Layout, make_layout, replicate, split_batch
from fmd.utils.pixels import to_uint8
from fmd.utils.seed import example_normal

END_EPSILON = 1e-4  # how far inside [0, 1] a model is asked where its schedule is singular at an end


class Samples(NamedTuple):
    """Images with what they cost."""

    images: np.ndarray  # uint8 [N, H, W, C], or [N, T, H, W, C] where times were asked for
    evaluations: np.ndarray  # int32 [N]: calls of the model on one example, both halves of guidance counted
    success: np.ndarray  # bool [N]: the solver arrived and every pixel is finite


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
        self._config = facts["config"]
        self._schedule = schedules.get(**self._config["path"]["schedule"])
        self._programs: dict[Any, Callable[..., Any]] = {}
        self._settings(None, None, None, None)  # so that a wrong default is refused now, not after the training

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

    def __call__(self, labels: Any, key: jax.Array, **settings: Any) -> np.ndarray:
        """Images uint8 [B, H, W, C]; see `sample` for the settings."""
        return self.sample(labels, key, **settings).images

    def sample(
        self,
        labels: Any,
        key: jax.Array,
        *,
        weight: float | None = None,
        rule: Mapping[str, Any] | None = None,
        solver: str | None = None,
        steps: int | None = None,
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
            weight: guidance weight; 1 is conditional, 0 unconditional. Default: the config's.
            rule: another guidance rule than the config's, e.g. {"name": "cfg", "interval": (0.1, 0.8)}.
            solver: a solver of fmd.math.simulators; default: the config's.
            steps: steps of a fixed-grid solver; default: the config's.
            rtol, atol: tolerances of an adaptive solver.
            times: show each image at these increasing times in [0, 1] instead, see fmd.sampling.trajectory.
            batch_size: images per call of the compiled program; more are drawn in several calls.
            params: parameters to use instead of the sampler's own.

        Raises:
            ValueError: for labels outside the classes, a weight that is not finite, guidance on a model trained
                without label dropout, or an unknown solver or rule.
        """
        labels = self._check_labels(labels)
        rule, solver, steps = self._settings(rule, weight, solver, steps)
        params = self.params if params is None else params

        batch = _round_up(min(batch_size, len(labels)), self.layout.mesh.size)
        times = None if times is None else tuple(np.asarray(times).tolist())
        program = self._program(rule, solver, steps, rtol, atol, times)
        finished = []
        for first in range(0, len(labels), batch):
            index = np.arange(first, first + batch, dtype=np.int32)
            part = labels[np.minimum(index, len(labels) - 1)]  # the last part is filled up with copies
            finished.append(program(params, key, *split_batch(self.layout, index, part), np.float32(rule["weight"])))
        columns = zip(*finished, strict=True)
        return Samples(*(np.concatenate([np.asarray(part) for part in column])[: len(labels)] for column in columns))

    def _program(
        self,
        rule: dict[str, Any],
        solver: str,
        steps: int,
        rtol: float | None,
        atol: float | None,
        times: tuple[float, ...] | None = None,
    ) -> Any:
        """The compiled sampler for these settings; weights other than exactly 1 and 0 share one."""
        weight = rule["weight"]
        static_weight = weight if weight in (0.0, 1.0) else None
        name = (repr(sorted({**rule, "weight": static_weight}.items())), solver, steps, rtol, atol, times)
        if name in self._programs:
            return self._programs[name]
        combine_with = _rule_builder(rule, self._schedule)
        ends = END_EPSILON if self._schedule.singular_times else 0.0
        options: dict[str, Any] = {"solver": solver, "steps": steps, "rtol": rtol, "atol": atol, "times": times}
        options |= {"jump_ts": combine_with(weight).jump_times} if solver in ADAPTIVE else {}

        def run(params: Any, key: jax.Array, index: jax.Array, labels: jax.Array, traced: jax.Array) -> Any:
            def predict(x: jax.Array, t: jax.Array, y: jax.Array) -> jax.Array:
                return self.model.apply({"params": params}, x, t, y, train=False)

            velocity = odes.from_model(predict, self._schedule, self._config["path"]["prediction"])
            combine = combine_with(traced if static_weight is None else static_weight)
            field = guidance.guided_field(lambda x, t, y: velocity(t, x, y), self.num_classes, combine)
            x0 = example_normal(key, index, self.image_shape) * self._schedule.prior_std
            solution = solve_ode(field, x0, args=labels, end_epsilon=ends, **options)
            x = solution.x if times is None else states_to_show(solution, self._schedule)
            return to_uint8(x), solution.evaluations * combine.evaluations, solution.success

        compiled = jax.jit(run, out_shardings=self.layout.replicated, compiler_options=cpu_compiler_options())
        self._programs[name] = compiled
        return compiled

    def _check_labels(self, labels: Any) -> np.ndarray:
        array = np.asarray(labels)
        if array.ndim != 1 or not len(array) or not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"labels must be a list of one or more whole numbers, not {array.dtype} {array.shape}")
        if array.min() < 0 or array.max() > self.num_classes:
            known = f"knows 0 to {self.num_classes - 1}, and {self.num_classes} for an unconditional image"
            known = known if self.num_classes else "was trained without labels and takes 0 alone"
            raise ValueError(f"labels run from {array.min()} to {array.max()}; this model {known}")
        return array.astype(np.int32)

    def _settings(
        self, rule: Mapping[str, Any] | None, weight: float | None, solver: str | None, steps: int | None
    ) -> tuple[dict[str, Any], str, int]:
        """The rule with its weight, the solver and its steps: the given ones, else the config's; checked."""
        defaults = self._config["sample"]
        rule = {"name": "cfg", "weight": defaults["guidance"].get("weight", 1.0), **(rule or defaults["guidance"])}
        rule["weight"] = rule["weight"] if weight is None else weight
        if isinstance(rule["weight"], str):
            raise ValueError(f"guidance weight {rule['weight']!r} is not a number; 1 is conditional, 0 unconditional")
        rule["weight"] = float(rule["weight"])
        solver = solver or defaults["solver"]
        steps = defaults["steps"] if steps is None else steps
        _rule_builder(rule, self._schedule)(rule["weight"])
        check_name(solver)
        if steps < 1:
            raise ValueError(f"steps = {steps}; a solver takes 1 or more")
        dropout, asked = self._config["train"]["label_dropout"], rule["weight"]
        if asked != 1.0 and (dropout == 0 or self.num_classes == 0):
            raise ValueError(
                f"guidance weight {asked} needs a model trained with labels and train.label_dropout > 0 "
                f"(this one: {self.num_classes} classes, dropout {dropout}); use weight 1"
            )
        return rule, solver, steps


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


def _rule_builder(rule: Mapping[str, Any], schedule: schedules.Schedule) -> Callable[[Any], guidance.Guidance]:
    """A function from a weight, which may be traced, to the guidance rule; rules that need the schedule get it."""
    params = {key: value for key, value in rule.items() if key not in ("name", "weight")}
    if isinstance(params.get("interval"), list):
        params["interval"] = tuple(params["interval"])  # JSON has lists only
    names = {rule["name"], rule.get("base")} & guidance.RULES.keys()
    if any("schedule" in inspect.signature(guidance.RULES[name]).parameters for name in names):
        params["schedule"] = schedule
    return lambda weight: guidance.get(rule["name"], weight=weight, **params)


def _round_up(count: int, divisor: int) -> int:
    return -(-count // divisor) * divisor
