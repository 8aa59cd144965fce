"""Writes the report: figures and text in one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from kdsweep.errors import InputError, printable
from kdsweep.results.confirmed import verdict_of
from kdsweep.results.importance import VERSUS_DASHBOARD
from kdsweep.results.report import answer, places, taught, tested
from kdsweep.results.report.charts import curves, gains, settings, size, workers
from kdsweep.results.report.charts.style import Chart, words
from kdsweep.results.report.found import Found
from kdsweep.results.report.section import Section
from kdsweep.storage.driver_lease import is_held
from kdsweep.storage.paths import SweepDir
from kdsweep.storage.places import Place, reason_of
from kdsweep.tasks.metrics import is_fraction, shown, shown_gain

MOST_ROWS = 2000  # of the leaderboard
SHOWN_ROWS = 15  # before `show more`
_EMPTY_STYLE = ""  # plotly adds an empty style element and fills it through the object model
# Plotly also adds the style of its maps, which the policy would refuse, unless there is an element with this id.
_STYLE_IDS = re.compile(r'document\.getElementById\("([0-9a-f]{64})"\)')


def write_report(found: Found, out: Path | None = None, running: bool | None = None) -> Path:
    """Write the report of a sweep to a local file; see `write_report_to`.

    Args:
        found: The results.
        out: The file to write; None is report.html in the sweep's directory.
        running: Whether the sweep is still running; None finds out.

    Returns:
        The file.
    """
    path = out or found.sweep.report
    write_report_to(found, Place.of(path), running)
    return path


def write_report_to(found: Found, out: Place, running: bool | None = None) -> None:
    """Write the report of a sweep.

    Args:
        found: The results.
        out: Where to write it.
        running: Whether the sweep is still running; None finds out.

    Raises:
        InputError: If it cannot be written.
    """
    page = render(found, is_running(found.sweep) if running is None else running)
    try:
        out.write_bytes(page.encode())
    except OSError as error:
        raise InputError(f"{out}: report cannot be written: {reason_of(error)}") from error


def is_running(sweep: SweepDir) -> bool:
    """Whether a driver holds the sweep's lock, or its lease in an object store."""
    if sweep.mirror is not None:
        return is_held(sweep.mirror.bucket, sweep.name)
    if not sweep.lock.exists() or not os.access(sweep.lock, os.W_OK):
        return False
    try:
        with FileLock(sweep.lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def render(found: Found, running: bool, live: str = "") -> str:
    """The page as HTML.

    Args:
        found: The results.
        running: Whether the sweep is still running.
        live: Version of a page that a server keeps up to date; empty for a page that loads nothing.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    path = places.shortest(found.sweep.place)
    environment = _read(found.sweep.environment)
    sections = [*_sections(found), *taught.sections(found)]
    if found.spec.label_free:
        sections = [section for section in sections if section.anchor != "gains"]
    else:
        sections += tested.sections(found, path, running)
    busy = workers.utilisation(environment)
    figures = {name: chart for section in sections for name, chart in section.charts.items()} | {"workers": busy}
    first, second = answer.answer(found)
    return assembled(
        "page.html.j2",
        figures,
        live,
        name=found.spec.name,
        now=now,
        path=path,
        version=version("kdsweep"),
        first=first,
        second=second,
        status=answer.status(found, running, path, now, live=bool(live)),
        facts=_facts(found),
        board=answer.leaderboard(found, path, MOST_ROWS),
        shown_rows=SHOWN_ROWS,
        points=is_fraction(found.goal.name),
        sections=sections,
        busy=busy,
        failures=answer.failures(found),
        notes=answer.notes(found),
        environment=_environment(environment),
        data_facts=_data(found),
        spec=places.shortened(found.sweep.spec.read_text(encoding="utf-8", errors="replace")),
        commands=_commands(found, path),
    )


def assembled(template: str, figures: Mapping[str, Chart], live: str, **content: Any) -> str:
    """Fill a template with figures, the style and the scripts.

    Args:
        template: Name of the template; it extends base.html.j2.
        figures: The charts by name.
        live: As in `render`.
        **content: Further values for the template.
    """
    style, script, library = _text("page.css"), _text("page.js"), get_plotlyjs()
    updates = _text("live.js") if live else ""
    templates = Environment(
        loader=PackageLoader("kdsweep.results.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    return templates.get_template(template).render(
        policy=_policy([library, script, *filter(None, [updates])], [style, _EMPTY_STYLE], bool(live)),
        style=Markup(style),
        library=Markup(library),
        script=Markup(script),
        updates=Markup(updates),
        live=live,
        claimed=sorted(set(_STYLE_IDS.findall(library))),
        data=_json({name: chart for name, chart in figures.items() if not chart.empty}),
        **content,
    )


def _sections(found: Found) -> list[Section]:
    goal = words(found.goal.column)
    against = {f"size-{cost}": size.pareto(found, cost) for cost in size.costs_of(found) or ["parameters"]}
    return [
        Section(
            "size", f"{found.goal.name.replace('_', ' ').capitalize()} against size",
            f"Each point is a trial that reached the last epoch; {goal}, one seed. No student of the same or smaller "
            "size is better than those on the front.", against,
        ),
        Section(
            "gains", "Confirmed gains",
            "Difference on the test split between a student and a plain one trained on the same fresh seeds. Bars are "
            "95 % confidence intervals of the mean, small open markers single seeds. In the shaded range, differences "
            "do not matter.", {"gains": gains.gains(found)},
        ),
        Section(
            "tuning", "Tuning curves",
            "How good the best of n random trials of each method is expected to be: methods compared at equal tuning "
            "effort, with 95 % confidence bands. Trials that a sampler chose by earlier results do not count. Searched "
            "students and budgets have charts of their own.",
            curves.tunings(found),
        ),
        Section(
            "learning", "Learning curves",
            "One line per trial. Dashed lines are rungs, where weak trials are stopped.",
            {"learning": curves.learning(found)},
        ),
        Section(
            "settings", "Settings",
            "One line per trial. Drag over a part of an axis to select trials, hold Shift to combine axes; the "
            "leaderboard then lists only these trials. A double click clears the selection.",
            {"parallel": settings.parallel(found)},
        ),
        Section(
            "response", "Response to temperature and alpha", f"Complete trials; {goal} against one setting at a time.",
            {f"response-{name}": settings.response(found, name) for name in ("temperature", "alpha")}, layout="pair",
        ),
        Section(
            "importance", "Importance of the settings",
            "PED-ANOVA: how much a setting differs between the best quarter of the complete trials and all of them. "
            f"{VERSUS_DASHBOARD}",
            {"importance": settings.importance(found)},
        ),
    ]  # fmt: skip


def _facts(found: Found) -> list[tuple[str, str, str]]:
    """The figures below the answer: label, value, remark."""
    best = found.best(1).to_dict("records")
    trials = found.trials
    facts = []
    if best:
        row, goal, teacher = best[0], found.goal, found.teacher
        value = teacher.get(goal.column)
        remark = "" if value is None else f"teacher {shown(goal.column, float(value))}"
        facts.append((words(goal.column), shown(goal.column, float(row[goal.column])), remark))
        facts += _confirmed_facts(found, str(row["trial"]))
        remark = f"teacher {teacher['parameters']:,}" if teacher else ""
        facts.append(("parameters", f"{int(row['parameters']):,}", remark))
    if len(trials):
        complete = int((trials["state"] == "COMPLETE").sum())
        facts.append(("trials", f"{len(trials):,}", f"{complete:,} complete, {len(found.epochs):,} epochs"))
    return facts


def _confirmed_facts(found: Found, trial: str) -> list[tuple[str, str, str]]:
    judged, goal = answer.confirmed_row(found, trial), found.goal
    if not judged:
        return []
    value = found.teacher.get(goal.test_column)
    remark = "" if value is None else f"teacher {shown(goal.test_column, float(value))}"
    facts = [(words(goal.test_column), shown(goal.test_column, judged[goal.test_column]), remark)]
    for gain, baseline in gains.BASELINES.items():
        verdict = verdict_of(judged, gain)
        if verdict is not None and verdict.seeds:
            unit = " points" if is_fraction(goal.name) else ""
            remark = f"{verdict.ends(goal.name)}, {verdict.verdict}"
            facts.append((f"gain {baseline}", f"{shown_gain(goal.name, verdict.mean)}{unit}", remark))
    return facts


def _environment(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = {
        "started": environment.get("started", ""),
        "Python": environment.get("python", ""),
        **environment.get("packages", {}),
        "platform": environment.get("platform", ""),
        "processor": environment.get("processor", ""),
        "CPU cores": environment.get("cpu_count", ""),
        "GPUs": ", ".join(map(str, environment.get("gpus") or [])) or "none",
    }
    return [(str(name), str(value)) for name, value in facts.items() if value not in ("", None)]


def _data(found: Found) -> list[tuple[str, str]]:
    data = _read(found.sweep.data)
    names = [str(name) for name in data.get("class_names", [])]
    more = f", and {len(names) - 20} more" if len(names) > 20 else ""
    facts = {
        "data set": found.spec.dataset.name,
        "shape": " x ".join(map(str, data.get("input_shape", []))),
        "classes": f"{len(names)}: {', '.join(names[:20])}{more}" if names else "",
        "digest": data.get("digest", ""),
        "teacher": f"{found.teacher['model']} ({found.teacher.get('origin', '')})" if found.teacher else "",
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def _commands(found: Found, path: str) -> list[tuple[str, str]]:
    spec = places.of_file(found.sweep.spec)
    name = f"{found.spec.name}-again"
    repeat, confirm = f"kdsweep run {spec} --name {name}", f"kdsweep confirm {path} --top 5 --seeds 6"
    if found.spec.given_objects:
        in_python = "  # in Python, with the same objects"
        repeat = f"kdsweep.sweep(..., name={name!r}){in_python}"
        confirm = f"kdsweep.sweep(..., name={found.spec.name!r}, confirm=5){in_python}"
    return [
        ("repeat the sweep", repeat),
        ("list the trials", f"kdsweep results {path} --top 10"),
        ("confirm more students", confirm),
        ("export the best students", f"kdsweep export {path} --out students --top 3"),
        ("export them as ONNX too", f"kdsweep export {path} --out students --top 3 --onnx"),
        ("make this page again", f"kdsweep report {path}"),
    ]


def _policy(scripts: list[str], styles: list[str], live: bool) -> str:
    """A content security policy that allows the page's own scripts and style, by hash, and a live page its updates."""
    return "; ".join([
        "default-src 'none'",
        f"script-src {' '.join(map(_hash, scripts))}",
        f"style-src-elem {' '.join(map(_hash, styles))}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        *(["connect-src 'self'"] if live else []),
    ])  # fmt: skip


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _json(charts: Mapping[str, Chart]) -> Markup:
    """The figures as JSON that cannot end its script element."""
    written = json.dumps({name: json.loads(str(chart.figure.to_json())) for name, chart in charts.items()},
                         separators=(",", ":"))  # fmt: skip
    for mark in "<>&":
        written = written.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(written)


def _printable(value: Any) -> Any:
    """Escape control characters in text from the sweep."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _read(path: Path) -> dict[str, Any]:
    """A JSON file of the sweep; empty if it is missing or damaged, which kdsweep doctor reports."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(name: str) -> str:
    return (files("kdsweep.results.report") / "templates" / name).read_text(encoding="utf-8")
