"""One function per mode of the command line. Each takes the parsed flags and does one thing."""

from fmd.commands.judging import evaluate, verify
from fmd.commands.restoring import restore
from fmd.commands.sampling import sample
from fmd.commands.training import train, train_config
from fmd.commands.writing import export_model, prepare_data

__all__ = ["MODES", "train_config"]

MODES = {
    "train": train,
    "sample": sample,
    "eval": evaluate,
    "export": export_model,
    "restore": restore,
    "prepare": prepare_data,
    "verify": verify,
}
