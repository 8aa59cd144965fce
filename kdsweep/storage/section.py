"""The type of a place in a sweep file."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from kdsweep.storage.places import place_fault

LONGEST_PATH, LONGEST_PART = 4000, 255  # bytes, on the usual file systems


def _place(written: object) -> object:
    if isinstance(written, str):
        lengths = [len(part.encode(errors="surrogatepass")) for part in (written, *written.split("/"))]
        if "\0" in written or lengths[0] > LONGEST_PATH or max(lengths[1:]) > LONGEST_PART:
            raise PydanticCustomError("path", f"a path without NUL, of names of at most {LONGEST_PART} bytes")
        if fault := place_fault(written):
            raise PydanticCustomError("path", "{accepted}", {"accepted": fault})
    return written


# The path or URI of a file or directory; `Place.of` tells them apart.
PlaceText = Annotated[str, BeforeValidator(_place)]
