"""Shared by the tests of training: a small network, 96 images of noise, and a lab to step in.

The network compiles in a second. Its output convolution does not start at zero, so every parameter gets a gradient.
As a module of `config.imports` it also serves runs in a process of their own (`write_config`, `run_fmd`).
"""

import dataclasses
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fmd import config as configs
from fmd import devices, sharding
from fmd.data import ImageDataset, Split, register_source
from fmd.models.registry import register_model
from fmd.sampling.sampler import make_model
from fmd.training import feed as feeds
from fmd.training import recipe as recipes
from fmd.training.callbacks import Callback
from fmd.training.state import create_state
from fmd.training.step import train_steps

CLASSES = 4
UNET = {"name": "unet", "base_channels": 8, "channel_multipliers": [1], "num_res_blocks": 1, "embedding_dim": 16}
_starts = {}  # states at step 0 on the host, so that labs of the same network need not draw it again


@register_model("toy")
class Toy(nn.Module):
    num_classes: int
    width: int = 8
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, t, y, train=False):
        h = nn.Conv(self.width, (3, 3))(x)
        h = h + nn.Dense(self.width)(jnp.stack([t, t**2], -1))[:, None, None]
        h = h + nn.Embed(self.num_classes + 1, self.width)(y)[:, None, None]
        h = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(h))
        return nn.Conv(x.shape[-1], (3, 3))(h)


@register_model("toy_jumps")
class ToyJumps(nn.Module):
    """A network that takes a second time, and compiles in half the time of a UNet; at r = t as if there were none."""

    num_classes: int
    width: int = 8
    second_time: bool = False

    @nn.compact
    def __call__(self, x, t, y, train=False, r=None):
        told = nn.Dense(self.width, name="time")(t[:, None]) + nn.Embed(self.num_classes + 1, self.width)(y)
        if self.second_time:
            later = (t if r is None else r) - t
            told = told + nn.Dense(self.width, use_bias=False, kernel_init=nn.zeros, name="step")(later[:, None])
        h = nn.silu(nn.Conv(self.width, (3, 3), name="enter")(x) + told[:, None, None])
        return nn.Conv(x.shape[-1], (3, 3), name="leave")(h)


@register_source("toy")
def dataset(size: int = 96) -> ImageDataset:
    random = np.random.default_rng(0)

    def split(count):
        labels = np.arange(count, dtype=np.int32) % CLASSES
        shade = 60 * labels[:, None, None, None]
        return Split((shade + random.integers(0, 60, (count, 8, 8, 1))).astype(np.uint8), labels)

    return ImageDataset("toy", split(size), split(40), CLASSES, "made up by the tests")


@register_source("toy_pairs")
def pairs(size: int = 96) -> ImageDataset:
    """The toy, each image told its own at half the size, uint8, as the part `low`."""

    def told(split):
        low = split.images.reshape(-1, 4, 2, 4, 2, 1).mean((2, 4)).astype(np.uint8)
        return Split(split.images, {"label": split.labels, "low": low})

    plain = dataset(size)
    return ImageDataset("toy_pairs", told(plain.train), told(plain.test), CLASSES, plain.provenance)


def settings(**overrides):
    """A short run of the toy as a plain dictionary; overrides are blocks, e.g. train={"num_steps": 3}."""
    base = {
        "imports": ["tests.helpers.toys"],
        "data": {"source": "toy"},
        "model": {"name": "toy"},
        "path": {"times": {"name": "uniform", "stratified": True}},
        "train": {"num_steps": 12, "batch_size": 16, "label_dropout": 0.2},
        "optimizer": {"name": "adamw", "learning_rate": 1e-2, "warmup_steps": 3, "weight_decay": 1e-2},
        "ema": {"decays": [0.9, 0.99], "power_stds": [0.1]},
        "sample": {"guidance": {"name": "cfg", "weight": 2.0}, "steps": 3},
        "checkpoint": {"every": 4},
        "log": {"every": 3, "eval_every": 4, "eval_examples": 40, "samples_every": 4, "samples_per_class": 2},
    }
    for key, value in overrides.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict) and "name" not in value:
            value = {**base[key], **value}
        base[key] = value
    return base


