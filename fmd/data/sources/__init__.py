"""The sources of data by name: functions of keyword arguments that return an `ImageDataset`.

The module of a source is imported when somebody asks for it.
"""

from absl import logging

from fmd.data import inspection
from fmd.data.dataset import ImageDataset
from fmd.registry import Registry

SOURCES: Registry[ImageDataset] = Registry(
    "data source",
    built_in={
        "array_record": "fmd.data.sources.array_record",
        "digits": "fmd.data.sources.digits",
        "fashion_mnist": "fmd.data.sources.mnist",
        "folder": "fmd.data.sources.folder",
        "idx": "fmd.data.sources.idx",
        "mnist": "fmd.data.sources.mnist",
        "npz": "fmd.data.sources.npz",
        "pairs": "fmd.data.sources.pairs",
        "tfds": "fmd.data.sources.tfds",
    },
)
register_source, source_names = SOURCES.register, SOURCES.names


def load(source: str, **params: object) -> ImageDataset:
    """The data set of a source.

    Logs where the images came from, the classes with counts, and doubts about the images.

    Args:
        source: its name.
        params: keyword arguments of the source.

    Raises:
        UnknownName: for an unknown source.
        ValueError: for a parameter that the source does not have or that is not of its annotated type.
        FileNotFoundError, ValueError, RuntimeError: as the source raises them, always one line.
    """
    dataset = SOURCES.build(source, params)
    logging.info(
        "%s: %d train and %d test images, %s", source, len(dataset.train), len(dataset.test), dataset.provenance
    )
    if classes := inspection.classes(dataset):
        logging.info("%s", classes)
    for doubt in inspection.doubts(dataset):
        logging.warning("%s: %s", source, doubt)
    return dataset
