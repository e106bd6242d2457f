"""The distance to a teacher: nothing to itself from the same noise, and the variance of pictures to other noise."""

import dataclasses

import numpy as np
import pytest

from fmd.evaluation import teacher
from fmd.sampling.sampler import Sampler

LABELS = np.zeros(6, np.int32)


def test_a_model_is_at_no_distance_from_itself_by_the_same_solver(sampler, monkeypatch):
    monkeypatch.setattr(teacher, "STEPS", 4)
    taught = teacher.TeacherImages(sampler, sampler, LABELS, 0, quiet=True)
    same = sampler.settings.replace(solver="midpoint", steps=4)
    assert taught.distance(sampler, same) == 0
    assert taught.distance(sampler, sampler.settings.replace(solver="euler", steps=1)) > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_shape": (4, 4, 1)}, r"--teacher: its image_shape is \(4, 4, 1\), this model's \(8, 8, 1\)"),
        ({"class_names": ("Shirt", "1", "2", "3")}, "--teacher: its classes are not this model's: Shirt -> 0"),
    ],
)
def test_a_teacher_of_other_images_is_refused(sampler, changes, message):
    named = {"model": sampler.model, "params": sampler.params}
    ours = Sampler.from_info(dataclasses.replace(sampler.info, class_names=tuple("0123")), **named)
    theirs = Sampler.from_info(dataclasses.replace(sampler.info, **changes), **named)
    with pytest.raises(ValueError, match=message):
        teacher.TeacherImages(ours, theirs, LABELS, 0, quiet=True)
