"""The distance to a teacher: nothing to itself from the same noise, and the variance of pictures to other noise."""

import dataclasses

import numpy as np
import pytest

from fmd.evaluation import teacher
from fmd.sampling.sampler import Sampler


def test_a_model_is_at_no_distance_from_itself_by_the_same_solver(sampler, monkeypatch):
    monkeypatch.setattr(teacher, "STEPS", 4)
    labels = np.zeros(6, np.int32)
    same = sampler.settings.replace(solver="midpoint", steps=4)
    assert teacher.distance(sampler, same, sampler, labels, 0, quiet=True) == 0
    other = sampler.settings.replace(solver="euler", steps=1)
    assert teacher.distance(sampler, other, sampler, labels, 0, quiet=True) > 1e-3


def test_a_teacher_of_other_images_is_refused(sampler):
    info = dataclasses.replace(sampler.info, image_shape=(4, 4, 1))
    small = Sampler.from_info(info, params=sampler.params, model=sampler.model)
    with pytest.raises(ValueError, match=r"--teacher makes \(4, 4, 1\) images"):
        teacher.distance(sampler, sampler.settings, small, np.zeros(2, np.int32), 0, quiet=True)
