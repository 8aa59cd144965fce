"""The base class of sweep-file sections, which reject unknown keys and loosely typed values.

Each subpackage declares its own sections, and `config.spec` combines them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from kdsweep.errors import did_you_mean
from kdsweep.params import Parts, named

MOST_EPOCHS = 1_000_000

Count = Annotated[int, Field(ge=1)]
Epochs = Annotated[int, Field(ge=1, le=MOST_EPOCHS)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _named(written: object) -> object:
    if isinstance(written, str) or (isinstance(written, dict) and isinstance(written.get("name"), str)):
        return written
    raise PydanticCustomError("part", "a name, or a name with parameters: {name: package.module:Class, PARAMETER: 1}")


# A registered name, `package.module:Class`, or either one with parameters: {name: ..., parameter: ...}.
PartName = Annotated[str | dict[str, Any], BeforeValidator(_named)]


class Section(BaseModel):
    """A section of a sweep file. Rejects unknown keys and loosely typed values."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def part(self, parts: Parts[Any], written: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the name and parameters of a part that this section names.

        The parameters are those of the section's keys that the part declares, plus those given with its name.

        Args:
            parts: The registry of its kind.
            written: The value of the key that names the part.
        """
        name, own = named(written)
        shared = parts.find(name).params().keys() & self._keys_for(parts)
        return name, {key: getattr(self, key) for key in shared} | own

    def part_faults(self, parts: Parts[Any], written: str | dict[str, Any], epochs: int) -> Iterator[tuple[str, str]]:
        """Yield the faults in the section's settings for an existing part, as (parameter, message).

        Args:
            parts: The registry of its kind.
            written: The value of the key that names the part.
            epochs: The full budget.
        """
        name, own = named(written)
        cls = parts.find(name)
        declared, keys = cls.params(), self._keys_for(parts)
        for key in own:
            if key in keys and key in declared:
                yield key, f"given with {name}; write it as a separate key instead"
            elif key not in declared:
                yield key, f"unknown parameter {key!r} of {name}; {did_you_mean(key, declared.keys() - keys)}"
        params = {key: value for key, value in self.part(parts, written)[1].items() if key in declared}
        wrong = {key: fault for key, value in params.items() if (fault := declared[key].valid.fault(value))}
        yield from wrong.items()
        if not wrong:
            defaults = {key: param.default for key, param in declared.items()}
            yield from cls.faults({"epochs": epochs} | defaults | params)

    def _keys_for(self, parts: Parts[Any]) -> set[str]:
        """Return the section's keys that are parameters of at least one registered part."""
        return {key for name in parts for key in parts[name].params()} & type(self).model_fields.keys()
