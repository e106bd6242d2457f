"""Judges a model by its samples: distances to real images, classes, diversity, copies, and what it cost.

Everything that decides a figure is recorded beside it, so that two figures can be compared or be seen not to compare:
the average of the weights, solver, steps, guidance, number of samples, seed, reference split, and the features with
their version. Samples are rounded to uint8, as a file would be, before anything is measured.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from absl import logging

import fmd
from fmd.data import ImageDataset, StreamedSplit, batch_indices
from fmd.data.npz import read_archive
from fmd.evaluation import bits, classes, features, pool, reference
from fmd.evaluation.distances import (
    NEIGHBOURS,
    SUBSET_SIZE,
    SUBSETS,
    frechet_distance,
    kernel_distance,
    moments,
    nearest_squares,
    neighbourhoods,
)
from fmd.evaluation.pool import Pool
from fmd.evaluation.validation import make_validation
from fmd.math.simulators import TOLERANCE
from fmd.sampling.program import choose
from fmd.sampling.sampler import Sampler
from fmd.utils.distributed import Layout, is_main_process, make_layout
from fmd.utils.nested import flatten
from fmd.utils.seed import stream

COPIES_AMONG = 1000  # samples, and test images, whose nearest training image is looked up
COPY_QUANTILE = 0.01
COPIES_AT_ONCE = 10_000  # training images held as float32
VALIDATION_EXAMPLES = 5000  # enough for a validation loss of MNIST that is right to half a per cent


@dataclass(frozen=True)
class Request:
    """What to measure. None means the config's own setting."""

    n_samples: int = 5000  # all classes in turn
    references: tuple[str, ...] = ("test",)  # splits of real images: "test", "train"
    features: str = "auto"  # see fmd.evaluation.features
    weight: float | None = None
    rule: dict[str, Any] | None = None
    solver: str | None = None
    steps: int | None = None
    grid: dict[str, Any] | None = None
    tolerance: float | None = None  # of an adaptive solver, relative and absolute; None: the solver's own default
    seed: int = 0
    likelihood_examples: int = 0  # test images whose likelihood is computed; 0: none, for it is slow

    @property
    def sampling(self) -> dict[str, Any]:
        """The settings that `Sampler.sample` takes."""
        chosen = {key: getattr(self, key) for key in ("weight", "rule", "solver", "steps", "grid")}
        return chosen | {"rtol": self.tolerance, "atol": self.tolerance}


def evaluate(
    sampler: Sampler, dataset: ImageDataset, request: Request, *, folder: Path, quiet: bool = False
) -> dict[str, Any]:
    """Draws the samples of a request and measures them.

    Args:
        sampler: the model.
        dataset: the real images.
        request: what to measure.
        folder: where samples are kept until the next call, so that an interrupted evaluation goes on.
        quiet: without progress bars.

    Returns:
        {"figures": ..., "settings": ..., "cost": ...}, all JSON.

    Raises:
        ValueError: where the data set is not the model's, there are too few samples, or a setting is wrong.
    """
    result = judge_samples(sampler, dataset, request, folder=folder, quiet=quiet)
    figures = result["figures"]
    validation = make_validation(
        sampler.model, sampler.facts, dataset.test, sampler.layout, examples=VALIDATION_EXAMPLES
    )
    figures |= validation(sampler.params)
    result["settings"]["validation_examples"] = min(VALIDATION_EXAMPLES, len(dataset.test))
    if request.likelihood_examples:
        figures["likelihood"] = bits.measure(
            sampler, dataset.test, examples=request.likelihood_examples, seed=request.seed, quiet=quiet
        )
    return result


def judge_samples(
    sampler: Sampler, dataset: ImageDataset, request: Request, *, folder: Path, quiet: bool = False
) -> dict[str, Any]:
    """`evaluate` without what does not depend on the samples: validation loss and likelihood."""
    check_fits(sampler, dataset)
    extractor = features.get(request.features, dataset)
    settings = settings_of(sampler, request)  # refused now, not after the real images
    real = real_images(dataset, request.references, extractor, samples=request.n_samples, quiet=quiet)
    drawn = pool.draw(
        sampler, request.n_samples, seed=request.seed, folder=folder, settings=request.sampling, quiet=quiet
    )
    if failed := int((~drawn.success).sum()):
        logging.warning("%d of %d samples did not reach t = 1, and are judged as they are", failed, len(drawn.labels))
    figures = measure(drawn.images, drawn.labels, dataset, real, extractor, sampler.layout)
    return {"figures": figures, "settings": settings | yardstick(dataset, extractor, real), "cost": cost_of(drawn)}