def config(**overrides):
    return configs.resolve(settings(**overrides))


def layout(mode, count, fsdp=1):
    """The first `count` of the host devices, as `config.parallel` would use them."""
    return devices.make_layout(mode, fsdp=fsdp, devices=jax.devices()[:count])


class Lab:
    """One config on one layout, compiled: `lab.run(3)` returns the state and the last report after three steps."""

    def __init__(self, config, layout, data=None, smallest=devices.SMALLEST_SHARDED):
        layout = dataclasses.replace(layout, smallest=smallest)
        self.config, self.layout, self.data = config, layout, data or dataset()
        shape, tells = self.data.image_shape, recipes.make_telling(config, self.data)
        self.told = tells.spec
        self.model = make_model(config, self.data.num_classes, self.told)
        self.recipe = recipes.make_recipe(config, self.model, shape, tells, layout)
        self.abstract = jax.eval_shape(self.init)
        self.shardings = sharding.state_shardings(layout, self.abstract, sharding.stacks_of(self.model))
        step = partial(train_steps, recipe=self.recipe, axis_name=layout.axis_name)
        self.program = devices.compile_step(step, layout, self.shardings)
        self.resident = devices.replicate(layout, {"x": self.data.train.images, "y": self.data.train.y})

    def init(self):
        params = recipes.init_params(self.model, jax.random.key(0), self.data.image_shape, self.told)
        logs = getattr(self.recipe.method, "logs", ())
        return create_state(params, self.recipe.optimizer, tuple(self.recipe.averages), logs, tuning=self.recipe.tuning)

    def start(self):
        """The state at step 0, in buffers of its own."""
        config = self.config
        parts = config.model, config.method, config.optimizer, config.ema, config.lora, config.train.freeze
        key = repr((*parts, self.data.image_shape))
        if key not in _starts:
            _starts[key] = jax.device_get(jax.jit(self.init)())
        # A computation, because device_put may alias the host's memory, and the state is donated.
        return jax.jit(lambda state: state, out_shardings=self.shardings)(_starts[key])

    def placed(self):
        """The abstract state with its shardings, as `Store.restore` wants it."""
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), self.abstract, self.shardings
        )

    def feed(self, start=0):
        for feed in feeds.feed(self.config, self.data, start):
            yield devices.place_feed(self.layout, feed)

    def run(self, steps, state=None):
        state = self.start() if state is None else state
        report = None
        for _, feed in zip(range(steps), self.feed(int(state.step)), strict=False):
            state, report = self.program(state, self.resident, feed)
        return state, report


class SignalAt(Callback):
    """Sends this process a signal: TOY_SIGNAL="KILL 7" after step 7, in every process or in that of TOY_PROCESS.

    A save under way is completed first, so that it is known which checkpoint a run goes on from.
    """

    def on_step_end(self, run):
        name, step = os.environ.get("TOY_SIGNAL", "KILL -1").split()
        mine = os.environ.get("TOY_PROCESS", str(jax.process_index())) == str(jax.process_index())
        if run.step == int(step):
            run.store.wait()
        if mine and run.step == int(step):
            os.kill(os.getpid(), getattr(signal, f"SIG{name}"))


def write_config(folder: Path, **overrides) -> Path:
    path = folder / "toy.py"
    values = settings(**overrides)
    values["log"] = {**values["log"], "callbacks": ["tests.helpers.toys:SignalAt"]}
    path.write_text(
        f"from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict({values!r})\n"
    )
    return path


def environment(devices=1, **values) -> dict[str, str]:
    """For a process of its own: compiles as the tests do, and sees so many devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"  # the last one counts
    return {**os.environ, "XLA_FLAGS": flags, **values}


def start_fmd(*arguments, devices=1, **values) -> subprocess.Popen:
    """Starts the command line in a process of its own."""
    env = environment(devices, **{"PYTHONPATH": str(Path(__file__).parents[2]), **values})
    command = [sys.executable, "-m", "fmd.main", *map(str, arguments)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run_fmd(*arguments, **options) -> tuple[int, str]:
    """Runs the command line to its end: (exit code, output). Minus the signal's number where one ended it."""
    process = start_fmd(*arguments, **options)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output
