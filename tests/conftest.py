"""Settings for all tests: eight fake host devices, no silent rank promotion, CPU only."""

import gc
import os
import sys
import tempfile
from importlib import metadata

from packaging.version import Version

# Most of the time goes into compiling tiny programs: so in one piece each, by XLA's older emitters (less than half the
# time; jaxlib 0.11.1 renamed the switch) and with few optimisations, here and in processes that tests start. To test
# what users run, set XLA_FLAGS=--xla_force_host_platform_device_count=8 and JAX_DISABLE_MOST_OPTIMIZATIONS=0; the tests
# of solvers and of several devices always do the latter (`full_compilation`).
FLAGS = ["--xla_force_host_platform_device_count=8", "--xla_cpu_parallel_codegen_split_count=1"]
if Version(metadata.version("jaxlib")) < Version("0.11.1"):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
else:
    FLAGS.append("--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters")
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# Equal programs are compiled once, for both workers and for the processes that tests start. Tests that are run often go
# much faster with a folder of your own in this variable.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled = tempfile.TemporaryDirectory(prefix="fmd-tests-", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled.name
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax  # noqa: E402
import pytest  # noqa: E402
from absl import logging  # noqa: E402

from fmd.registry import Registry  # noqa: E402

# Tracing makes many objects and few cycles: the collector's usual thresholds cost a tenth of the time.
gc.set_threshold(100_000, 20, 100)


@pytest.fixture(autouse=True, scope="session")
def strict_ranks():
    """Broadcasting between different ranks hides shape mistakes, so every test runs without it."""
    jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True, scope="session")
def own_data_folder(tmp_path_factory):
    """A data folder of the tests' own, apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FMD_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(autouse=True)
def own_verbosity():
    """Commands and fixtures change what is logged for the whole process; each test logs as if none had run."""
    logging.get_absl_logger().setLevel(0)


def registered():
    """The registry, name and module of all parts that are not fmd's own."""
    modules = [module for name, module in sys.modules.items() if name.startswith("fmd.")]
    registries = {id(part): part for module in modules for part in vars(module).values() if type(part) is Registry}
    for registry in registries.values():
        for name, make in registry._made.items():
            if not make.__module__.startswith("fmd."):
                yield registry, name, make.__module__


@pytest.fixture(autouse=True, scope="module")
def own_names():
    """Forgets at the end of a file what its tests registered, so that no test sees the names of its neighbours."""
    before = list(registered())
    yield
    for registry, name, module in [part for part in registered() if part not in before]:
        del registry._made[name]
        sys.modules.pop(module, None)  # so that another file's `config.imports` registers it again


@pytest.fixture(scope="module")
def full_compilation():
    """All of XLA's optimisations from here to the end of the module."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
