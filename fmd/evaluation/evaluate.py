"""Judges a model by its samples: distances to real images, classes, diversity, copies, and their cost.

Everything that decides a figure is recorded beside it, so that two figures can be compared or be seen not to compare:
the average of the weights, the settings of the sampler, number, classes and seed of the samples, the reference split,
and the features with their version. Samples are rounded to uint8, as a file would be, before anything is measured.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import Int32

import fmd
from fmd.blocks import Plain, as_plain, flatten, plain
from fmd.config import Settings
from fmd.data import ImageDataset
from fmd.data.sources.npz import read_archive
from fmd.devices import make_layout
from fmd.evaluation import features, generative, paired, real_features, sample_pool
from fmd.evaluation.features import Extractor
from fmd.evaluation.figures import measure
from fmd.evaluation.labels import FREQUENCIES, choose_labels
from fmd.evaluation.metrics import NEIGHBOURS, SUBSET_SIZE, SUBSETS
from fmd.evaluation.real_features import Reference
from fmd.evaluation.sample_pool import Pool
from fmd.evaluation.teacher import TeacherImages
from fmd.evaluation.validation import make_validation
from fmd.math import solvers
from fmd.math.simulators import TOLERANCE
from fmd.sampling import checks
from fmd.sampling.prior import flow_of
from fmd.sampling.sampler import Sampler
from fmd.telling import telling

ANOMALY_EXAMPLES = 500
VALIDATION_EXAMPLES = 5000  # enough for a validation loss of MNIST that is right to half a per cent


@dataclass(frozen=True)
class Request:
    """A request for figures; how to sample is said by `fmd.config.Settings`."""

    n_samples: int = 5000
    references: tuple[str, ...] = ("test",)  # splits of real images: "test", "train"
    features: str = "auto"  # see fmd.evaluation.features
    seed: int = 0
    classes: str = "reference"  # how often each is asked for: as in the first reference, or equally often
    likelihood_examples: int = 0  # test images whose likelihood is computed; 0: none, for it is slow
    likelihood_draws: int = 1  # dequantisations of each of them, see fmd.sampling.judging.bits_per_dim
    classify_examples: int = 0  # test images that the model itself classifies; 0: none
    against: str | None = None  # a data source whose images shall be told from the test images
    paired_examples: int = 0  # test images compared with what is drawn from their conditions; 0: none
    paired_draws: int = 4  # for each of them

    def __post_init__(self) -> None:
        if self.classes not in FREQUENCIES:
            raise ValueError(f"classes = {self.classes!r}; it must be one of {', '.join(FREQUENCIES)}")
        if self.likelihood_draws < 1:
            raise ValueError(f"likelihood_draws = {self.likelihood_draws}; it must be 1 or more")


def evaluate(
    sampler: Sampler,
    dataset: ImageDataset,
    request: Request,
    settings: Settings,
    *,
    folder: Path,
    quiet: bool = False,
    teacher: Sampler | None = None,
) -> Plain:
    """Draws the samples of a request and measures them.

    They are kept in `folder`, so that an interrupted evaluation goes on with the next call. `teacher` is a model whose
    images from the same noise are to be compared with.

    Returns:
        {"figures": ..., "settings": ..., "cost": ...}, all JSON. The cost has `training_flops` and what else
        `fmd.checkpoints.spent` finds, where the run has said it.

    Raises:
        ValueError: where the data set is not the model's, there are too few samples, or a setting is wrong.
    """
    if request.likelihood_examples:
        flow_of(sampler, "bits per dimension")  # refused now, not after the samples
    strange = None if request.against is None else generative.strange(sampler, request.against)
    result = judge_samples(sampler, dataset, request, settings, folder=folder, quiet=quiet)
    figures, test = result["figures"], dataset.test
    same: Plain = {"seed": request.seed, "quiet": quiet}
    count = min(VALIDATION_EXAMPLES, len(test))
    validate = make_validation(sampler.model, sampler.info, test, sampler.layout, examples=count)
    figures |= validate(sampler.params)
    result["settings"]["validation_examples"] = count
    if sampler.info.cost is not None:
        result["cost"] |= {f"training_{name}": value for name, value in sampler.info.cost.items()}
    if teacher is not None:
        taught = TeacherImages(sampler, teacher, labels_of(request, dataset), **same)
        figures["distance_to_teacher"] = taught.distance(sampler, settings)
    if count := request.likelihood_examples:
        draws = request.likelihood_draws
        figures["likelihood"] = generative.likelihood(sampler, test, examples=count, draws=draws, **same)
    if count := request.classify_examples:
        figures["classification"] = generative.classification(sampler, test, examples=count, **same)
    if strange is not None:
        found = generative.anomalies(sampler, dataset, strange, examples=ANOMALY_EXAMPLES, **same)
        figures["anomalies"] = {"against": request.against, **found}
    return result


def judge_samples(
    sampler: Sampler, dataset: ImageDataset, request: Request, settings: Settings, *, folder: Path, quiet: bool = False
) -> Plain:
    """`evaluate` without what does not depend on the settings, such as validation loss and likelihood."""
    check_fits(sampler, dataset)
    if request.paired_examples:
        paired.check(sampler)
    extractor = features.get(request.features, dataset)
    recorded = settings_of(sampler, request, settings)  # refused now, not after the real images
    real = real_features.references(dataset, request.references, extractor, samples=request.n_samples, quiet=quiet)
    labels = labels_of(request, dataset)
    which = "equally often" if request.classes == "balanced" else f"as often as in the {recorded['classes']} split"
    logging.info("asking for each class %s", which)
    drawn = sample_pool.draw(sampler, dataset.test, labels, settings, seed=request.seed, folder=folder, quiet=quiet)
    if failed := int((~drawn.success).sum()):
        logging.warning("%d of %d samples did not reach t = 1, and are judged as they are", failed, len(labels))
    figures = measure(drawn.images, labels, dataset, real, extractor, sampler.layout)
    if request.paired_examples:
        figures["paired"] = paired.measure(
            sampler, dataset, settings, examples=request.paired_examples, draws=request.paired_draws,
            seed=request.seed, quiet=quiet,
        )  # fmt: skip
    return {"figures": figures, "settings": recorded | yardstick(dataset, extractor, real), "cost": cost_of(drawn)}


def judge_file(path: Path, dataset: ImageDataset, request: Request, *, quiet: bool = False) -> Plain:
    """The figures of samples that lie in a file, whoever drew them.

    It is an .npz with `images` uint8 [N, H, W, C] and `labels` int [N], as `--mode=sample` writes it. Of the request
    the references and the features count.

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
    real = real_features.references(dataset, request.references, extractor, samples=len(images), quiet=quiet)
    figures = measure(images, labels, dataset, real, extractor, make_layout())
    settings = {"references": list(request.references), "n_samples": len(images), "fmd": fmd.__version__}
    return {"figures": figures, "settings": settings | yardstick(dataset, extractor, real)}


