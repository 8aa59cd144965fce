"""Derived files are rebuilt or reported in one line; `kdsweep doctor` checks and repairs a sweep."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from inputs import SWEEP, either, refused
from pandas.testing import assert_frame_equal

from kdsweep import cli
from kdsweep.config.load import load_spec
from kdsweep.config.spec import read_spec
from kdsweep.config.yaml import parse_value
from kdsweep.errors import SweepDirError
from kdsweep.results.doctor import examine
from kdsweep.results.frames import load_results, write_frames
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks.image.splits import prepare
from kdsweep.tune.origins import record_data

FINISHED = Path(__file__).parents[1] / "data" / "finished_0.1.0"


@pytest.fixture
def sweep(tmp_path):
    """A copy of a finished sweep with current frames."""
    copy = SweepDir(shutil.copytree(FINISHED, tmp_path / "sweep"))
    write_frames(copy)
    return copy


def damage(path, kind):
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "noise": b"\x00\xff" * 400}[kind])


DAMAGE = ("empty", "cut", "noise")


def states(sweep):
    return {found.file: found.state for found in examine(sweep)}


# Frames


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", ["trials.parquet", "epochs.parquet"])
def test_a_damaged_frame_is_rebuilt_from_the_logs(name, kind, sweep):
    before = load_results(sweep.root)
    trials, epochs = before.trials, before.epochs
    damage(sweep.root / name, kind)
    assert_frame_equal(load_results(sweep.root).trials, trials)
    assert_frame_equal(load_results(sweep.root).epochs, epochs)
    assert states(sweep)[name] == "repaired"
    assert set(states(sweep).values()) == {"whole"}


def test_freshness_depends_on_content_and_not_on_clocks(sweep):
    trials = load_results(sweep.root).trials
    lines = sweep.epochs_log.read_text().splitlines(keepends=True)
    sweep.epochs_log.write_text("".join(lines[:-1]))
    for log in (sweep.epochs_log, sweep.journal):
        os.utime(log, (0, 0))  # older than any frame
    assert len(load_results(sweep.root).epochs) == len(lines) - 1
    sweep.epochs_log.write_text("".join(lines))
    for frame in (sweep.epochs_frame, sweep.trials_frame):
        os.utime(frame, (0, 0))  # older than any log
    assert load_results(sweep.root).is_current(sweep.trials_frame)
    assert_frame_equal(load_results(sweep.root).trials, trials)


def test_a_log_of_equal_length_but_other_values_makes_a_frame_stale(sweep):
    text = sweep.epochs_log.read_text()
    at = text.index('"val_accuracy":0.') + len('"val_accuracy":0.')
    changed = text[:at] + ("1" if text[at] != "1" else "2") + text[at + 1 :]
    before = load_results(sweep.root).epochs["val_accuracy"].tolist()
    sweep.epochs_log.write_text(changed)
    assert load_results(sweep.root).epochs["val_accuracy"].tolist() != before


@pytest.mark.parametrize("missing", ["epochs_log", "journal"])
def test_a_log_that_is_missing_is_refused_in_one_line(missing, sweep):
    getattr(sweep, missing).unlink()
    with refused(SWEEP, SweepDirError, match="missing.* exists; restore both logs") as caught:
        _ = load_results(sweep.root).trials
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", ["confirmed.parquet", "teacher/teacher.json", "teacher/test.json"])
def test_other_derived_files_are_reported_in_one_line(name, kind, sweep):
    damage(sweep.root / name, kind)
    results = load_results(sweep.root)
    with refused(
        SWEEP, SweepDirError, match="damaged.*; remove it with kdsweep doctor .*, then rebuild it with kdsweep"
    ) as caught:
        _ = results.confirmed if "confirmed" in name else results.teacher
    assert str(sweep.root / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert states(sweep)[name] == "repaired"
    assert name not in states(sweep)
    assert load_results(sweep.root).best(1)["trial"].tolist()
    _ = load_results(sweep.root).teacher, load_results(sweep.root).confirmed


# doctor

REBUILT = {
    "environment.json": "resume",
    "probe.json": "resume",
    "confirmed/4f6eb0bcc061-306052917/result.json": "confirm",
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", REBUILT)
def test_files_that_a_command_rebuilds_are_removed(name, kind, sweep):
    damage(sweep.root / name, kind)
    (found,) = [finding for finding in examine(sweep) if finding.file == name]
    assert (found.state, f"removed; kdsweep {REBUILT[name]} " in found.note) == ("repaired", True)
    assert not (sweep.root / name).exists()
    assert set(states(sweep).values()) == {"whole"}


CUT = sorted(str(path.relative_to(FINISHED)) for path in FINISHED.rglob("*") if path.is_file())
READ_BY_RESULTS = (
    "spec.yaml",
    "study.journal",
    "epochs.jsonl",
    "trials.parquet",
    "epochs.parquet",
    "confirmed.parquet",
)


@pytest.mark.parametrize("name", CUT)
def test_a_file_cut_anywhere_is_found_and_never_changes_results_silently(name, sweep):
    file, draw = sweep.root / name, random.Random(name)
    expected, whole = load_results(sweep.root), file.read_bytes()
    trials, confirmed = expected.trials, expected.confirmed
    kept = {path: path.read_bytes() for path in sweep.root.rglob("*") if path.is_file()}

    def used():
        found = load_results(sweep.root)
        return found.trials, found.confirmed

    def same(found):
        assert_frame_equal(found[0], trials)
        assert_frame_equal(found[1], confirmed)
        return True

    for _ in range(4):
        for path, content in kept.items():
            path.write_bytes(content)
        file.write_bytes(whole[: draw.randrange(len(whole))])
        error = either(SWEEP, used, same)
        found = {finding.file: finding for finding in examine(sweep)}
        assert "\n" not in found[name].note
        if error or name not in READ_BY_RESULTS:
            told = [finding for finding in found.values() if finding.state != "whole"]
            assert any(finding.file == name or f"{file}: " in finding.note for finding in told)


def test_a_whole_sweep_is_reported_whole_and_not_changed(sweep):
    before = {path: path.read_bytes() for path in sweep.root.rglob("*") if path.is_file() and path != sweep.lock}
    found = states(sweep)
    assert set(found.values()) == {"whole"}
    assert found.keys() >= {"spec.yaml", "epochs.jsonl", "study.journal", "trials.parquet", "teacher/teacher.json"}
    after = {path: path.read_bytes() for path in sweep.root.rglob("*") if path.is_file() and path != sweep.lock}
    assert after == before


IRREPLACEABLE = ("spec.yaml", "epochs.jsonl", "study.journal", "data.json", "teacher/model.safetensors")


@pytest.mark.parametrize("kind", DAMAGE[1:])
@pytest.mark.parametrize("name", IRREPLACEABLE)
def test_damage_that_cannot_be_repaired_is_reported_and_left_as_it_is(name, kind, sweep):
    damage(sweep.root / name, kind)
    if name in ("epochs.jsonl", "study.journal") and kind == "cut":
        lines = (sweep.root / name).read_bytes().splitlines(keepends=True)
        (sweep.root / name).write_bytes(b"".join([lines[0], b"{damaged\n", *lines[1:]]))
    content = (sweep.root / name).read_bytes()
    if name == "spec.yaml" and kind == "cut":
        (sweep.root / name).write_bytes(content := content + b"\n  - [")
    found = {finding.file: finding for finding in examine(sweep)}
    assert found[name].state == "damaged"
    assert "\n" not in found[name].note
    assert (sweep.root / name).read_bytes() == content


def test_damaged_weights_of_a_complete_trial_come_with_the_command_that_trains_it_again(sweep):
    key = next(path.parent.name for path in sorted(sweep.trials.glob("*/best.safetensors")))
    damage(sweep.trial(key).best, "noise")
    (found,) = (finding for finding in examine(sweep) if finding.state == "damaged")
    assert "other students can; to train this one again, from the same seed: kdsweep run " in found.note
    words = shlex.split(found.note.partition("same seed: kdsweep run ")[2])
    assert words[:3] == [str(sweep.spec), "--name", f"sweep-{key}"]
    values = dict(word.split("=", 1) for word in words[4::2])
    spec = load_spec(words[0], {name: parse_value(value, name) for name, value in values.items()})
    assert [dict(point) for point in spec.search.points] == [load_results(sweep.root).config(key)]
    assert (spec.seed, spec.search.trials, spec.confirm.top) == (read_spec(sweep).seed, 1, 0)


def test_weights_of_other_trials_have_an_advice_too(sweep):
    results = load_results(sweep.root)
    assert results.trials["state"].isin(["COMPLETE", "PRUNED"]).all()
    stray = sweep.trials / "9999-abcdef" / "best.safetensors"
    stray.parent.mkdir()
    stray.write_bytes(b"x")
    (found,) = (finding for finding in examine(sweep) if finding.state == "damaged")
    assert found.note.endswith("its trial cannot be exported")


def test_the_ways_forward_for_data_and_specs_lead_to_a_whole_sweep(sweep):
    spec = read_spec(sweep)
    spec.save(sweep.spec)
    data = prepare(spec.dataset, spec.seed, sweep.store)
    record_data(sweep, data, scores=False)
    assert set(states(sweep).values()) == {"whole"}
    for name, advice in (
        ("data.json", "or delete it and run kdsweep resume"),
        ("specs.jsonl", "delete it, and kdsweep resume"),
    ):
        (sweep.root / name).write_bytes(b"\x00\xff\n")
        found = {finding.file: finding for finding in examine(sweep)}
        assert advice in found[name].note
        (sweep.root / name).unlink()
        spec.save(sweep.spec)  # as resume does
        record_data(sweep, data, scores=False)
        assert set(states(sweep).values()) == {"whole"}
        assert (sweep.root / name).is_file()


def test_an_edited_spec_is_the_only_damage(sweep):
    read_spec(sweep).save(sweep.spec)
    sweep.spec.write_text(sweep.spec.read_text().replace("seed: 0", "seed: 1"))
    damaged = [finding for finding in examine(sweep) if finding.state == "damaged"]
    assert [finding.file for finding in damaged] == ["spec.yaml"]
    assert damaged[0].note.startswith("edited since the sweep began (seed: 0 -> 1)")


def test_a_running_sweep_is_left_alone(sweep):
    with FileLock(sweep.lock), refused(SWEEP, SweepDirError, match="the sweep is running; wait for it or stop it"):
        examine(sweep)


def test_the_command_exits_with_1_only_if_damage_remains(sweep, monkeypatch, capsys):
    def doctor():
        monkeypatch.setattr(sys, "argv", ["kdsweep", "doctor", str(sweep.root)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, capsys.readouterr().out

    damage(sweep.trials_frame, "cut")
    code, out = doctor()
    assert code == 0
    assert "repaired" in out
    damage(sweep.data, "cut")
    code, out = doctor()
    assert code == 1
    assert "damaged" in out
