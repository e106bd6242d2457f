"""Costs of a run up to one of its steps, from the timing.jsonl in its workdir."""

from pathlib import Path
from statistics import median

from fmd.blocks import Plain
from fmd.files import read_json_lines

FILE = "timing.jsonl"


def spent(workdir: Path, step: int) -> Plain | None:
    """Operations, device-hours and speed of the steps up to `step`; None where the run has not said.

    `flops` are those of all convolutions and matrix products, `device_hours` leave out what was done beside the steps.
    `images_per_second` and `utilisation`, of the devices' peak, are medians of the log's lines, where these say them.
    A run that began with the weights of another one says nothing of what those cost.
    """
    lines = read_json_lines(workdir / FILE)
    counted = [line for line in lines if line["step"] <= step and line.get("flops") is not None]
    if not counted:
        return None
    hours = sum(line["seconds"] * line["devices"] for line in counted) / 3600
    found: Plain = {"flops": sum(line["flops"] for line in counted), "device_hours": float(f"{hours:.4g}")}
    for key in ("images_per_second", "utilisation"):
        if known := [line[key] for line in counted if line.get(key) is not None]:
            found[key] = median(known)
    return found