def during_training(run: Any) -> Callable[[Any], dict[str, float]]:
    """A function from parameters to the main figures against the test split, for `fmd.training.callbacks.Evaluate`."""
    sampler = Sampler.from_facts(run.facts, model=run.model, layout=run.layout)
    extractor = features.get("auto", run.dataset)
    count = run.config.log.quality_samples
    named = "config.log.quality_samples"
    quiet = not is_main_process()
    real = real_images(run.dataset, ("test",), extractor, samples=count, named=named, quiet=quiet)["test"]
    labels = pool.balanced_labels(count, sampler.num_classes)

    def evaluate(params: Any) -> dict[str, float]:
        images = sampler(labels, stream(run.config.seed, "eval"), params=params)
        vectors, logits = next(features.compute(extractor, iter([images]), run.layout))
        figures = {"fid": frechet_distance(moments([vectors]), real.moments)}
        figures |= neighbourhoods(real.cloud[: len(labels)], vectors)
        if knows_classes(logits, run.dataset):
            figures["class_accuracy"] = classes.accuracy(logits, labels)["class_accuracy"]
        return figures

    return evaluate


def check_fits(sampler: Sampler, dataset: ImageDataset) -> None:
    """Raises ValueError where the data set is not of the model's shape and classes."""
    if dataset.image_shape != sampler.image_shape or dataset.num_classes != sampler.num_classes:
        raise ValueError(
            f"the model is for {sampler.image_shape} images of {sampler.num_classes} classes, but the data set now "
            f"has {dataset.image_shape} and {dataset.num_classes}; restore the data it was trained on"
        )


def judge_file(path: Path, dataset: ImageDataset, request: Request, *, quiet: bool = False) -> dict[str, Any]:
    """The figures of samples that lie in a file, whoever drew them.

    Args:
        path: an .npz with `images` uint8 [N, H, W, C] and `labels` int [N], as `--mode=sample` writes it.
        dataset: the real images.
        request: of it the references and the features count.
        quiet: without progress bars.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it holds something else, images of another shape, or too few of them.
    """
    images, labels = read_archive(path)
    if labels is None:
        raise ValueError(f"{path} has no array 'labels': give the class that each image was asked for")
    if images.shape[1:] != dataset.image_shape:
        raise ValueError(f"{path} holds images {images.shape[1:]}; those of {dataset.name} are {dataset.image_shape}")
    extractor = features.get(request.features, dataset)
    real = real_images(dataset, request.references, extractor, samples=len(images), quiet=quiet)
    figures = measure(images, labels, dataset, real, extractor, make_layout())
    settings = {"references": list(request.references), "n_samples": len(images), "fmd": fmd.__version__}
    return {"figures": figures, "settings": settings | yardstick(dataset, extractor, real)}


def real_images(
    dataset: ImageDataset,
    names: Sequence[str],
    extractor: features.Extractor,
    *,
    samples: int,
    named: str = "n_samples",
    quiet: bool,
) -> dict[str, reference.Reference]:
    """The features of the splits to compare with. ValueError where they or the samples are too few."""
    real = {name: reference.get(dataset, name, extractor, quiet=quiet) for name in names}
    size = next(iter(real.values())).cloud.shape[1]
    if samples <= size:
        raise ValueError(f"{named}={samples} is too few for {size} features; draw more than {size}")
    for name, split in real.items():
        if split.moments.count <= size:
            raise ValueError(
                f"the {name} split's {split.moments.count} images are too few for {size} features; "
                f"compare with a larger split, or by smaller features"
            )
    return real


def measure(
    images: np.ndarray,
    labels: np.ndarray,
    dataset: ImageDataset,
    real: Mapping[str, reference.Reference],
    extractor: features.Extractor,
    layout: Layout,
) -> dict[str, Any]:
    """All figures of a set of samples, uint8 images with the labels that were asked for."""
    vectors, logits = next(features.compute(extractor, iter([images]), layout))
    figures: dict[str, Any] = {}
    own = moments([vectors])
    for name, split in real.items():
        kernel, error = kernel_distance(vectors, split.cloud)
        figures[name] = {
            "fid": frechet_distance(own, split.moments),
            "kid": kernel,
            "kid_standard_error": error,
            **neighbourhoods(split.cloud, vectors),
            "diversity": classes.diversity(vectors, labels),
            "diversity_of_real": classes.diversity(split.cloud, split.labels),
        }
    if logits is not None:
        figures["class_score"] = classes.score(logits)
    if knows_classes(logits, dataset):
        figures |= classes.accuracy(logits, labels)
    figures |= copies(images, dataset)
    return figures


