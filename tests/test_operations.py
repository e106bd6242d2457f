"""The training step and the sampler are as much work as they were: see tests/helpers/operations.py."""

import pytest

from tests.helpers import operations


@pytest.mark.parametrize("name", operations.CONFIGS)
def test_the_work_of_a_recipe_is_what_it_was(name):
    found, expected = operations.counted(name), operations.stored(name)
    changed = [f"{what}: {', '.join(each)}" for what in operations.PROGRAMS
               if (each := operations.changes(expected[what], found[what]))]  # fmt: skip
    assert not changed, f"{name}, {'; '.join(changed)}; {operations.AGAIN}"
