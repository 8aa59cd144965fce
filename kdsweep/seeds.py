"""Seeds: every random draw is keyed by what it is for, so that no draw depends on what was drawn before."""

from __future__ import annotations

import hashlib
import json


def derived_seed(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose, such as `derived_seed(seed, "order", epoch)`: 0 to 2**63 - 1."""
    return int(digest_of([seed, *purpose])[:16], 16) >> 1


def digest_of(value: object) -> str:
    """The SHA-256 of a value's JSON form, in hexadecimal."""
    written = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(written.encode()).hexdigest()
