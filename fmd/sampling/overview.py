"""The picture that shows what a model draws: a row per class, or per test image for a model that is told an image."""

from dataclasses import dataclass

import numpy as np

from fmd.data import ImageDataset
from fmd.models import conditions
from fmd.pictures.grids import Rows, choose_rows, draw_grid
from fmd.run_info import RunInfo
from fmd.sampling import inputs
from fmd.sampling.sampler import Sampler, Samples
from fmd.telling import rows_like, tell_rows
from fmd.types import Condition, Params, TypedKey

EXAMPLES = 8  # test images in the picture
PER_ROW = 8  # draws of a row


@dataclass(frozen=True)
class Overview:
    """The conditions of a picture, and how many images are in a row of it.

    Without `rows` of classes, a row is a condition, its draws and the truth.
    """

    info: RunInfo
    asked: inputs.Inputs
    per_row: int
    rows: Rows | None = None

    @classmethod
    def of(cls, info: RunInfo, dataset: ImageDataset | None, per_row: int = PER_ROW) -> "Overview":
        """The picture with `per_row` draws in a row; without a data set nothing is told but labels."""
        if dataset is not None and inputs.told_an_image(info):
            return cls(info, inputs.of_test_images(info, dataset, EXAMPLES), per_row)
        rows = choose_rows(info.classes, info.class_names, per_row)
        if dataset is None:
            told: Condition = _labels_alone(info, rows.labels)
        else:
            told = tell_rows(info, dataset.test, rows_like(dataset.test, rows.labels), rows.labels)
        if info.conditions is not None and "label" not in info.conditions:
            rows = rows._replace(names=[""] * len(rows.names))
        return cls(info, inputs.Inputs(told, rows.labels), per_row, rows)

    def draw(self, sampler: Sampler, key: TypedKey, *, params: Params | None = None, quiet: bool = False) -> Samples:
        """The images of the picture."""
        draws = self.per_row if self.rows is None else 1
        return inputs.draw(sampler, self.asked, key, draws=draws, params=params, quiet=quiet)

    def picture(self, images: np.ndarray) -> np.ndarray:
        """The picture of such images uint8 [N, H, W, C]: uint8 [.., .., 1 or 3]."""
        if self.rows is not None:
            return draw_grid(images, self.rows)
        scale = max(1, 56 // images.shape[1])
        return inputs.picture(self.info, self.asked, images, draws=self.per_row, scale=scale)

    @property
    def caption(self) -> str:
        """The picture in words."""
        if self.rows is None:
            return "A row per test image: what the model is told, its draws, the truth"
        return "A grid of samples" + ", a row per class" * any(self.rows.names)


def _labels_alone(info: RunInfo, labels: np.ndarray) -> Condition:
    if info.conditions is None:
        return labels
    y = {**conditions.example(info.conditions, len(labels))}
    untold = [name for name in y if name != "label"]
    return conditions.drop(
        y | {"label": labels} if "label" in y else y, info.conditions, info.num_classes, parts=untold
    )
