from __future__ import annotations

from studies import close_studies  # noqa: F401 - every test of this folder uses it
