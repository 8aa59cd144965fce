"""Shows the steps of a command that takes a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from kdsweep.errors import printable


@contextmanager
def steps(console: Console, begin: str) -> Iterator[Callable[[str], object]]:
    """Yield a function that shows the step under way: in place on a terminal, else as a line of its own.

    Args:
        console: Where to show it.
        begin: What is shown before the first step.
    """
    if console.is_terminal:
        with console.status(begin) as status:
            yield lambda line: status.update(escape(printable(line)))
    else:
        yield lambda line: console.print(printable(line), highlight=False, markup=False, soft_wrap=True)
