"""All that the proof takes from inside fmd: whoever rebuilds fmd adapts this file and no other here.

Everything else goes through the command line and through the files that it writes. experiments/benchmarks has the
bare step and the data of random numbers already (jax_worker.py).
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.append(str(HERE.parent / "benchmarks"))

from jax_worker import SHAPES, bare_step, random_dataset, resolve  # noqa: E402
from train_step import with_flax_group_norm  # noqa: E402

from fmd import devices, sharding  # noqa: E402
from fmd.checkpoints.weights import load_weights  # noqa: E402
from fmd.export import portable  # noqa: E402
from fmd.models import unet  # noqa: E402
from fmd.sampling.sampler import Sampler, make_model  # noqa: E402
from fmd.training import recipe as recipes  # noqa: E402
from fmd.training import trainer  # noqa: E402
from fmd.training.callbacks import Callback  # noqa: E402
from fmd.training.run import Run  # noqa: E402
from fmd.training.state import create_state  # noqa: E402
from fmd.training.step import train_steps  # noqa: E402

# A network of every kind of layer on 8 x 8 images, and a step that moves each of its parameters.
SMALL = {"model.base_channels": 16, "model.attention_resolutions": (4,), "model.head_dim": 16, "model.dropout": 0.1,
         "model.embedding_dim": 32, "data.flip": True, "optimizer.name": "sgd", "optimizer.learning_rate": 0.05,
         "optimizer.warmup_steps": 0, "optimizer.decay": "constant", "train.batch_size": 64}  # fmt: skip
SMALL_SHAPE = (8, 8, 1)
STEPS = 3


class StopAt(Callback):
    """Asks for an early end at the step in the environment variable STOP_AT."""

    def on_step_end(self, run: Any) -> None:
        if run.step >= int(os.environ["STOP_AT"]):
            run.stop()


@contextmanager
def accelerated() -> Iterator[None]:
    """Configs and programs as on an accelerator, whatever there is: to trace and to lower, not to run."""
    with mock.patch("jax.default_backend", return_value="gpu"):
        yield


def config_of(name: str, overrides: Mapping[str, Any] | None = None) -> Any:
    """The resolved config configs/NAME.py for this machine."""
    return resolve({"config": str(ROOT / "configs" / f"{name}.py"), "overrides": dict(overrides or {})})


def start(config: Any, *, shape: tuple[int, int, int] | None = None, train_images: int = 256) -> Run:
    """A run at step 0 on random images of the config's shape."""
    dataset = random_dataset(shape or SHAPES[config.data.source], train_images)
    with tempfile.TemporaryDirectory() as folder:
        return trainer.start(config, Path(folder), dataset)


def small(**overrides: Any) -> Run:
    """A run of the small network whose weights are nowhere zero, the same on every device."""
    run = start(config_of("digits", SMALL | {key.replace("__", "."): v for key, v in overrides.items()}),
                shape=SMALL_SHAPE)  # fmt: skip
    random = np.random.default_rng(0)

    def draw(leaf: jax.Array) -> np.ndarray:
        scale = np.prod(leaf.shape[:-1], dtype=float) ** -0.5 if leaf.ndim > 1 else 0.2
        return random.normal(leaf.ndim == 1, scale, leaf.shape).astype(np.float32)

    params = jax.tree.map(draw, run.state.params)
    averages = {name: params for name in run.state.ema}
    # Computed, so that every leaf has memory of its own and the state can be donated.
    state = jax.jit(lambda s: jax.tree.map(jnp.copy, s), out_shardings=run.shardings)(
        run.state.replace(params=params, ema=averages)
    )
    run.state = state
    return run


def small_numbers(*, sampled: bool = True, **overrides: Any) -> dict[str, np.ndarray]:
    """Loss, gradient norm, parameters and their change after STEPS steps on one batch.

    With `sampled` a velocity and guided images with the weights before, too.
    """
    run, found = small(**overrides), {}
    before = jax.device_get(run.state.params)
    if sampled:
        noise, labels, _ = small_inputs()
        t = np.linspace(0, 1, len(noise), dtype=np.float32)
        found["images"] = small_images(run)
        found["velocity"] = jax.jit(partial(run.model.apply, train=False))({"params": before}, noise, t, labels)
    program, resident, feed = bare_step(run)
    state = run.state
    for _ in range(STEPS):
        state, report = program(state, resident, feed)
    found |= {"loss": report.window.loss, "gradient norm": report.window.grad_norm, "parameters": flat(state.params)}
    found["change of the parameters"] = found["parameters"] - flat(before)
    return {name: np.asarray(value) for name, value in found.items()}


