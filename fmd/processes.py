"""The processes of a run on several hosts: how they find one another, what one does for all, and its memory."""

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator

import jax
import numpy as np

MESSAGE_BYTES = 1000
OWN_FAULT = ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED")  # errors that another process did not cause


def initialize(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Joins the other processes of a run, if there are any. Call it before anything else touches JAX.

    With `coordinator` ("host:port") the three values are used as given. With "auto" (the flag --coordinator=auto) JAX
    finds the others by itself, as it can on TPU VMs, under SLURM, Open MPI and Kubernetes. Without it tasks that srun
    started and a TPU pod are recognised from the environment; otherwise the process runs alone.

    Raises:
        ValueError: when only some of the three values are given, or others beside "auto".
    """
    if coordinator == "auto" and num_processes is None and process_id is None:
        jax.distributed.initialize(local_device_ids=local_devices())
        return
    given = (coordinator, num_processes, process_id)
    if coordinator is not None and None not in given:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    elif any(value is not None for value in given):
        raise ValueError(
            f"coordinator, num_processes and process_id belong together (or coordinator=auto alone); got {given}"
        )
    elif _is_srun_task_of_several() or "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""):
        jax.distributed.initialize(local_device_ids=local_devices())


def local_devices() -> list[int] | None:
    """The GPUs of a SLURM task: all that it sees, where it is the only one on its node; else None, JAX's own choice.

    Left alone, JAX gives each task the one GPU of its number on the node, and the others idle.
    """
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").split("(")[0]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    count = len(visible.split(",")) if visible else int(os.environ.get("SLURM_GPUS_ON_NODE", "0") or 0)
    return list(range(count)) if tasks == "1" and count > 1 else None


def _is_srun_task_of_several() -> bool:
    """Not so in an sbatch script itself: it runs once, with the same SLURM_NTASKS but outside any job step."""
    return int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_STEP_NODELIST" in os.environ


def is_main_process() -> bool:
    """True on the one process that logs and writes pictures."""
    return jax.process_index() == 0


def share(text: str) -> str:
    """The text of the main process, on every process; cut after MESSAGE_BYTES. A barrier, too."""
    if jax.process_count() == 1:
        return text
    from jax.experimental import multihost_utils

    encoded = text.encode()[:MESSAGE_BYTES]
    padded = np.frombuffer(encoded.ljust(MESSAGE_BYTES, b"\0"), np.uint8)
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))).rstrip(b"\0").decode(errors="ignore")


def on_main(action: Callable[[], object]) -> None:
    """Runs `action` on the main process while the others wait; what it raises, every process raises.

    Raises:
        ValueError, OSError: the one that `action` raised, or on the other processes a ValueError with its text.
    """
    failure = None
    if is_main_process():
        try:
            action()
        except (ValueError, OSError) as error:
            failure = error
    message = share("" if failure is None else str(failure) or type(failure).__name__)
    if failure is not None:
        raise failure
    if message:
        raise ValueError(message)


@contextlib.contextmanager
def clear_message_when_another_process_ends() -> Iterator[None]:
    """Turns the collective that fails when a process of the run is gone into a RuntimeError of one line."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or str(error).startswith(OWN_FAULT):
            raise
        raise RuntimeError(
            f"another process of this run has ended, or this one lost it ({str(error).splitlines()[0][:200]}); "
            f"start all {jax.process_count()} again with the same command to go on from the last checkpoint"
        ) from error


def give_back_memory() -> None:
    """Gives the system the freed memory that glibc's allocator keeps.

    Compiling a training step leaves more than 500 MiB so. Another allocator is left alone.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
