"""A short run of the toy with everything that usually hangs on the loop, made once for all tests here."""

import pytest

from fmd import commands
from tests.helpers import toys


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory):
    """The `Run` of 12 steps: lines every 2, figures, grids and checkpoints every 4. Do not change its workdir."""
    return commands.train_config(
        toys.config(parallel={"mode": "jit"}, log={"every": 2}), tmp_path_factory.mktemp("runs") / "toy"
    )
