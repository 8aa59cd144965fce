"""A small real corpus: the sentences of the package chatterbot-corpus in ten languages, labelled by language."""

from __future__ import annotations

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

from ruamel.yaml import YAML

LANGUAGES = (
    "dutch",
    "english",
    "french",
    "german",
    "indonesian",
    "italian",
    "portuguese",
    "spanish",
    "swedish",
    "turkish",
)
SHORTEST, MOST = 12, 400  # characters of a sentence; sentences of a language


def sentences(split: str) -> tuple[list[str], list[str]]:
    """Sentences and their languages; every fifth sentence, by hash, is in `test`."""
    texts, labels = [], []
    spec = find_spec("chatterbot_corpus")
    (package,) = spec.submodule_search_locations
    for language in LANGUAGES:
        found = set()
        for file in sorted((Path(package) / "data" / language).glob("*.yml")):
            for turns in YAML(typ="safe").load(file.read_text("utf-8")).get("conversations", []):
                spoken = [" ".join(turn.split()) for turn in turns if isinstance(turn, str)]
                found.update(turn for turn in spoken if len(turn) >= SHORTEST)
        by_hash = sorted(found, key=lambda text: hashlib.sha256(text.encode()).digest())[:MOST]
        tests = len(by_hash) // 5
        kept = by_hash[:tests] if split == "test" else by_hash[tests:]
        texts += kept
        labels += [language] * len(kept)
    return texts, labels


def write(folder: Path) -> Path:
    """Write the corpus as train.jsonl and test.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        rows = zip(*sentences(split), strict=True)
        lines = [json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in rows]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
