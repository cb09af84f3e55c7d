"""Settings of a task that are changed when a saved model answers: their values as words or as they are."""

from collections.abc import Mapping
from typing import Any

from hf_tuner import catalog
from hf_tuner.errors import UsageError


def setting(name: str, value: Any, known: Mapping[str, Any]) -> Any:
    """A setting's value in the kind of its present one; words of a command line are read as such.

    Raises UsageError for a setting that is not known, or a value of another kind.
    """
    if name not in known:
        plain = [n for n, present in known.items() if isinstance(present, int | float | str)]
        raise UsageError(catalog.unknown("setting", name, plain))
    kind = type(known[name])
    if isinstance(value, str) and kind in (bool, int, float):
        try:
            value = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
        except (ValueError, KeyError) as error:
            what = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
            raise UsageError(f"{name}={value}: expected {what}, such as {known[name]}") from error
    return value