def check_fits(sampler: Sampler, dataset: ImageDataset) -> None:
    """Raises ValueError where the data set is not of the model's shape, classes and conditions.

    Other images, by their digest, are worth a warning: a model may be judged against any that are of its kind.
    """
    if dataset.image_shape != sampler.image_shape or dataset.num_classes != sampler.num_classes:
        raise ValueError(
            f"the model is for {sampler.image_shape} images of {sampler.num_classes} classes, but the data set now "
            f"has {dataset.image_shape} and {dataset.num_classes}; restore the data it was trained on"
        )
    info = sampler.info
    told = telling(info.config, info.image_shape, info.num_classes, dataset.conditions).spec
    if plain(told) != plain(sampler.info.conditions):
        raise ValueError(
            f"the model is told {sampler.info.conditions or 'labels'}, but the data set now has "
            f"{told or 'labels'}; restore the data it was trained on"
        )
    if renamed := checks.renamed_classes(sampler.info.class_names, dataset.class_names):
        raise ValueError(f"the classes are not those that the model was trained on: {renamed}; restore their names")
    if sampler.info.data_digest not in (None, dataset.digest()):
        logging.warning("%s holds other data than the model was trained on", dataset.name)


def labels_of(request: Request, dataset: ImageDataset) -> Int32[np.ndarray, " N"]:
    """The labels of the samples that a request asks for."""
    counts = dataset.class_counts()
    trained = np.arange(max(dataset.num_classes, 1)) if counts is None or not counts.any() else np.flatnonzero(counts)
    like = trained.astype(np.int32)
    if request.classes != "balanced":
        there = real_features.labels_of(dataset, request.references[0])
        like = there[np.isin(there, trained)] if np.isin(there, trained).any() else there
    return choose_labels(request.n_samples, dataset.num_classes, like)


def settings_of(sampler: Sampler, request: Request, settings: Settings) -> Plain:
    """All that decides the samples. ValueError for settings that the method or the model does not allow.

    `classes` is the split whose frequencies they have, or "balanced". `sample` holds all settings by their names in a
    config. Of those beside it, `steps` and `grid` are None for a solver that chooses its own, `tolerance` for others.
    """
    checks.check(sampler.method, sampler.info, settings)
    adaptive = settings.solver in solvers.ADAPTIVE
    tolerance = TOLERANCE if settings.rtol is None else settings.rtol
    return {
        **asdict(request),
        "references": list(request.references),
        "classes": "balanced" if request.classes == "balanced" else request.references[0],
        "method": plain(sampler.info.config.method),
        "sample": as_plain(settings),
        "rule": plain(settings.guidance),
        "weight": settings.weight,
        "solver": settings.solver,
        "steps": None if adaptive else settings.steps,
        "tolerance": tolerance if adaptive else None,
        "grid": None if adaptive else plain(settings.grid),
        "average": sampler.info.average,
        "step": sampler.info.step,
        "rounding": "uint8, clip(round((x + 1) * 127.5), 0, 255)",
        "fmd": fmd.__version__,
        "trained_by_fmd": sampler.info.fmd_version,
    }


def yardstick(dataset: ImageDataset, extractor: Extractor, real: Mapping[str, Reference]) -> Plain:
    """The real images and the features that samples are compared with."""
    return {
        "data": dataset.name,
        "data_digest": dataset.digest(),
        "features": extractor.name,
        "reference_images": {name: split.moments.count for name, split in real.items()},
        "neighbours": NEIGHBOURS,
        "neighbours_among": {name: len(split.cloud) for name, split in real.items()},
        "kid_subsets": SUBSETS,
        "kid_subset_size": SUBSET_SIZE,
    }


def cost_of(drawn: Pool) -> Plain:
    """Evaluations and time of drawing the samples."""
    return {
        "evaluations_per_image": float(drawn.evaluations.mean()),
        "seconds": drawn.seconds,
        "images_per_second": len(drawn.labels) / drawn.seconds if drawn.seconds else None,
        "failed": int((~drawn.success).sum()),
    }


def table(result: Plain) -> str:
    """The figures of `evaluate` for people, a line each; those of each class are in the file only."""
    figures = [(name, value) for name, value in flatten(result["figures"]) if not isinstance(value, list)]
    return "\n".join(f"{name:>28}  {_in_words(value)}" for name, value in figures)


def _in_words(value: str | float | int | None) -> str:
    """A number with six digits, or a dash for None."""
    return "-" if value is None else value if isinstance(value, str) else format(value, ".6g")
