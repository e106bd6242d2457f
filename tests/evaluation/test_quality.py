"""The figures that are logged during training."""

import numpy as np

from fmd import commands
from fmd.data import ImageDataset
from fmd.evaluation.quality import make_quality
from fmd.sampling.sampler import Sampler
from tests.helpers import judged, toys


def test_quality_is_logged_during_training(tmp_path):
    often = {"quality_every": 3, "quality_samples": 72, "eval_every": 0}  # 64 pixels are compared
    config = toys.config(
        imports=["tests.helpers.judged"],
        data={"source": "as_many"},
        log=often,
        train={"num_steps": 6},
        checkpoint={"every": 3, "keep_best": 1},
    )
    run = commands.train_config(config, tmp_path / "run")
    assert [line["step"] for line in run.logs["quality"].lines] == [3, 6]  # step 3 has no validation loss
    assert run.logs["quality"].lines[-1]["fid"] > 0
    assert "validation_loss" in run.figures
    assert (tmp_path / "run" / "quality.csv").exists()


def test_the_figures_of_a_model(sampler, dataset):
    info = judged.make_info(log={"quality_samples": 16})
    found = make_quality(sampler.model, info, dataset, sampler.layout, extractor="quarters")(sampler.params)
    assert found.keys() == {"fid", "precision", "recall", "density", "coverage", "class_accuracy"}
    assert found["fid"] > 0
    assert 0 <= found["class_accuracy"] <= 1


def test_classes_are_drawn_as_often_as_the_test_split_has_them(sampler, dataset, monkeypatch):
    rare = dataset.test.take(np.r_[0:40:4, 1:5])  # ten of class 0, and one each of 1, 2, 3 and 0
    unequal = ImageDataset("toy", dataset.train, rare, toys.CLASSES, "one class is frequent")
    asked, sample = [], Sampler.sample

    def watched(self, y, *arguments, **options):
        asked.append(np.bincount(y, minlength=toys.CLASSES))
        return sample(self, y, *arguments, **options)

    monkeypatch.setattr(Sampler, "sample", watched)
    info = judged.make_info(log={"quality_samples": 28})
    make_quality(sampler.model, info, unequal, sampler.layout, extractor="quarters")(sampler.params)
    np.testing.assert_array_equal(asked[0], 2 * np.bincount(rare.labels))
