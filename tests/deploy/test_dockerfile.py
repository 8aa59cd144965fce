"""deploy/Dockerfile and deploy/constraints.txt. No image is built: the steps are read, and checked on this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
INSTRUCTIONS = {"ARG", "FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "CMD"}


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in code.splitlines() if line]


def values(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


@pytest.fixture(scope="module")
def pinned() -> dict[str, str]:
    lines = (ROOT / "deploy/constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if not line.startswith("#")]
    return {one.name: str(one.specifier).removeprefix("==") for one in found}


def test_the_instructions_exist_and_use_declared_names():
    assert {instruction for instruction, _ in instructions()} == INSTRUCTIONS
    declared = {value.partition("=")[0] for value in values("ARG")} | {"PATH"}
    for instruction, rest in instructions():
        used = set(re.findall(r"\$\{?([A-Z]+)\b", rest))
        assert used <= declared, instruction


def test_base_images_are_pinned_and_stages_and_files_exist():
    assert values("FROM") == ["python:${PYTHON}-slim AS build", "python:${PYTHON}-slim"]
    assert re.fullmatch(r"PYTHON=3\.1\d", values("ARG")[0])
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text().split()
    for copied in values("COPY"):
        *sources, _ = copied.split()
        if sources[0].startswith("--from"):
            assert sources == ["--from=build", "/opt/kdsweep"]
            continue
        assert all((ROOT / source).exists() and f"!{source}" in ignored for source in sources)


def test_the_image_runs_as_an_ordinary_user_and_finds_kdsweep():
    names = [instruction for instruction, _ in instructions()]
    assert values("USER") == ["1000"]
    assert "useradd --uid 1000" in values("RUN")[-1]
    assert "RUN" not in names[names.index("USER") :]
    assert "PATH=/opt/kdsweep/bin:$PATH" in values("ENV")[-1]


def test_the_constraints_pin_every_dependency_within_its_range(pinned):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [one for extra in project["optional-dependencies"].values() for one in extra]
    for text in (*project["dependencies"], *extras):
        wanted = Requirement(text)
        name = canonicalize_name(wanted.name)
        assert name in pinned, f"{name}: write deploy/constraints.txt again, by the command in it"
        assert wanted.specifier.contains(pinned[name]), text


@pytest.mark.slow
def test_the_install_step_resolves_and_refuses_another_device(tmp_path):
    if not shutil.which("uv"):
        pytest.skip("needs uv")
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    shutil.copyfile(ROOT / "deploy/constraints.txt", tmp_path / "constraints.txt")
    (step,) = (run for run in values("RUN") if "uv pip compile" in run)
    for there, here in {
        "/opt/kdsweep": str(tmp_path / "env"),
        "uv pip compile": "uv pip compile --python-version 3.12",
        "uv pip install --no-cache": "uv pip install --python-version 3.12 --dry-run",
    }.items():
        assert there in step
        step = step.replace(there, here)

    def run(device: str) -> subprocess.CompletedProcess[str]:
        command = ["env", f"DEVICE={device}", "EXTRAS=cluster,timm", "sh", "-c", f"set -e; {step}"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = run("cuda")
    assert done.returncode == 0, done.stderr
    resolved = (tmp_path / "requirements.txt").read_text()
    chosen = [
        line for line in (tmp_path / "constraints.txt").read_text().split() if re.match("(torch|ray|timm)==", line)
    ]
    assert len(chosen) == 3
    assert all(f"{line}\n" in resolved for line in chosen)
    shutil.rmtree(tmp_path / "env")
    wrong = run("tpu")
    assert (wrong.returncode, wrong.stderr.splitlines()[-1]) == (2, "DEVICE=tpu: accepted: cpu or cuda")
