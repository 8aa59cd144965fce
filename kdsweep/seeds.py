"""Seeds derived per purpose, so that random streams are independent of each other and of their order."""

from __future__ import annotations

import hashlib
import json


def derived_seed(seed: int, *purpose: str | int) -> int:
    """Derive a seed from 0 to 2**63 - 1 for one purpose, for example `derived_seed(seed, "order", epoch)`."""
    return int(digest_of([seed, *purpose])[:16], 16) >> 1


def digest_of(value: object) -> str:
    """Return the SHA-256 hex digest of a value's JSON form."""
    written = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(written.encode()).hexdigest()


def run_name(config: object, seed: int) -> str:
    """Return the name of a confirmation run and of its folder."""
    return f"{digest_of(config)[:12]}-{seed}"
