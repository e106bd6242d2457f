"""Models by name: `@register_model("name")` adds one, `build_model("name", cfg)` makes one.

The entries of `cfg` are checked against the annotations of what was registered, so that a misspelt key or a wrong
value is one line and not a trace from inside Flax. A built-in model is imported when first asked for.
"""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from fmd.models.contract import Model
from fmd.registry import Registry

MODELS: Registry[Model] = Registry(
    "model", built_in={"unet": "fmd.models.unet", "transformer": "fmd.models.transformer"}
)

register_model = MODELS.register
available_models = MODELS.names


@runtime_checkable
class Settings(Protocol):
    """A mapping, or a ConfigDict, which is none."""

    def items(self) -> Iterable[tuple[str, object]]:
        """The settings with their names."""
        ...


def build_model(name: str, cfg: Settings, **offered: object) -> Model:
    """The model called `name`, made with the entries of `cfg` (except "name").

    Args:
        name: of the model, see `available_models()`.
        cfg: its settings; lists do for tuples.
        offered: further values, handed over where the model has a field of that name and `cfg` has none, e.g.
            num_classes and conditions of the data.

    Raises:
        UnknownName (a ValueError and a KeyError): for an unknown name.
        ValueError: for an unknown or missing setting, or a value of the wrong type.
    """
    return MODELS.build(name, {key: value for key, value in cfg.items() if key != "name"}, offered=offered)
