"""Costs of a run up to one of its steps, from the timing.jsonl in its workdir."""

from pathlib import Path

from fmd.blocks import Plain
from fmd.files import read_json_lines

FILE = "timing.jsonl"


def spent(workdir: Path, step: int) -> Plain | None:
    """Operations and device-hours of the steps up to `step`; None where the run has not said.

    `flops` are those of all convolutions and matrix products, `device_hours` leave out what was done beside the steps.
    A run that began with the weights of another one says nothing of what those cost.
    """
    lines = read_json_lines(workdir / FILE)
    counted = [line for line in lines if line["step"] <= step and line.get("flops") is not None]
    if not counted:
        return None
    hours = sum(line["seconds"] * line["devices"] for line in counted) / 3600
    return {"flops": sum(line["flops"] for line in counted), "device_hours": float(f"{hours:.4g}")}
