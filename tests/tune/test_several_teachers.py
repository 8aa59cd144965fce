"""Two teachers and their ensemble, then a student of that sweep as a teacher, on a real Ray."""

from __future__ import annotations

import pytest

import kdsweep
from kdsweep.errors import SpecError
from kdsweep.results.student_config import read_config
from kdsweep.storage import weights
from kdsweep.terminal.summary import print_summary

SMALL = {
    "dataset.subset": 400, "train.epochs": 2, "search.trials": 10, "confirm.seeds": 3, "search.sampler": "random",
    "scheduler.name": "none", "teachers.small.train": {"epochs": 3, "lr": 5e-3, "batch_size": 16},
}  # fmt: skip


@pytest.mark.slow
def test_two_teachers_their_ensemble_and_a_chain_have_verdicts(local_ray, tmp_path, capsys):
    points = [
        *({"method": "kd", "teacher": name} for name in ("large", "small", "large+small")),
        {"method": "none"},
    ]
    first = kdsweep.run(
        "two_teachers", overrides={**SMALL, "search.points": points, "storage": str(tmp_path)}, progress=False
    )
    assert (first.trials["state"] == "COMPLETE").all()
    taught = first.taught
    assert set(taught["teacher"]) == {"large", "small", "large+small"}
    assert set(taught["verdict_tuned"]) <= {"gain", "loss", "same", "undecided"}
    assert list(taught["versus_verdict"] != "") == [False, True, True]
    assert taught["test_agreement"].between(0.1, 1).all()
    assert taught["teacher_latency_ms"].notna().all()
    print_summary(first)
    assert capsys.readouterr().out.count("Taught by") == 3
    assert "What each teacher gave" in (first.path / "report.html").read_text()
    assert len(list((tmp_path / ".cache" / "outputs").iterdir())) == 2
    exported = first.export(tmp_path / "students", top=3)
    assert {read_config(folder).teacher["name"] for folder in exported if "teacher" in read_config(folder).settings}

    assistant = str(first.path / "best")
    best = first.confirmed["trial"].iloc[0]  # by the mean over the fresh seeds
    chain = {
        **SMALL, "name": "second", "space.width": 0.25, "search.trials": 8, "confirm.top": 2, "search.points": [],
        "teachers": {"assistant": {"student": assistant}, "exported": {"student": str(exported[0])}},
        "space.teacher": ["assistant", "exported"], "storage": str(tmp_path),
    }  # fmt: skip
    del chain["teachers.small.train"]
    for key in ("teacher_weight", "teacher_mean"):
        chain[f"space.{key}"] = 0.5 if key == "teacher_weight" else "logits"
    with pytest.raises(SpecError, match="has no effect without an ensemble"):
        kdsweep.load_spec("two_teachers", chain)
    chain |= {"space.teacher": ["assistant", "assistant+exported"]}
    second = kdsweep.run("two_teachers", overrides=chain, progress=False)
    assert second.teachers["assistant"]["origin"] == assistant
    mine = weights.load(second.sweep.of_teacher("assistant").teacher_weights)
    theirs = weights.load(first.sweep.trial(best).best)
    assert all(mine[name].equal(theirs[name]) for name in theirs)
    assert set(second.taught["teacher"]) == {"assistant", "assistant+exported"}
    assert second.taught["verdict_tuned"].isin(["gain", "loss", "same", "undecided"]).all()
