"""Arithmetic with Python's operators, as numpy writes it: ``x @ w.T + b``.

An operator makes a node that belongs to no graph. It is computed when it is first read (`numpy`, `np.asarray`), with whatever it
needs, and is data from then on; used in a graph before that, it becomes one of its nodes.
"""

from __future__ import annotations

import numbers
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from typing import Self

Number = int | float | np.number[Any]


class Operators(ABC):
    """The operators of a tensor, in terms of ops of ggml."""

    __slots__ = ()
    __array_ufunc__ = None
    """numpy's own operators leave an expression with one of these to the methods here."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The dimensions in numpy's order."""

    @abstractmethod
    def _apply(self, op: str, src: Sequence[Any], params: dict[str, Any] | None = None, ndim: int | None = None) -> Self:
        """Return a node that belongs to no graph.

        Args:
            op: its name.
            src: tensors, arrays and numbers.
            params: op_params by name.
            ndim: how many axes it shows. (default: as its sources)
        """

    @abstractmethod
    def _is_scalable(self) -> bool:
        """Whether SCALE takes this tensor: F32 without gaps."""

    @abstractmethod
    def _is_smaller(self, other: Any) -> bool:
        """Whether this tensor is to be repeated to the shape of the other operand."""

    @abstractmethod
    def _transposed(self) -> Self:
        """Return the last two axes exchanged; a matrix that is itself a transposed view as the matrix behind it."""

    def __neg__(self) -> Self:
        return self._apply("UNARY", [self], {"kind": "NEG"})

    def __pos__(self) -> Self:
        return self

    def __add__(self, other: Any) -> Self:
        if not _is_operand(other):
            return NotImplemented
        if _is_number(other) and self._is_scalable():
            return self._apply("SCALE", [self], {"scale": 1.0, "bias": other})
        return self._commutative("ADD", other)

    def __radd__(self, other: Any) -> Self:
        return self.__add__(other)

    def __sub__(self, other: Any) -> Self:
        if not _is_operand(other):
            return NotImplemented
        if _is_number(other):
            return self.__add__(-other)
        if self._is_smaller(other):
            # ggml repeats only the second source (ggml_can_repeat(b, a) in ggml.c), so a - b becomes -b + a
            return self._apply("ADD", [self._apply("UNARY", [other], {"kind": "NEG"}), self])
        return self._apply("SUB", [self, other])

    def __rsub__(self, other: Any) -> Self:
        return (-self).__add__(other)

    def __mul__(self, other: Any) -> Self:
        if not _is_operand(other):
            return NotImplemented
        if _is_number(other) and self._is_scalable():
            return self._apply("SCALE", [self], {"scale": other})
        return self._commutative("MUL", other)

    def __rmul__(self, other: Any) -> Self:
        return self.__mul__(other)

    def __truediv__(self, other: Any) -> Self:
        if not _is_operand(other):
            return NotImplemented
        return self._apply("DIV", [self, other])

    def __matmul__(self, other: Any) -> Self:
        """``self @ other``: MUL_MAT multiplies by the rows of its first source, so the right side is transposed first."""
        if not _is_operand(other) or _is_number(other):
            return NotImplemented
        return self._product(self, other if isinstance(other, type(self)) else self._leaf(other))

    def __rmatmul__(self, other: Any) -> Self:
        if not _is_operand(other) or _is_number(other):
            return NotImplemented
        return self._product(self._leaf(other), self)

    def _product(self, left: Self, right: Self) -> Self:
        if len(right.shape) < 2:  # a vector: no axis of its own in the result
            return self._apply("MUL_MAT", [left, right], ndim=max(0, len(left.shape) - 1))
        return self._apply("MUL_MAT", [right._transposed(), left], ndim=len(left.shape) if len(left.shape) < 2 else None)

    @abstractmethod
    def _leaf(self, values: Any) -> Self:
        """Return a tensor that holds an array."""

    def _commutative(self, op: str, other: Any) -> Self:
        return self._apply(op, [other, self] if self._is_smaller(other) else [self, other])


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real | np.number) and not isinstance(value, bool)


def _is_operand(value: Any) -> bool:
    return _is_number(value) or isinstance(value, Operators | list | tuple) or hasattr(value, "__array__")