def knows_classes(logits: np.ndarray | None, dataset: ImageDataset) -> TypeGuard[np.ndarray]:
    """Whether the features classify images as the data set's own classes, which Inception's do not."""
    return logits is not None and logits.shape[1] == dataset.num_classes


def copies(images: np.ndarray, dataset: ImageDataset) -> dict[str, Any]:
    """Whether samples are nearer to training images than unseen real images are, by squared pixel distance.

    copied            share of samples nearer to their training image than all but 1 % of the test images are to
                      theirs: 0.01 for a model as good as the data, more for one that repeats them
    nearest_ratio     median distance of samples to their nearest training image over that of test images
    """
    if isinstance(dataset.train, StreamedSplit):
        return {}
    train = dataset.train.images

    def nearest(some: np.ndarray) -> np.ndarray:
        """Of up to COPIES_AMONG of the images, in a fixed shuffle, the squared distances to their nearest."""
        chosen = some[batch_indices(0, 0, min(COPIES_AMONG, len(some)), len(some))]
        chosen = chosen.reshape(len(chosen), -1).astype(np.float32)
        found = np.full(len(chosen), np.inf, np.float32)
        for first in range(0, len(train), COPIES_AT_ONCE):
            part = train[first : first + COPIES_AT_ONCE]
            found = np.minimum(found, nearest_squares(chosen, part.reshape(len(part), -1).astype(np.float32)))
        return found

    of_test, of_samples = nearest(dataset.test.images), nearest(images)
    return {
        "copied": float((of_samples < np.quantile(of_test, COPY_QUANTILE)).mean()),
        "nearest_ratio": float(np.sqrt(np.median(of_samples) / np.median(of_test))) if np.median(of_test) else None,
    }


def settings_of(sampler: Sampler, request: Request) -> dict[str, Any]:
    """All that decides the samples, with the config's defaults filled in."""
    chosen = choose(sampler.facts, **request.sampling)
    return {
        **asdict(request),
        "references": list(request.references),
        "rule": chosen.rule,
        "weight": chosen.rule["weight"],
        "solver": chosen.solver,
        "steps": None if chosen.adaptive else chosen.steps,
        "tolerance": (request.tolerance or TOLERANCE) if chosen.adaptive else None,
        "grid": chosen.grid,
        "average": sampler.facts.get("average"),
        "step": sampler.facts.get("step"),
        "rounding": "uint8, clip(round((x + 1) * 127.5), 0, 255)",
        "fmd": fmd.__version__,
        "trained_by_fmd": sampler.facts.get("fmd_version"),
    }


def yardstick(
    dataset: ImageDataset, extractor: features.Extractor, real: Mapping[str, reference.Reference]
) -> dict[str, Any]:
    """What the samples are compared with, and how."""
    return {
        "data": dataset.name,
        "features": extractor.name,
        "reference_images": {name: split.moments.count for name, split in real.items()},
        "neighbours": NEIGHBOURS,
        "neighbours_among": {name: len(split.cloud) for name, split in real.items()},
        "kid_subsets": SUBSETS,
        "kid_subset_size": SUBSET_SIZE,
    }


def cost_of(drawn: Pool) -> dict[str, Any]:
    """What drawing the samples took."""
    return {
        "evaluations_per_image": float(drawn.evaluations.mean()),
        "seconds": drawn.seconds,
        "images_per_second": len(drawn.labels) / drawn.seconds if drawn.seconds else None,
        "failed": int((~drawn.success).sum()),
    }


def table(result: Mapping[str, Any]) -> str:
    """The figures of `evaluate` for people, a line each; what is said per class is in the file only."""
    figures = [(name, value) for name, value in flatten(result["figures"]) if not isinstance(value, list)]
    return "\n".join(f"{name:>28}  {'-' if value is None else format(value, '.6g')}" for name, value in figures)
