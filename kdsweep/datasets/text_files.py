"""Texts in files: a table per split (JSON Lines, CSV, TSV or Parquet), or a folder per class.

A split is `root/train.jsonl` (or .csv, .tsv, .parquet) with a column of texts and one of labels, or `root/train/CLASS/`
with one text in each .txt file; `val` and `test` likewise, if there are any. A root that is a file is the training
split.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from kdsweep.datasets.base import Dataset, DatasetInfo, Source, Split, register
from kdsweep.datasets.labels import class_names_in, shown, split_of, text_digests
from kdsweep.errors import DataError

SPLITS = ("train", "val", "test")
SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")
LAYOUT = f"train{'|'.join(SUFFIXES)} or train/CLASS/TEXT.txt, and perhaps val and test"


class _Rows(NamedTuple):
    texts: list[str]
    labels: list[str]


def _inspect(source: Source) -> DatasetInfo:
    places = _places(source.root)
    rows = _rows(source, "train")
    return DatasetInfo((), class_names_in(rows.labels, source.classes, str(places["train"])), splits=tuple(places))


def _read(source: Source, split: str) -> Split:
    where = str(_places(source.root)[split])
    return split_of(*_rows(source, split), _inspect(source).class_names, where)


def _content(source: Source, split: str) -> list[str]:
    return text_digests(*_read(source, split))


def _count(source: Source) -> int:
    return len(_rows(source, "train").labels)


def _places(root: Path) -> dict[str, Path]:
    """Return the file or directory of each split.

    Raises:
        DataError: If there is no training split, or two files of one split.
    """
    if root.is_file():
        if root.suffix not in SUFFIXES:
            raise DataError(f"{root}: found the ending {root.suffix!r}; accepted: {', '.join(SUFFIXES)}")
        return {"train": root}
    if not root.is_dir():
        raise DataError(f"{root}: no such file or directory; accepted: a dataset.root with {LAYOUT}")
    found: dict[str, Path] = {}
    for split in SPLITS:
        there = [path for path in (root / split, *(root / f"{split}{suffix}" for suffix in SUFFIXES)) if path.exists()]
        if len(there) > 1:
            raise DataError(f"{root}: found {' and '.join(path.name for path in there)}; accepted: one of them")
        if there:
            found[split] = there[0]
    if "train" not in found:
        raise DataError(f"{root}: no training texts; accepted: a dataset.root with {LAYOUT}")
    return found


def _rows(source: Source, split: str) -> _Rows:
    path = _places(source.root)[split]
    try:
        if path.is_dir():
            return _folders(path)
        stat = path.stat()
        return _table(path, source.columns, (stat.st_size, stat.st_mtime_ns))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _folders(folder: Path) -> _Rows:
    rows = _Rows([], [])
    for parent in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = sorted(path for path in parent.rglob("*.txt") if not path.name.startswith("."))
        if not files:
            raise DataError(f"{parent}: no .txt files; accepted: at least one text of each class")
        for file in files:
            try:
                rows.texts.append(file.read_text(encoding="utf-8"))
            except UnicodeDecodeError as error:
                raise DataError(f"{file}: not UTF-8: {error.reason} at byte {error.start}") from error
            rows.labels.append(parent.name)
    return rows


@lru_cache(maxsize=len(SPLITS))
def _table(path: Path, columns: tuple[str, str], _stamp: tuple[int, int]) -> _Rows:
    from pyarrow import ArrowException

    try:
        table = _open(path)
        missing = [name for name in columns if name not in table.column_names]
    except (ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: unreadable: {str(error).splitlines()[0]}") from error
    if missing:
        keys = {columns[0]: "text_column", columns[1]: "label_column"}
        raise DataError(
            f"{path}: no column {missing[0]!r}; found {shown(table.column_names)}; accepted: a column of that name, or "
            f"its name as dataset.text.{keys[missing[0]]}"
        )
    texts, labels = (table.column(name).to_pylist() for name in columns)
    for place, (text, label) in enumerate(zip(texts, labels, strict=True), 1):
        if not isinstance(text, str):
            raise DataError(f"{path}: row {place}: the text is {_found(text)}; accepted: text")
        if not isinstance(label, str | int) or label == "":
            raise DataError(f"{path}: row {place}: the label is {_found(label)}; accepted: a word or a whole number")
    return _Rows(texts, [str(label) for label in labels])


def _open(path: Path) -> Any:
    """Read a table with pyarrow; the texts of CSV and TSV files are never taken for numbers."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return pq.read_table(path)
    if path.suffix == ".jsonl":
        from pyarrow import json

        return json.read_json(path)
    import pyarrow as pa
    from pyarrow import csv

    names = csv.open_csv(path, parse_options=_parsing(path)).schema.names
    return csv.read_csv(
        path,
        parse_options=_parsing(path),
        convert_options=csv.ConvertOptions(
            column_types={name: pa.string() for name in names}, strings_can_be_null=False
        ),
    )


def _parsing(path: Path) -> Any:
    from pyarrow import csv

    return csv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ",", newlines_in_values=True)


def _found(value: object) -> str:
    return "missing" if value is None or value == "" else f"{str(value)[:40]!r}"


register(
    Dataset("text_files", f"your own texts: {LAYOUT}", _inspect, _read, content=_content, count=_count, task="text")
)
