"""A package that is not installed with fmd is asked for in one line that names its extra."""

import sys

import numpy as np
import pytest

from fmd import data
from fmd.pictures import plots
from fmd.training import callbacks

ONE = np.zeros((2, 2, 1), np.uint8), 0  # an image and its label


@pytest.mark.parametrize(
    ("package", "extra", "use"),
    [
        ("cloudpickle", "stream", lambda: data.ImageStream([ONE], batch_size=1, seed=0, workers=1)),
        ("tensorflow_datasets", "tfds", lambda: data.load("tfds", name="cifar10")),
        ("matplotlib.figure", "notebooks", lambda: plots.loss_curves({"a": [(0, 1), (1, 2)]})),
        ("tensorboardX", "tensorboard", lambda: callbacks.load(["fmd.training.callbacks.writers:TensorBoard"])),
        ("wandb", "wandb", lambda: callbacks.load(["fmd.training.callbacks.writers:WeightsAndBiases"])),
    ],
)
def test_a_missing_package_is_one_line_that_names_the_extra(monkeypatch, package, extra, use):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"{package} cannot be imported") as raised:
        use()
    assert f"pip install 'flow-matching-designs[{extra}]'" in str(raised.value)
    assert "\n" not in str(raised.value)
