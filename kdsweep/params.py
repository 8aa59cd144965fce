"""Parts that a sweep file refers to by name: methods, optimizers, samplers and so on.

Each part is a class with declared parameters. Each kind of part has a base class derived from `Declared` and a `Parts`
registry of the classes declared in one package. Wherever a registered name is accepted, a user's own class is too, as
`package.module:Class`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from inspect import cleandoc
from typing import Any, ClassVar, Generic, TypeVar, cast, overload

from kdsweep.distributions import Choice, Distribution, Valid
from kdsweep.errors import InputError, UnknownNameError, did_you_mean
from kdsweep.registry import Registry, is_user_object, load_user_object

T = TypeVar("T")
P = TypeVar("P", bound="Declared")
SWITCH = Choice((False, True))


class Param(Generic[T]):
    """One parameter of a part: its default, meaning, default search range and valid values.

    Declare it as a class attribute. Reading it from an instance gives its value: a number, string, bool or list.

    Args:
        default: The value if none is given.
        meaning: One-line description for the user, with the unit.
        search: The default search range when a sweep gives none; None keeps the default value.
        valid: The valid values.
    """

    def __init__(self, default: T, meaning: str, search: Distribution | None = None, *, valid: Valid):
        self.default = default
        self.meaning = meaning
        self.search = search
        self.valid = valid
        self.name = ""

    def __set_name__(self, owner: type[Declared], name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type[Declared]) -> Param[T]: ...
    @overload
    def __get__(self, instance: Declared, owner: type[Declared]) -> T: ...
    def __get__(self, instance: Declared | None, owner: type[Declared]) -> Param[T] | T:
        return self if instance is None else cast(T, instance.__dict__[self.name])

    def __set__(self, instance: Declared, value: T) -> None:
        if not self.valid.contains(value):
            part = type(instance)
            raise part.error(f"{part.name}.{self.name} is {value!r}; accepted: {self.valid.described()}")
        instance.__dict__[self.name] = value


class Declared:
    """A part with a name and declared parameters.

    Args:
        params: Values of the declared parameters.

    Raises:
        InputError: If a parameter is unknown, invalid, or incompatible with the others.
    """

    kind: ClassVar[str] = "part"
    error: ClassVar[type[InputError]] = InputError
    name: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        """Default `name` to the class name, for error messages."""
        cls.name = vars(cls).get("name", cls.__name__)

    def __init__(self, **params: Any):
        declared = self.params()
        for key in params:
            if key not in declared:
                raise self.error(f"{self.kind} {self.name} has no parameter {key!r}; {did_you_mean(key, declared)}")
        for key, param in declared.items():
            setattr(self, key, params.get(key, param.default))
        for key, message in self.faults(vars(self)):
            raise self.error(f"{self.name}.{key}: {message}")

    @classmethod
    def params(cls) -> dict[str, Param[Any]]:
        """Return the declared parameters by name, inherited ones included."""
        found: dict[str, Param[Any]] = {}
        for base in reversed(cls.__mro__):
            found |= {key: value for key, value in vars(base).items() if isinstance(value, Param)}
        return found

    @classmethod
    def uses(cls, name: str, values: Mapping[str, Any]) -> bool:
        """Whether a parameter has an effect, given the values of others. A sweep draws it only if so.

        Args:
            name: The parameter.
            values: Values of some of the other parameters.
        """
        return name in cls.params()

    @classmethod
    def faults(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield conflicts between individually valid values, as (parameter, message).

        Args:
            values: The values of all parameters, plus `epochs` (the budget) for parts that receive it.
        """
        yield from ()


class Parts(Registry[type[P]]):
    """The registry of one kind of part.

    Args:
        base: The base class of all parts of this kind.
        package: The package whose modules declare the parts.
        adapt: Wraps a user-named class of another library as a subclass of `base`, or returns it unchanged.
    """

    def __init__(self, base: type[P], package: str, adapt: Callable[[Any], Any] = lambda found: found):
        super().__init__(base.kind, package)
        self._base = base
        self._adapt = adapt

    def declare(self, cls: type[P]) -> type[P]:
        """Register a class under its `name`. Use as a class decorator."""
        return self.add(cls.name, cls)

    def find(self, name: str) -> type[P]:
        """Return the class for a name in a sweep file.

        Args:
            name: A registered name or `package.module:Class`.

        Raises:
            UnknownNameError: If the name is unknown (the message suggests the nearest one), cannot be imported, or is
                not a subclass of `base`.
        """
        if not is_user_object(name):
            return self[name]
        found = self._adapt(load_user_object(name, self.kind))
        if not (isinstance(found, type) and issubclass(found, self._base)):
            wanted = f"{self._base.__module__.removesuffix('.base')}.{self._base.__name__}"
            raise UnknownNameError(f"{self.kind} {name!r} is {found!r}; accepted: a subclass of {wanted}")
        return found

    def create(self, name: str, *args: Any, **params: Any) -> P:
        """Create an instance of a part.

        Args:
            name: As for `find`.
            args: Positional constructor arguments, in addition to the parameters.
            params: Values of the declared parameters.
        """
        return self.find(name)(*args, **params)


def named(written: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Split a part's entry in a sweep file into its name and the parameters given with it.

    Args:
        written: `sgd`, or `{name: "my:Lion", beta: 0.95}`.
    """
    if isinstance(written, str):
        return written, {}
    return str(written["name"]), {key: value for key, value in written.items() if key != "name"}


def summary(cls: type[Declared]) -> str:
    """Return the first line of a part's docstring."""
    return cleandoc(cls.__doc__ or "").partition("\n")[0]
