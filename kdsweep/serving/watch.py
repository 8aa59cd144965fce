"""The live report: one sweep, or all sweeps of a storage directory."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from plotly.offline import get_plotlyjs
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from kdsweep.errors import SweepDirError
from kdsweep.results.frames import Results, load_results
from kdsweep.results.report.compare import Entry, render_comparison, summary_of
from kdsweep.results.report.page import is_running, render
from kdsweep.serving.pages import Followed, refresh, state_of
from kdsweep.storage.paths import SweepDir
from kdsweep.storage.places import Place


def watch_app(directory: Path | Place) -> Starlette:
    """The application that serves the report of a sweep, or a comparison of all sweeps of a storage directory.

    Args:
        directory: A sweep directory or its URI, or a storage directory.

    Raises:
        SweepDirError: If it is neither.
    """
    place = Place.of(directory)
    directory = Path(place.text)
    # Unlike Path's methods, these are False for names that are too long.
    if place.is_remote or os.path.isfile(directory / "spec.yaml") or not os.path.isdir(directory):
        page = _SweepPage(SweepDir.existing(place))
        return Starlette(routes=[Route("/", _full(lambda _: page)), Route("/update", _update(lambda _: page))])
    storage = _Storage(directory)
    if not storage.names():
        raise SweepDirError(f"{directory}: neither a sweep directory nor a storage directory with sweeps")
    return Starlette(
        routes=[
            Route("/", _full(lambda _: storage.page)),
            Route("/update", _update(lambda _: storage.page)),
            Route("/sweeps/{name}/", _full(storage.page_of)),
            Route("/sweeps/{name}/update", _update(storage.page_of)),
        ]
    )


class _Storage:
    """The sweeps of a storage directory, and the page that compares them."""

    def __init__(self, root: Path):
        self._root = root.expanduser().absolute()
        self._pages: dict[str, Followed[str]] = {}
        self._entries: dict[str, tuple[str, Entry]] = {}
        self.page = Followed(self._state, self._build)

    def names(self) -> list[str]:
        """The names of all sweeps."""
        return sorted(file.parent.name for file in self._root.glob("*/spec.yaml"))

    def page_of(self, request: Request) -> Followed[str] | None:
        """The page of the sweep that a request names; None if there is none."""
        name = request.path_params["name"]
        if name not in self.names():
            return None
        if name not in self._pages:
            self._pages[name] = _SweepPage(SweepDir(self._root / name))
        return self._pages[name]

    def _state(self) -> str:
        return "\n".join(f"{name} {state}" for name, state in self._states())

    def _states(self) -> Iterator[tuple[str, str]]:
        for name in self.names():
            sweep = SweepDir(self._root / name)
            before = self._entries.get(name)
            # Asking takes the lock for a moment, so only sweeps that were running are asked again.
            running = before is not None and before[1].running and is_running(sweep)
            yield name, f"{state_of(sweep)} {running}"

    def _build(self, version: str) -> str:
        entries = []
        for name, state in self._states():
            kept = self._entries.get(name)
            if kept is None or kept[0] != state:
                sweep = SweepDir(self._root / name)
                entry = summary_of(Results(sweep), f"sweeps/{quote(name)}/", is_running(sweep))
                # The state that this entry stands for: `running` may have changed.
                self._entries[name] = (f"{state_of(sweep)} {entry.running}", entry)
            entries.append(self._entries[name][1])
        return render_comparison(self._root, entries, version)


class _SweepPage(Followed[str]):
    """The report of one sweep."""

    def __init__(self, sweep: SweepDir):
        super().__init__(self._state_of_sweep, self._report)
        self._sweep = sweep
        self._running = False

    def _state_of_sweep(self) -> str:
        # Asking takes the lock for a moment, so only a sweep that was running is asked again.
        refresh(self._sweep)
        self._running = self._running and is_running(self._sweep)
        return f"{state_of(self._sweep)} {self._running}"

    def _report(self, version: str) -> str:
        self._running = is_running(self._sweep)
        return render(load_results(self._sweep), self._running, version)


Find = Callable[[Request], Followed[str] | None]


def _full(find: Find) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that returns a whole page."""

    async def endpoint(request: Request) -> Response:
        page = find(request)
        if page is None:
            return PlainTextResponse("no such sweep\n", 404)
        built = await page.latest()
        if built.value is None:
            return PlainTextResponse(f"{built.problem}\n", 503)
        return HTMLResponse(built.value)

    return endpoint


def _update(find: Find) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that returns the page if the reader does not have it, without the charts' library."""

    async def endpoint(request: Request) -> Response:
        page = find(request)
        if page is None:
            return PlainTextResponse("no such sweep\n", 404)
        built = await page.latest()
        is_new = built.version != request.query_params.get("have") and not built.problem
        html = built.value.replace(get_plotlyjs(), "", 1) if built.value and is_new else ""
        return JSONResponse({"version": built.version, "time": built.time, "problem": built.problem, "html": html})

    return endpoint
