"""Numbers and Python values in the words of a message."""

from __future__ import annotations

import inspect


def count_of(number: float, noun: str, plural: str = "") -> str:
    """Return a number with its noun: `1 trial`, `2 trials`.

    Args:
        number: The number.
        noun: The noun in the singular.
        plural: Its plural; empty adds an `s`.
    """
    shown = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{shown} {noun if number == 1 else plural or f'{noun}s'}"


def kind_of(value: object) -> str:
    """Return what a value of the wrong type is: `None`, `an int`, `the class Net`."""
    if value is None:
        return "None"
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