def small_images(run: Run) -> np.ndarray:
    """Guided images of the small network, uint8 [16, H, W, C]."""
    noise, labels, weight = small_inputs()
    sampler = Sampler(run.model, jax.device_get(run.state.params), run.info, run.layout)
    return sampler.sample(labels, noise=noise, weight=float(weight)).images


def small_inputs() -> tuple[np.ndarray, np.ndarray, np.float32]:
    """(noise, labels, guidance weight) for the small sampler."""
    noise = np.random.default_rng(1).normal(size=(16, *SMALL_SHAPE)).astype(np.float32)
    return noise, np.arange(16, dtype=np.int32) % 10, np.float32(2.0)


def small_export(**overrides: Any) -> bytes:
    """The small network's guided sampler as a file for cpu, cuda and tpu."""
    run = small(**overrides)
    params = jax.device_get(run.state.params)
    return portable.serialize(run.model, params, run.info, run.info.config.sample)


def flat(tree: Any) -> np.ndarray:
    """All leaves of a tree in one vector."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(jax.device_get(tree))])


def averaged_weights(workdir: Path) -> np.ndarray:
    """The averaged weights of the newest checkpoint of a run, in one vector."""
    return flat(load_weights(workdir)[0])


def variant(name: str) -> AbstractContextManager:
    """A change of the network that is in force while it is traced.

    Raises:
        KeyError: for an unknown name.
    """
    attention = jax.nn.dot_product_attention
    patches: dict[str, Callable[[], AbstractContextManager]] = {
        "as it is": nullcontext,
        "cuDNN attention": lambda: mock.patch(
            "jax.nn.dot_product_attention", lambda q, k, v, **_: attention(q, k, v, implementation="cudnn")
        ),
        "no barriers": lambda: mock.patch("jax.lax.optimization_barrier", lambda x: x),
        "Flax's group normalisation": with_flax_group_norm,
        "layers over four axes": lambda: mock.patch.object(unet, "per_pixel", lambda layer, x: layer(x)),
    }
    return patches[name]()


def traced(name: str, *, train_images: int = 60_000, samples: int = 512) -> dict[str, Any]:
    """The training step and the guided sampler of a config, traced for an accelerator without any arrays.

    Returns:
        {"training step": ..., "sampler": ...}, each with `.lower(lowering_platforms=("cuda",))`, and "donated", the
        number of arrays in the step's state.
    """
    with accelerated():
        config = config_of(name)
        dataset = random_dataset(SHAPES[config.data.source], 10)
        layout = devices.make_layout("jit")
        model = make_model(config, dataset.num_classes)
        recipe = recipes.make_recipe(config, model, dataset.image_shape, recipes.make_telling(config, dataset), layout)

        def init() -> Any:
            params = recipes.init_params(model, jax.random.key(0), dataset.image_shape)
            return create_state(params, recipe.optimizer, tuple(recipe.averages))

        def integers(*shape: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(shape, jnp.int32)

        state = jax.eval_shape(init)
        images = jax.ShapeDtypeStruct((train_images, *dataset.image_shape), jnp.uint8)
        batches = integers(config.train.steps_per_dispatch, config.train.batch_size)
        step = devices.compile_step(
            partial(train_steps, recipe=recipe, axis_name=layout.axis_name),
            layout,
            sharding.state_shardings(layout, state),
        )
        sampler = Sampler(model, None, recipes.make_info(config, dataset), layout)
        key, weight = jax.eval_shape(lambda: jax.random.key(0)), jax.ShapeDtypeStruct((), jnp.float32)
        return {
            "training step": step.trace(
                state, {"x": images, "y": integers(train_images)}, {"index": batches, "rows": batches}
            ),
            "sampler": sampler.program(sampler.settings).trace(
                state.params, None, key, weight, integers(samples), integers(samples)
            ),
            "donated": len(jax.tree.leaves(state)),
        }
