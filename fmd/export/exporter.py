"""Writes the averaged weights and the config of a run as one folder that `fmd.sampling.sampler.load` opens.

NAME/weights/         Orbax checkpoint: the averaged parameters
NAME/config.json      format version, config, image shape, classes, where the data came from, step
NAME/checksums.json   of every file, so that a damaged copy is noticed
"""

from pathlib import Path

from fmd.checkpoints.weights import load_weights, save_weights
from fmd.utils.files import atomic_path


def export(checkpoint: str | Path, out: str | Path, *, which: str | None = None) -> Path:
    """Exports a workdir, or one step inside it.

    Args:
        checkpoint: the folder to export.
        out: the folder to make.
        which: the average to export where a run keeps several; default: its first.

    Raises:
        ValueError: when `checkpoint` holds no model.
        FileExistsError: when `out` exists.
    """
    weights, facts = load_weights(checkpoint, which)
    with atomic_path(Path(out).absolute()) as folder:
        folder.mkdir()
        save_weights(folder, weights, {**facts, "averages": [which or facts["averages"][0]]})
    return Path(out)
