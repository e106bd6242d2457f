"""From a config to the parts of a run: model, recipe, and what the run stores about itself."""

import jax
import jax.numpy as jnp
import numpy as np

from fmd import methods
from fmd.blocks import Plain
from fmd.config import Config
from fmd.data import ImageDataset
from fmd.devices import Layout
from fmd.models import conditions
from fmd.models.contract import Model, check_contract
from fmd.run_info import RunInfo
from fmd.sharding import gather_params, stacks_of
from fmd.telling import Telling, telling
from fmd.training import averages, optimizers
from fmd.training.augment import Augment
from fmd.training.origin import Teacher
from fmd.training.step import Recipe
from fmd.training.tuning import tuning_of
from fmd.types import Params


def make_telling(config: Config, dataset: ImageDataset) -> Telling:
    """From examples of a data set to the condition that a config tells its network."""
    return telling(config, dataset.image_shape, dataset.num_classes, dataset.conditions)


def init_params(model: Model, key: jax.Array, image_shape: tuple[int, int, int], told: Plain | None = None) -> Params:
    """Initial parameters of a model for images and conditions like these."""
    x, t = jnp.zeros((2, *image_shape)), jnp.zeros(2)  # as in `check_contract`, whose trace JAX then uses again
    params: Params = model.init(key, x, t, conditions.example(told, 2))["params"]
    return params


def make_recipe(
    config: Config,
    model: Model,
    image_shape: tuple[int, int, int],
    tells: Telling,
    layout: Layout | None = None,
    teacher: Teacher | None = None,
) -> Recipe:
    """Everything that stays the same during a run, for the devices of `layout` (default: one).

    Raises ValueError for parts that do not fit, a model that breaks the contract among them.
    """
    o, method = config.optimizer, methods.from_config(config)
    told = tells.spec
    stochastic = check_contract(model, image_shape, told, **methods.inputs_of(config))
    learning_rate = optimizers.learning_rate(
        o.learning_rate,
        config.train.num_steps,
        warmup_steps=o.warmup_steps,
        decay=o.decay,
        final_fraction=o.final_fraction,
    )
    optimizer = optimizers.get(
        o.name, schedule=learning_rate, clip_norm=o.clip_norm, weight_decay=o.weight_decay, b1=o.b1, b2=o.b2
    )
    critic = getattr(method, "needs_critic", False)
    if (config.data.flip or config.data.shift) and (beside := tells.beside):
        raise ValueError(
            f"config.data.flip and shift change the images, but not condition {beside[0]!r}, which lies beside them; "
            f"say --config.data.flip=False --config.data.shift=0"
        )
    return Recipe(
        apply=gather_params(layout, model),
        method=method,
        optimizer=optimizers.with_critic(optimizer, getattr(method, "critic_rate", 1.0)) if critic else optimizer,
        learning_rate=learning_rate,
        averages=averages.averages(config.ema.decays, config.ema.power_stds),
        seed=config.seed,
        batch_size=config.train.batch_size,
        log_every=config.log.every,
        num_classes=model.num_classes,
        conditions=told,
        tuning=tuning_of(
            config, lambda: init_params(model, jax.random.key(0), image_shape, told), critic, stacks_of(model)
        ),
        frozen=None if teacher is None else teacher.network,
        augment=Augment(config.data.flip, config.data.shift),
        tell=tells.in_training,
        stochastic=stochastic,
        accumulation=config.train.grad_accumulation,
        skip_nonfinite=config.train.on_nonfinite == "skip",
    )


def make_info(config: Config, dataset: ImageDataset) -> RunInfo:
    """Everything that a checkpoint must say to be sampled from without the data or the config file."""
    counts = dataset.class_counts()
    counts = np.ones(1) if counts is None else counts  # streamed: not known
    return RunInfo(
        config=config,
        image_shape=dataset.image_shape,
        num_classes=dataset.num_classes,
        train_images=len(dataset.train),
        averages=tuple(averages.averages(config.ema.decays, config.ema.power_stds)),
        provenance=dataset.provenance,
        class_names=dataset.class_names,
        empty_classes=tuple(np.flatnonzero(counts == 0).tolist()) or None,
        conditions=make_telling(config, dataset).spec,
        data_digest=dataset.digest(),
    )
