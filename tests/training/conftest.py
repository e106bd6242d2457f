"""A short run of the toy with everything that usually hangs on the loop, made once for all tests here."""

import jax
import pytest
import toys

from fmd import modes


@pytest.fixture(scope="session")
def compile_once(tmp_path_factory):
    """Equal programs of several runs are compiled once."""
    before = (
        jax.config.values["jax_compilation_cache_dir"],
        jax.config.values["jax_persistent_cache_min_compile_time_secs"],
    )
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield
    jax.config.update("jax_compilation_cache_dir", before[0])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before[1])


@pytest.fixture(scope="session")
def toy_run(compile_once, tmp_path_factory):
    """The `Run` of 12 steps: lines every 2, figures, grids and checkpoints every 4. Do not change its workdir."""
    return modes.train_config(
        toys.config(parallel={"mode": "jit"}, log={"every": 2}), tmp_path_factory.mktemp("runs") / "toy"
    )
