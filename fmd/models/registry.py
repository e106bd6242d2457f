"""Models by name: `@register_model("name")` adds one, `build_model("name", cfg)` constructs one.

The keyword arguments in cfg are checked against the signature of what was registered, so a misspelt key or a wrong
type is one line at the start and not a trace from inside Flax. Built-in architectures are imported when first asked
for; importing this module loads none of them.
"""

import difflib
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

Factory = TypeVar("Factory", bound=Callable[..., Any])

MODEL_REGISTRY: dict[str, Callable[..., Any]] = {}
BUILT_IN = {"unet": "fmd.models.unet"}  # name -> the module that registers it
FLAX_FIELDS = ("parent", "name")  # set by Flax itself on every module


def register_model(name: str) -> Callable[[Factory], Factory]:
    """Class or function decorator: `build_model(name, cfg)` will call it with the entries of cfg as keywords.

    Raises ValueError if the name is taken.
    """

    def register(factory: Factory) -> Factory:
        if name in MODEL_REGISTRY or BUILT_IN.get(name, factory.__module__) != factory.__module__:
            raise ValueError(f"a model named {name!r} is already registered; choose another name")
        MODEL_REGISTRY[name] = factory
        return factory

    return register


def available_models() -> list[str]:
    """Every name that build_model takes, sorted."""
    return sorted(MODEL_REGISTRY.keys() | BUILT_IN.keys())


def import_user_modules(names: Iterable[str]) -> None:
    """Imports the modules of `config.imports`, which register their own models and data sources.

    Raises:
        ValueError: naming the module that cannot be imported, and why.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(f"config.imports: cannot import {name!r} ({error}); is it on PYTHONPATH?") from None


def build_model(name: str, cfg: Any) -> Any:
    """The model registered as `name`, built with the entries of `cfg`, a dict or ConfigDict, as keywords (not "name").

    Raises KeyError for an unknown model, ValueError for an unknown key, a missing one or a value of the wrong type.
    """
    if name not in MODEL_REGISTRY and name in BUILT_IN:
        importlib.import_module(BUILT_IN[name])
    if name not in MODEL_REGISTRY:
        raise KeyError(f"unknown model {name!r}; available: {', '.join(available_models())}")
    factory = MODEL_REGISTRY[name]
    return factory(**_checked_keywords(name, factory, cfg))


def _checked_keywords(model: str, factory: Callable[..., Any], cfg: Any) -> dict[str, Any]:
    parameters = inspect.signature(factory).parameters.values()
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    named = {key: p for key, p in named.items() if key not in FLAX_FIELDS}
    hints = typing.get_type_hints(factory)

    keywords = {}
    for key, value in cfg.items():
        if key == "name":
            continue
        if key not in named and not takes_any:
            near = difflib.get_close_matches(key, named, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"valid: {', '.join(named)}"
            raise ValueError(f"model {model!r} has no setting {key!r}; {hint}")
        value = tuple(value) if isinstance(value, list) else value
        wanted = hints.get(key, Any)
        if not _is_a(value, wanted):
            shown = getattr(wanted, "__name__", str(wanted)) if not typing.get_args(wanted) else str(wanted)
            raise ValueError(f"model setting {key!r} of {model!r} must be {shown}, got {value!r}")
        keywords[key] = value

    missing = [key for key, p in named.items() if p.default is p.empty and key not in keywords]
    if missing:
        raise ValueError(f"model {model!r} needs the setting{'s' * (len(missing) > 1)} {', '.join(missing)}")
    return keywords


def _is_a(value: Any, wanted: Any) -> bool:
    """Whether a config value fits an annotation: plain classes, unions and tuples are judged, the rest passes."""
    origin, args = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return any(_is_a(value, arg) for arg in args)
    if origin is typing.Literal:
        return value in args
    if origin in (tuple, Sequence):
        if not isinstance(value, tuple):
            return False
        if (len(args) == 2 and args[1] is Ellipsis) or origin is Sequence:
            return all(_is_a(item, args[0]) for item in value)
        return len(value) == len(args) and all(map(_is_a, value, args))
    if wanted is type(None):
        return value is None
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return wanted is Any or not isinstance(wanted, type) or isinstance(value, wanted)
