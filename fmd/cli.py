"""The command line around its flags (`fmd.main` defines them): which mode takes which, memory, caches, error lines."""

import os
import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from absl import flags, logging

from fmd.files import user_cache

PACKAGE = Path(__file__).parent
HUGE_PAGES = "glibc.malloc.hugetlb=1"
ACCELERATORS = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin", "libtpu")  # packages that bring one

SETTINGS = ("weight", "solver", "steps", "shift", "tolerance")  # flags that are short names of `config.sample.*`

FLAGS_OF = {  # the flags that each mode looks at
    "train": {"config", "workdir", "coordinator", "num_processes", "process_id"},
    "sample": {"checkpoint", "average", "n_samples", "outfile", "overwrite", "label", "seed", "trust", *SETTINGS}
    | {"images", "condition", "draws"},
    "eval": {"checkpoint", "average", "n_samples", "seed", "reference", "features", "bits_per_dim", "samples"}
    | {"bits_draws", "classes", "source", "sweep", "teacher", "trust", "classify", "against", *SETTINGS}
    | {"paired", "draws"},
    "prepare": {"source", "out"},
    "export": {"checkpoint", "average", "out", "compact", "push", "trust", *SETTINGS},
    "restore": {"checkpoint", "average", "n_samples", "outfile", "overwrite", "label", "seed", "trust", "operator"}
    | {"noise_std", "method", "draws", "images", "weight", "steps"},
    "verify": {"checkpoint", "config", "workdir", "published", "row", "seed", "trust"}
    | {"coordinator", "num_processes", "process_id"},
}

NOT_BESIDE = {
    "samples": FLAGS_OF["eval"] - {"checkpoint", "samples", "source", "reference", "features"},  # drawn already
    "checkpoint": {"source"},  # it carries its own
    "sweep": {"bits_per_dim", "bits_draws", "classify", "against", "paired", "draws"},
    "images": {"condition"},
}  # flags that have no effect where another is given


def use_huge_pages() -> None:
    """On Linux without an accelerator: starts the program again with glibc's allocator on transparent huge pages.

    A training step on the CPU spends a good part of its time on page faults otherwise, and the allocator reads this
    setting before Python starts. FMD_HUGE_PAGES=0 leaves the process alone.
    """
    wanted = os.environ.get("FMD_HUGE_PAGES", "1") != "0"
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if not wanted or sys.platform != "linux" or "hugetlb" in tunables or any(find_spec(p) for p in ACCELERATORS):
        return
    environment = {**os.environ, "GLIBC_TUNABLES": ":".join(filter(None, [tunables, HUGE_PAGES]))}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def use_compilation_cache() -> None:
    """Keeps compiled programs in a per-user folder, so that the second start is quick. Respects JAX's own setting."""
    import jax

    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(user_cache() / "xla"))


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Takes `--config.a.b=value` and `--config.a.b value` out of a command line.

    Returns:
        (the other arguments, [("a.b", "value"), ...]).
    """
    others, overrides, rest = [], [], list(argv)
    while rest:
        argument = rest.pop(0)
        name = argument.lstrip("-")
        if not (argument.startswith("-") and name.startswith("config.")):
            others.append(argument)
            continue
        key, equals, value = name.removeprefix("config.").partition("=")
        overrides.append((key, value if equals else rest.pop(0) if rest else ""))
    return others, overrides


def parse_flags(argv: Sequence[str]) -> list[str]:
    """absl's parser, with a wrong flag as a ValueError instead of a usage page."""
    try:
        return flags.FLAGS(list(argv))
    except flags.Error as error:
        message = re.sub("invalid literal for int.*", "it must be a whole number", str(error).splitlines()[0])
        raise ValueError(re.sub("could not convert string to float.*", "it must be a number", message)) from None


def need(parsed: flags.FlagValues, flag: str, message: str) -> None:
    """Raises ValueError with this message where a flag was not given."""
    if parsed[flag].value is None:
        raise ValueError(message)


def check_flags(parsed: flags.FlagValues, overrides: Sequence[tuple[str, str]]) -> None:
    """Refuses what was given but would have no effect in this mode.

    Raises:
        ValueError: naming the flag, and the modes that it goes with.
    """
    for name, _ in overrides if parsed.mode == "eval" and parsed.samples is not None else ():
        if name.split(".")[0] not in ("data", "imports") or name == "data.source":
            hint = "give --source" if name == "data.source" else "leave one of them out"
            raise ValueError(f"--config.{name} has no effect beside --samples; {hint}")
    for name in sorted(set().union(*FLAGS_OF.values())):
        if parsed[name].present and name not in FLAGS_OF[parsed.mode]:
            modes = " and ".join(f"--mode={mode}" for mode, names in FLAGS_OF.items() if name in names)
            key = training_key(name) if parsed.mode == "train" else None
            hint = f"; in training give --config.{key}" if key else ""
            raise ValueError(f"--{name} has no effect with --mode={parsed.mode}; it goes with {modes}{hint}")
    for given, without in NOT_BESIDE.items():
        for name in sorted(without):
            if parsed[given].present and parsed[name].present:
                raise ValueError(f"--{name} has no effect beside --{given}; leave one of them out")


def training_key(flag: str) -> str | None:
    """The key of a config that does in training what a flag does."""
    if flag not in SETTINGS:
        return {"seed": "seed", "source": "data.source"}.get(flag)
    from fmd.config import long_names  # not above: `use_huge_pages` would import it, and NumPy, for nothing

    return long_names(flag, None)[-1][0]


def is_users_to_fix(error: BaseException) -> bool:
    """True for errors about input, files and numbers that fmd raised itself, or that the system raised about a file.

    The same types raised inside another library mean a defect, and deserve their traceback.
    """
    if isinstance(error, OSError | FloatingPointError):
        return True
    if not isinstance(error, ValueError | KeyError | RuntimeError) or error.__traceback__ is None:
        return False
    innermost = error.__traceback__
    while innermost.tb_next is not None:
        innermost = innermost.tb_next
    return PACKAGE in Path(innermost.tb_frame.f_code.co_filename).parents


def one_line(error: BaseException) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    notes = "; ".join(getattr(error, "__notes__", []))
    return " ".join((text or type(error).__name__).split()) + (f" [{notes}]" if notes else "")


def leave(code: int, *, at_once: bool = False) -> None:
    """Ends the program, `at_once` without waiting for threads.

    One process of several goes at once, too: JAX would first wait for the others, which wait for it.
    """
    if at_once or ("jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def log_plainly() -> None:
    """Logs fmd's messages without a prefix, and only warnings from other libraries."""
    import logging as python_logging

    handler = logging.get_absl_handler()
    handler.setFormatter(python_logging.Formatter("%(message)s"))
    handler.addFilter(
        lambda record: record.levelno >= python_logging.WARNING or record.pathname.startswith(str(PACKAGE))
    )
