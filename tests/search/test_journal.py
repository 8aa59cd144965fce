"""The journal of a study on storage that disappears."""

from __future__ import annotations

import pytest

from kdsweep.search.journal import BatchedJournal


def test_a_journal_whose_directory_disappeared_is_not_begun_anew(tmp_path):
    folder, away = tmp_path / "sweep", tmp_path / "away"
    folder.mkdir()
    (folder / "study.journal").touch()
    journal = BatchedJournal(folder / "study.journal")
    journal.append_logs([{"number": 0}])
    folder.rename(away)
    (folder / "trials").mkdir(parents=True)  # as a worker does that begins a trial
    with pytest.raises(FileNotFoundError, match=r"study\.journal"):
        journal.append_logs([{"number": 1}])
    assert not (folder / "study.journal").exists()
    assert (away / "study.journal").read_text() == '{"number":0}\n'
