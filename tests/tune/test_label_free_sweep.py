"""A sweep over images without labels, from end to end."""

from __future__ import annotations

import json
import re

import label_free
import pytest
from inputs import STUDENT, refused

import kdsweep
from kdsweep.errors import DataError
from kdsweep.results.report.page import write_report
from kdsweep.results.student import evaluate_student
from kdsweep.terminal.summary import print_summary

pytestmark = pytest.mark.slow


def test_a_sweep_without_labels_says_agreement_and_claims_no_gain(tmp_path, capsys):
    root = label_free.split_photos(tmp_path / "photos", count=80)
    values = label_free.values(root, label_free.teacher(tmp_path / "teacher.safetensors"), tmp_path / "runs")
    results = kdsweep.run(values, address="local", progress=False)
    assert set(results.trials["state"]) == {"COMPLETE"}
    assert results.trials["val_agreement"].notna().all()
    assert set(results.trials["alpha"]) == {1.0}
    for frame in (results.trials, results.epochs):
        assert frame.reindex(columns=["val_accuracy", "val_loss", "task_loss"]).isna().all(axis=None)
    confirmed = results.confirmed
    assert list(confirmed["seeds"]) == [2, 2]
    assert confirmed[["test_agreement", "test_agreement_std", "test_accuracy"]].notna().all(axis=None)
    assert confirmed[["kd_gain", "kd_gain_tuned"]].isna().all(axis=None)
    assert set(confirmed["verdict"]) == {""}
    assert len(list((results.path / "confirmed").glob("*/*.json"))) == 4  # no plain students
    assert "val_agreement" not in results.teacher
    print_summary(results)
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(
        r"test agreement \d+\.\d+% \(95 % interval .* to .*, 2 fresh seeds\), test accuracy .* \(teacher", said
    )
    assert "No gain is claimed: without labels there is no plain student to compare with" in said
    assert "plain twin" not in said
    page = write_report(results, tmp_path / "report.html").read_text()
    shown = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "No gain is claimed" in shown
    assert "test agreement" in shown
    for absent in ('id="gains"', 'id="classes"', "gain over", "Accuracy by class"):
        assert absent not in shown
    (folder,) = results.export(tmp_path / "students", top=1)
    card = (folder / "README.md").read_text()
    assert "## Agreement" in card
    assert "No gain is claimed" in card
    assert "accuracy" not in card.replace("agreement with the teacher is not accuracy", "")
    assert "label_smoothing" not in card
    assert json.loads((folder / "config.json").read_text())["val_agreement"] > 0
    assert evaluate_student(folder, "test", root=str(root))["accuracy"] >= 0
    with refused(
        STUDENT, DataError, match="split 'val' has no labels, so there is nothing to compare with; accepted: a"
    ):
        evaluate_student(folder, "val", root=str(root))
    more = kdsweep.resume(results.path, trials=5, address="local", progress=False)
    assert len(more.trials) == 5
