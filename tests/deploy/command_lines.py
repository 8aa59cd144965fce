"""Checks the commands in deployment files: the options of kdsweep and Ray, and what is set in a sweep file."""

from __future__ import annotations

import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path

from ray.scripts import scripts, symmetric_run
from typer.main import get_command

import kdsweep
from kdsweep.cli import app

ROOT = Path(__file__).parents[2]
RAY = {**scripts.cli.commands, "symmetric-run": symmetric_run.symmetric_run}
_FLAG = re.compile(r"--?[a-z][a-z0-9-]*")


def check(script: str) -> list[str]:
    """Check a shell script. Return its `kdsweep` and `ray` commands, each as far as its end.

    Raises:
        AssertionError: If a command or an option does not exist, or a setting is not valid.
    """
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    # What follows the `--` of symmetric-run is a command of its own.
    lines = re.sub(r"\\\n", " ", script).replace(" -- ", "\n").splitlines()
    found = [command for line in lines for command in re.findall(r"\b((?:kdsweep|ray) [a-z][^|;&']*)", _code(line))]
    for command in found:
        _check_command(shlex.split(command))
    return found


def _code(line: str) -> str:
    return "" if line.lstrip().startswith("#") else line


def _check_command(words: list[str]) -> None:
    program, name = words[:2]
    commands = get_command(app).commands if program == "kdsweep" else RAY  # type: ignore[attr-defined]
    assert name in commands, f"{program} has no command {name}"
    flags = {flag for parameter in commands[name].params for flag in parameter.opts}
    if name == "symmetric-run":
        flags |= {flag for parameter in RAY["start"].params for flag in parameter.opts}
    for word in words[2:]:
        flag = word.partition("=")[0]
        assert not _FLAG.fullmatch(flag) or flag in flags, f"{program} {name} has no option {flag}"
    if program == "kdsweep" and name == "run":
        _check_settings(words)


def _check_settings(words: list[str]) -> None:
    settings = [after for before, after in pairwise(words) if before == "--set"]
    values = dict(setting.split("=", 1) for setting in settings)
    numbers = {key: float(value) if "per_trial" in key else 8 for key, value in values.items()}
    kdsweep.load_spec(ROOT / "search_spaces/quickstart.yaml", numbers)
