"""The main figures of a model against the test split, measured again and again while it is trained."""

from collections.abc import Callable

from fmd.data import ImageDataset
from fmd.devices import Layout
from fmd.evaluation import classes, features
from fmd.evaluation.figures import knows_classes
from fmd.evaluation.labels import choose_labels
from fmd.evaluation.metrics import frechet_distance, moments, neighbourhoods
from fmd.evaluation.real_features import references
from fmd.models.contract import Model
from fmd.processes import is_main_process
from fmd.randomness import stream
from fmd.run_info import RunInfo
from fmd.sampling.sampler import Sampler
from fmd.telling import rows_like, tell_rows
from fmd.types import Params


def make_quality(
    model: Model, info: RunInfo, dataset: ImageDataset, layout: Layout, *, extractor: str = "auto"
) -> Callable[[Params], dict[str, float | None]]:
    """A function from parameters to FID, precision, recall, density, coverage and, where known, the accuracy.

    `config.log.quality_samples` images are drawn with the settings of `config.sample`, classes as often as in the test
    split; `extractor` names the features, see `fmd.evaluation.features`.
    """
    sampler = Sampler.from_info(info, model=model, layout=layout)
    found = features.get(extractor, dataset)
    count, named = info.config.log.quality_samples, "config.log.quality_samples"
    quiet = not is_main_process()
    real = references(dataset, ("test",), found, samples=count, named=named, quiet=quiet)["test"]
    labels = choose_labels(count, info.num_classes, dataset.test.labels)
    y = tell_rows(info, dataset.test, rows_like(dataset.test, labels), labels)

    def evaluate(params: Params) -> dict[str, float | None]:
        images = sampler(y, stream(info.config.seed, "eval"), params=params)
        vectors, logits = next(features.compute(found, iter([images]), layout))
        figures: dict[str, float | None] = {"fid": frechet_distance(moments([vectors]), real.moments)}
        figures |= neighbourhoods(real.cloud[:count], vectors)
        if knows_classes(logits, dataset):
            figures["class_accuracy"] = classes.accuracy(logits, labels)["class_accuracy"]
        return figures

    return evaluate
