"""What every section of a sweep file has in common: unknown keys and loose types are refused.

Each room declares its own sections, and `config.spec` puts them together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from kdsweep.errors import did_you_mean
from kdsweep.params import Parts, named

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _named(written: object) -> object:
    if isinstance(written, str) or (isinstance(written, dict) and isinstance(written.get("name"), str)):
        return written
    raise PydanticCustomError("part", "a name, or a name with parameters: {name: package.module:Class, PARAMETER: 1}")


# A name that a registry knows, `package.module:Class`, or either with parameters: {name: ..., parameter: ...}.
PartName = Annotated[str | dict[str, Any], BeforeValidator(_named)]


class Section(BaseModel):
    """A section of a sweep file: unknown keys and loose types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def part(self, parts: Parts[Any], written: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """A part that the section names, and its parameters.

        These are the section's keys for parts of this kind that it declares, and what is given with its name.

        Args:
            parts: All of its kind.
            written: The value of the key that names it.
        """
        name, own = named(written)
        shared = parts.find(name).params().keys() & self._keys_for(parts)
        return name, {key: getattr(self, key) for key in shared} | own

    def part_faults(self, parts: Parts[Any], written: str | dict[str, Any], epochs: int) -> Iterator[tuple[str, str]]:
        """What is wrong with the section's settings of a part that exists, as (parameter, message).

        Args:
            parts: All of its kind.
            written: The value of the key that names it.
            epochs: The full budget.
        """
        name, own = named(written)
        cls = parts.find(name)
        declared, keys = cls.params(), self._keys_for(parts)
        for key in own:
            if key in keys and key in declared:
                yield key, f"given with {name}; accepted: as a key beside it"
            elif key not in declared:
                yield key, f"unknown parameter {key!r} of {name}; {did_you_mean(key, declared.keys() - keys)}"
        params = {key: value for key, value in self.part(parts, written)[1].items() if key in declared}
        wrong = {key: fault for key, value in params.items() if (fault := declared[key].valid.fault(value))}
        yield from wrong.items()
        if not wrong:
            defaults = {key: param.default for key, param in declared.items()}
            yield from cls.faults({"epochs": epochs} | defaults | params)

    def _keys_for(self, parts: Parts[Any]) -> set[str]:
        """The section's keys that are parameters of some registered part."""
        return {key for name in parts for key in parts[name].params()} & type(self).model_fields.keys()
