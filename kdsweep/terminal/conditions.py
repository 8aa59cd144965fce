"""`--where`: conditions on the columns of a frame, evaluated from an allow-list of syntax; no code is executed."""

from __future__ import annotations

import ast
import operator
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kdsweep.errors import InputError, did_you_mean

LONGEST = 2000
EXAMPLE = "such as \"width <= 0.5 and method == 'kd'\""

# Numbers are float64 (missing: NaN), text is object (missing: None), conditions are bool; constants are 0-dimensional.
Values = NDArray[Any]

_ARITHMETIC: dict[type[ast.operator], Callable[[Values, Values], Values]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.mod,
    ast.Pow: np.power,
}
_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_LOGIC: dict[type[ast.AST], Callable[[Values, Values], Values]] = {
    ast.And: np.logical_and,
    ast.BitAnd: np.logical_and,
    ast.Or: np.logical_or,
    ast.BitOr: np.logical_or,
}


def matching(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Select the rows that satisfy a condition.

    A condition compares columns with each other, with numbers and with text: comparisons (also chained), arithmetic,
    `and`, `or`, `not`, `in [...]`, `isna()` and `notna()`. Dotted column names need no quoting. A missing value is
    equal to nothing, and neither smaller nor larger than anything.

    Args:
        frame: Trials or epochs.
        where: The condition.

    Raises:
        InputError: If it is not a valid condition.
    """
    try:
        return frame[_Condition(frame, where).rows()]
    except (_Refused, RecursionError) as error:
        shown = where if len(where) <= 200 else where[:200] + "..."
        reason = (
            str(error)
            if isinstance(error, _Refused)
            else "nested too deeply; accepted: fewer nested parentheses and operators"
        )
        raise InputError(f"--where {shown!r}: {reason}") from error


class _Refused(Exception):  # noqa: N818 - becomes an InputError
    """An invalid condition: what was found, and what is accepted."""


class _Condition:
    def __init__(self, frame: pd.DataFrame, where: str):
        self._frame = frame
        self._placeholders: dict[str, str] = {}
        self._tree = self._parsed(where.strip())

    def rows(self) -> NDArray[np.bool_]:
        """Whether each row satisfies the condition [N]."""
        with np.errstate(all="ignore"):  # a division by zero is inf or NaN, as in the frame
            found = self._value(self._tree)
        if found.dtype != bool or found.ndim == 0:
            raise _Refused(f"not a condition on columns; accepted: a condition {EXAMPLE}")
        return found

    def _parsed(self, where: str) -> ast.expr:
        if len(where) > LONGEST:
            raise _Refused(f"{len(where)} characters; accepted: at most {LONGEST}")
        try:
            return ast.parse(self._with_placeholders(where), mode="eval").body
        except (SyntaxError, ValueError, MemoryError) as error:
            raise _Refused(f"invalid syntax; accepted: a condition {EXAMPLE}") from error

    def _with_placeholders(self, where: str) -> str:
        """Replace column names that are not Python names (`rung.2`, names in backticks) by placeholders."""
        dotted = sorted((str(name) for name in self._frame.columns if "." in str(name)), key=len, reverse=True)
        bare = rf"|(?<![\w.])(?P<bare>{'|'.join(map(re.escape, dotted))})(?!\w)" if dotted else ""
        pattern = rf"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`(?P<quoted>[^`]*)`{bare}"""

        def placeholder(found: re.Match[str]) -> str:
            column = found[found.lastgroup] if found.lastgroup else None
            if column is None:
                return found[0]
            name = f"column_{len(self._placeholders)}_"
            self._placeholders[name] = column
            return name

        return re.sub(pattern, placeholder, where)

    def _value(self, node: ast.expr) -> Values:
        match node:
            case ast.Constant(value=value):
                return _constant(value)
            case ast.Name() | ast.Attribute():
                return self._column(node)
            case ast.BoolOp(op=op, values=parts):
                return self._logic(op, *parts)
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr() as op, left=left, right=right):
                return self._logic(op, left, right)
            case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=operand):
                return np.logical_not(self._truth(operand))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return np.negative(self._number(operand))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self._number(operand)
            case ast.BinOp(op=op, left=left, right=right) if type(op) in _ARITHMETIC:
                return self._arithmetic(op, left, right)
            case ast.Compare():
                return self._comparison(node)
            case ast.Call(func=ast.Attribute(value=column, attr="isna" | "notna" as asked), args=[], keywords=[]):
                missing = _missing(self._column(column))
                return missing if asked == "isna" else np.logical_not(missing)
        raise _Refused(
            f"found {ast.unparse(node)[:60]!r}; accepted: columns, numbers, text, comparisons, arithmetic, and, or, "
            "not, in, isna(), notna()"
        )

    def _column(self, node: ast.expr) -> Values:
        name = self._name(node)
        if name not in self._frame.columns:
            raise _Refused(
                f"no column {name!r} (text needs quotes); {did_you_mean(name, map(str, self._frame.columns))}"
            )
        return _array(self._frame[name])

    def _name(self, node: ast.expr) -> str:
        match node:
            case ast.Name(id=name):
                return self._placeholders.get(name, name)
            case ast.Attribute(value=inner, attr=attribute):
                return f"{self._name(inner)}.{attribute}"
        raise _Refused(f"found {ast.unparse(node)[:60]!r}; accepted: a column")

    def _logic(self, op: ast.AST, *parts: ast.expr) -> Values:
        found = self._truth(parts[0])
        for part in parts[1:]:
            found = _LOGIC[type(op)](found, self._truth(part))
        return found

    def _arithmetic(self, op: ast.operator, left: ast.expr, right: ast.expr) -> Values:
        if isinstance(op, ast.Pow) and any(
            isinstance(part, ast.Pow) for side in (left, right) for part in ast.walk(side)
        ):
            raise _Refused("found a power of a power; accepted: one ** at a time")
        return _ARITHMETIC[type(op)](self._number(left), self._number(right))

    def _comparison(self, node: ast.Compare) -> Values:
        found: Values = np.array(True)
        left = node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            found = np.logical_and(found, self._compared(op, left, right))
            left = right
        return found

    def _compared(self, op: ast.cmpop, left: ast.expr, right: ast.expr) -> Values:
        match op:
            case ast.In():
                return self._among(left, right)
            case ast.NotIn():
                return np.logical_not(self._among(left, right))
            case ast.Eq():
                return self._equal(left, right)
            case ast.NotEq():
                return np.logical_not(self._equal(left, right))
        if type(op) not in _ORDER:
            raise _Refused("found 'is'; accepted: ==, !=, isna(), notna()")
        first, second = self._pair(left, right)
        if first.dtype == bool:
            raise _Refused(f"{ast.unparse(left)[:60]!r} is true or false; accepted: == or !=")
        there = _both_there(first, second)
        return np.logical_and(there, _ORDER[type(op)](_filled(first), _filled(second))) if there.any() else there

    def _equal(self, left: ast.expr, right: ast.expr) -> Values:
        first, second = self._pair(left, right)
        there = _both_there(first, second)
        return np.logical_and(there, np.equal(first, second).astype(bool)) if there.any() else there

    def _among(self, left: ast.expr, right: ast.expr) -> Values:
        if not isinstance(right, ast.List | ast.Tuple | ast.Set):
            raise _Refused(f"found 'in {ast.unparse(right)[:60]}'; accepted: in [...], such as method in ['kd', 'at']")
        found: Values = np.zeros(len(self._frame), bool)
        for item in right.elts:
            found = np.logical_or(found, self._equal(left, item))
        return found

    def _pair(self, left: ast.expr, right: ast.expr) -> tuple[Values, Values]:
        """Evaluate both sides of a comparison and check that they are of the same kind."""
        first, second = self._value(left), self._value(right)
        if first.dtype != second.dtype and _both_there(first, second).any():
            raise _Refused(
                f"{ast.unparse(left)[:60]} is {_kind(first)} and {ast.unparse(right)[:60]} is {_kind(second)}; "
                "accepted: two of the same kind"
            )
        return first, second

    def _number(self, node: ast.expr) -> Values:
        found = self._value(node)
        if found.dtype != float:
            raise _Refused(f"{ast.unparse(node)[:60]!r} is {_kind(found)}; accepted: numbers")
        return found

    def _truth(self, node: ast.expr) -> Values:
        found = self._value(node)
        if found.dtype != bool:
            raise _Refused(f"{ast.unparse(node)[:60]!r} is not a condition; accepted: a condition {EXAMPLE}")
        return found


