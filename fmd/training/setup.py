"""From a config to the parts of a run: model, recipe, feed and the facts that a checkpoint carries."""

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

import fmd
from fmd.data import ImageDataset, Split, StreamedSplit, dispatch_indices
from fmd.math import couplings, schedules, times
from fmd.models.conditional_vector_field import check_contract
from fmd.models.registry import build_model
from fmd.training import ema, optimizers
from fmd.training.losses import Objective
from fmd.training.step import Recipe
from fmd.utils.distributed import Layout, gather_params

RESIDENT_LIMIT = 2**30  # bytes of training images that go to the device by default


def parts(block: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and the parameters of a block such as {"name": "linear", "sigma_min": 0.01}."""
    return block["name"], {key: value for key, value in block.items() if key != "name"}


def make_model(config: Any, image_shape: tuple[int, int, int], num_classes: int) -> Any:
    """The network of a config, checked against the contract for these images. Raises ValueError where it breaks it."""
    name, params = parts(config.model)
    if params.get("num_classes", num_classes) != num_classes:
        raise ValueError(
            f"config.model.num_classes = {params['num_classes']}, but the data set has {num_classes}; leave it out"
        )
    model = build_model(name, {**params, "num_classes": num_classes})
    check_contract(model, image_shape)
    return model


def make_recipe(config: Any, model: Any, layout: Layout | None = None) -> Recipe:
    """What stays the same during a run, from its config and model, for the devices of `layout` (default: one).

    Raises ValueError for parts that do not fit.
    """
    schedule_name, schedule_params = parts(config.path.schedule)
    times_name, times_params = parts(config.path.times)
    coupling_name, coupling_params = parts(config.path.coupling)
    sampler = times.get(times_name, **times_params)
    if config.train.weighting == "velocity" and config.path.prediction != "velocity" and not sampler.clip:
        raise ValueError(
            f"config.train.weighting = 'velocity' with config.path.prediction = {config.path.prediction!r} gives "
            f"infinite weights at an end of [0, 1]; set config.path.times.clip, e.g. to 0.01"
        )
    o = config.optimizer
    learning_rate = optimizers.learning_rate(
        o.learning_rate,
        config.train.num_steps,
        warmup_steps=o.warmup_steps,
        decay=o.decay,
        final_fraction=o.final_fraction,
    )
    return Recipe(
        apply=model.apply if layout is None else gather_params(layout, model.apply),
        objective=Objective(
            schedule=schedules.get(schedule_name, **schedule_params),
            prediction=config.path.prediction,
            loss=config.train.loss,
            weighting=config.train.weighting,
        ),
        optimizer=optimizers.get(
            o.name, schedule=learning_rate, clip_norm=o.clip_norm, weight_decay=o.weight_decay, b1=o.b1, b2=o.b2
        ),
        learning_rate=learning_rate,
        averages=ema.averages(config.ema.decays, config.ema.power_stds),
        times=sampler,
        coupling=couplings.get(coupling_name, **coupling_params),
        seed=config.seed,
        batch_size=config.train.batch_size,
        null_label=model.num_classes,
        label_dropout=config.train.label_dropout if model.num_classes else 0.0,
        log_every=config.log.every,
        flip=config.data.flip,
        shift=config.data.shift,
        accumulation=config.train.grad_accumulation,
        skip_nonfinite=config.train.on_nonfinite == "skip",
    )


def make_facts(config: Any, dataset: ImageDataset) -> dict[str, Any]:
    """What a checkpoint must say about itself to be sampled from without the data or the config file."""
    return {
        "fmd_version": fmd.__version__,
        "config": json.loads(json.dumps(dataclasses.asdict(config))),  # tuples become lists
        "image_shape": list(dataset.image_shape),
        "num_classes": dataset.num_classes,
        "train_images": len(dataset.train),
        "class_names": list(dataset.class_names) if dataset.class_names else None,
        "provenance": dataset.provenance,
        "averages": list(ema.averages(config.ema.decays, config.ema.power_stds)),
    }


def resident_split(config: Any, dataset: ImageDataset) -> Split | None:
    """The training split if it is to live on the devices, where batches are then gathered; None if it is streamed.

    Raises ValueError for config.data.resident = True with a set that is read from disk as it goes.
    """
    split, wanted = dataset.train, config.data.resident
    if isinstance(split, StreamedSplit):
        if wanted:
            raise ValueError(
                "config.data.resident = True, but this set is streamed from disk; leave one of the two out"
            )
        return None
    return split if wanted or (wanted is None and split.images.nbytes < RESIDENT_LIMIT) else None


def as_streamed(split: Split | StreamedSplit) -> StreamedSplit:
    """A split in memory read like one on disk: by threads that gather batches while the device computes."""
    if isinstance(split, StreamedSplit):
        return split
    pairs = list(zip(split.images, split.labels, strict=True))
    return StreamedSplit(pairs, split.image_shape)


def feed(config: Any, dataset: ImageDataset, start: int) -> Iterator[dict[str, np.ndarray]]:
    """Host arrays [steps, this process's part of the batch, ...] for each dispatch from step `start` on."""
    steps, batch = config.train.steps_per_dispatch, config.train.batch_size
    local = batch // jax.process_count()
    mine = slice(jax.process_index() * local, (jax.process_index() + 1) * local)
    index = np.broadcast_to(np.arange(batch, dtype=np.int32), (steps, batch))[:, mine]
    dispatches = range(start, config.train.num_steps, steps)
    if resident_split(config, dataset) is None:
        streamed = as_streamed(dataset.train).stream(
            batch_size=batch,
            seed=config.seed,
            step=start,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        with contextlib.closing(streamed):
            for _ in dispatches:
                images, labels = zip(*itertools.islice(streamed, steps), strict=True)
                yield {"index": index, "images": np.stack(images), "labels": np.stack(labels)}
        return
    for step in dispatches:
        rows = dispatch_indices(config.seed, step, steps, batch, len(dataset.train))[:, mine]
        yield {"index": index, "rows": rows}
