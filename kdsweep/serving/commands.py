"""The commands `watch` and `dashboard`. Servers are imported when they are used."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from kdsweep.storage.places import Place

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from kdsweep.serving.server import Endpoint

HostOption = Annotated[
    str, typer.Option("--host", metavar="H", help="Address to listen on; one that others reach needs a token.")
]
TokenOption = Annotated[
    str,
    typer.Option(
        "--token", metavar="T", envvar="KDSWEEP_TOKEN", show_envvar=True, help="Token that every request needs."
    ),
]
OpenOption = Annotated[bool, typer.Option("--open", help="Open the page in a browser.")]


def watch(
    directory: Annotated[
        Place,
        typer.Argument(
            metavar="DIR", parser=Place.of, help="A sweep directory, or a storage directory to compare its sweeps."
        ),
    ],
    port: Annotated[int, typer.Option("--port", metavar="P", min=0, max=65535, help="0 chooses a free one.")] = 8642,
    host: HostOption = "127.0.0.1",
    token: TokenOption = "",
    browser: OpenOption = False,
) -> None:
    """Serve the report of a sweep, or of all sweeps in a directory; it follows running sweeps."""
    from kdsweep.serving.server import listen
    from kdsweep.serving.watch import watch_app

    app = watch_app(directory)
    _serve(app, listen(host, port, token), f"watching {directory}", browser)


def dashboard(
    directory: Annotated[
        Place, typer.Argument(metavar="DIR", parser=Place.of, help="A sweep directory, such as runs/quickstart.")
    ],
    port: Annotated[int, typer.Option("--port", metavar="P", min=0, max=65535, help="0 chooses a free one.")] = 8643,
    host: HostOption = "127.0.0.1",
    token: TokenOption = "",
    browser: OpenOption = False,
) -> None:
    """Show a sweep in Optuna's dashboard, read-only; needs optuna-dashboard."""
    from kdsweep.serving.dashboard import Dashboard
    from kdsweep.serving.server import listen

    app = Dashboard(directory)
    _serve(app, listen(host, port, token), f"Optuna's dashboard of {directory}", browser)


def _serve(app: ASGIApp, endpoint: Endpoint, what: str, browser: bool) -> NoReturn:
    from kdsweep.errors import printable
    from kdsweep.serving.server import serve

    def started() -> None:
        sys.stderr.write(printable(f"{what} at {endpoint.url} (Ctrl-C stops)\n"))
        sys.stderr.flush()
        if browser:
            import webbrowser

            webbrowser.open(endpoint.url)

    serve(app, endpoint, started)
