"""Parts that a sweep file names, each a class with declared parameters: methods, optimizers, samplers and so on.

A kind of part is a subclass of `Declared` and a registry, `Parts`, of the classes that one package's modules declare.
Wherever a name is taken, so is the user's own class as `package.module:Class`.
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
    """One parameter of a part: its default, its default search range and what it means.

    Declared as a class attribute, read from an instance as the value: a number, a word, a truth value or a list.

    Args:
        default: The value when nothing is said.
        meaning: One line for the reader, with the unit.
        search: What a sweep draws it from when a method is only named; None if it keeps its default.
        valid: The values that make sense at all.
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
        InputError: If a parameter is unknown, out of range, or does not go with the others.
    """

    kind: ClassVar[str] = "part"
    error: ClassVar[type[InputError]] = InputError
    name: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        """Let errors call a class without a name by its class name."""
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
        """The declared parameters by name."""
        found: dict[str, Param[Any]] = {}
        for base in reversed(cls.__mro__):
            found |= {key: value for key, value in vars(base).items() if isinstance(value, Param)}
        return found

    @classmethod
    def uses(cls, name: str, values: Mapping[str, Any]) -> bool:
        """Whether a parameter has an effect beside the values of others; a sweep draws it only then.

        Args:
            name: The parameter.
            values: Values of some of the others.
        """
        return name in cls.params()

    @classmethod
    def faults(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """What is wrong with values that are valid one by one, as (parameter, message).

        Args:
            values: Of every parameter, and of `epochs` (the budget) for a part that is told of it.
        """
        yield from ()


class Parts(Registry[type[P]]):
    """The registered classes of one kind.

    Args:
        base: What each of them is a subclass of.
        package: The package whose modules declare them.
        adapt: Turns a class of another library that a user names into a subclass of `base`, or gives it back.
    """

    def __init__(self, base: type[P], package: str, adapt: Callable[[Any], Any] = lambda found: found):
        super().__init__(base.kind, package)
        self._base = base
        self._adapt = adapt

    def declare(self, cls: type[P]) -> type[P]:
        """Declare a class under its `name`."""
        return self.add(cls.name, cls)

    def find(self, name: str) -> type[P]:
        """The class that a sweep file names.

        Args:
            name: A registered name or `package.module:Class`.

        Raises:
            UnknownNameError: With the nearest valid name.
        """
        if not is_user_object(name):
            return self[name]
        found = self._adapt(load_user_object(name, self.kind))
        if not (isinstance(found, type) and issubclass(found, self._base)):
            wanted = f"{self._base.__module__.removesuffix('.base')}.{self._base.__name__}"
            raise UnknownNameError(f"{self.kind} {name!r} is {found!r}; accepted: a subclass of {wanted}")
        return found

    def create(self, name: str, *args: Any, **params: Any) -> P:
        """Make one.

        Args:
            name: As for `find`.
            args: What its constructor takes beside parameters.
            params: Values of its parameters.
        """
        return self.find(name)(*args, **params)


def named(written: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What a sweep file says of a part: its name, and the parameters given with it.

    Args:
        written: `sgd`, or `{name: "my:Lion", beta: 0.95}`.
    """
    if isinstance(written, str):
        return written, {}
    return str(written["name"]), {key: value for key, value in written.items() if key != "name"}


def summary(cls: type[Declared]) -> str:
    """The first line of a part's docstring."""
    return cleandoc(cls.__doc__ or "").partition("\n")[0]
