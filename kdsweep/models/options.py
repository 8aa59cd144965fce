"""Check a model's options against its builder's signature."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import Parameter, signature
from typing import Any

from kdsweep.errors import ModelError, did_you_mean

_NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def declared(builder: Callable[..., Any]) -> dict[str, Parameter]:
    """The parameters of a builder after the three positional ones, by name; none if it cannot be inspected."""
    try:
        parameters = signature(builder).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {p.name: p for p in list(parameters)[3:] if p.kind in _NAMED}


def check(name: str, builder: Callable[..., Any], options: Iterable[str], facts: Iterable[str] = ()) -> None:
    """Check that `builder(input_shape, num_classes, width, **options)` accepts options of these names.

    Args:
        name: The model's name in error messages.
        builder: The builder, which is not called.
        options: Names of the given options.
        facts: Names of the parameters that the data set decides.

    Raises:
        ModelError: If an option is unknown or missing, or the builder does not accept the three positional arguments.
    """
    given, decided = set(options), set(facts)
    for key in sorted(given & decided):
        raise ModelError(f"model {name!r}: the data set decides {key!r}; accepted: leave it out of the options")
    try:
        parameters = signature(builder).parameters.values()
        signature(builder).bind_partial("input_shape", "num_classes", "width")
    except (TypeError, ValueError) as error:
        raise ModelError(f"model {name!r} cannot be called as (input_shape, num_classes, width): {error}") from error
    known = {key: p for key, p in declared(builder).items() if key not in decided}
    if not any(p.kind is Parameter.VAR_KEYWORD for p in parameters):
        for unknown in sorted(given - set(known)):
            accepted = did_you_mean(unknown, known) if known else "it takes none"
            raise ModelError(f"model {name!r} has no option {unknown!r}; {accepted}")
    missing = [key for key, p in known.items() if p.default is Parameter.empty and key not in given]
    if missing:
        raise ModelError(f"model {name!r} needs the option {missing[0]!r}")