def _constant(value: object) -> Values:
    if isinstance(value, bool):
        return np.array(value)
    if isinstance(value, str):
        return np.array(value, dtype=object)
    if isinstance(value, int | float) and abs(value) <= sys.float_info.max:
        return np.array(value, dtype=float)
    raise _Refused(f"found {str(value)[:60]}; accepted: numbers below 1e308, text, isna() for missing values")


def _array(column: pd.Series) -> Values:
    if pd.api.types.is_bool_dtype(column.dtype) and not column.hasnans:
        return np.asarray(column, bool)
    there = column.dropna()
    if pd.api.types.is_numeric_dtype(column.dtype) or there.map(lambda value: isinstance(value, int | float)).all():
        return np.asarray(column.astype(object).where(column.notna(), np.nan), float)
    return np.asarray(column.astype(object).where(column.notna(), None).map(str, na_action="ignore"), object)


def _both_there(first: Values, second: Values) -> Values:
    """Whether both sides have a value."""
    return np.asarray(np.logical_not(np.logical_or(_missing(first), _missing(second))))


def _missing(values: Values) -> Values:
    return np.asarray(pd.isna(values))


def _filled(values: Values) -> Values:
    """Replace missing text, which cannot be ordered, by an empty string."""
    if values.dtype != object:
        return values
    return np.where(_missing(values), "", values)


def _kind(values: Values) -> str:
    return {"b": "true or false", "f": "a number"}.get(values.dtype.kind, "text")
