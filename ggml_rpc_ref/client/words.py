"""What a caller writes: names, types, sizes and dimensions, checked before anything of it is sent.

A server answers a mistake by closing the connection, and with it goes everything that was on it. What can be seen here to be
wrong is therefore a Misuse that names the value, while the connection lives on.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.errors import Misuse, Unsupported
from ggml_rpc_ref.spec.dtypes import BY_NAME, DType, type_count
from ggml_rpc_ref.spec.versions import Version
from ggml_rpc_ref.tensor import NUMPY_TYPES, Quad, extent

DTypeLike = str | DType | npt.DTypeLike
"""A ggml type: its name in any case ("F16", "q4_0"), its row, or the numpy dtype of the same elements (np.float16)."""
NUMPY_NAMES = {np.dtype(layout): name for name, layout in NUMPY_TYPES.items() if name != "BF16"}
"""numpy dtype to the ggml type of the same elements."""
U32, U64 = 2**32 - 1, 2**64 - 1


def whole(value: object, what: str, most: int = U64) -> int:
    """Return a value as an int from 0 to `most`.

    Raises:
        Misuse: for any other, a fraction or a text for instance.
    """
    try:
        number = int(operator.index(value))  # type: ignore[arg-type]  # int: True is its own index
    except TypeError:
        raise Misuse(f"{what} = {value!r}: it must be a whole number") from None
    if not 0 <= number <= most:
        raise Misuse(f"{what} = {number}: it must be from 0 to {most}")
    return number


def whole_numbers(values: object, what: str, most: int = U64) -> tuple[int, ...]:
    """Return a sequence of ints from 0 to `most`.

    Raises:
        Misuse: for anything else.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise Misuse(f"{what} = {values!r}: it must be a sequence of whole numbers")
    listed = tuple(values)
    return tuple(whole(value, f"{what}[{index}] of {listed}", most) for index, value in enumerate(listed))


def quad(ne: Sequence[int]) -> Quad:
    """Pad dimensions with 1 to four.

    Raises:
        Misuse: for more than four dimensions, or one that the wire can't hold.
    """
    dims = whole_numbers(ne, "ne", U32)
    if len(dims) > 4:
        raise Misuse(f"ne = {dims}: a tensor has up to four dimensions")
    a, b, c, d = (*dims, 1, 1, 1, 1)[:4]
    return (a, b, c, d)


def dtype_row(dtype: object, version: Version) -> DType:
    """Return the row of a ggml type. Where a name is both ggml's and numpy's ("i8"), ggml's counts.

    Raises:
        Misuse: where there is none.
        Unsupported: where the server's version does not have it.
    """
    row = dtype if isinstance(dtype, DType) else _find(dtype)
    if row.number >= type_count(version):
        raise Unsupported(f"protocol {version} does not have the type {row.name}")
    return row


def _find(dtype: object) -> DType:
    if isinstance(dtype, str) and dtype.upper() in BY_NAME:
        return BY_NAME[dtype.upper()]
    try:
        return BY_NAME[NUMPY_NAMES[np.dtype(dtype)]]  # type: ignore[call-overload]
    except (TypeError, ValueError, KeyError, SyntaxError):  # SyntaxError: numpy parses "f4, (" as a list of fields
        near = "" if not isinstance(dtype, str) else suggestion(dtype.upper(), BY_NAME)
        raise Misuse(f"no ggml type is called {dtype!r}{near}; there are {', '.join(BY_NAME)}") from None


def suggestion(name: str, names: Iterable[str]) -> str:
    """Return "; did you mean …?" where one of the names is near, else nothing."""
    near = difflib.get_close_matches(name, list(names), 1)
    return f", did you mean {near[0]}?" if near else ""


def check_layout(dtype: DType, ne: Quad, nb: Quad, shape: Sequence[int]) -> None:
    """Refuse rows that are not whole blocks, and strides and sizes that the wire can't hold.

    Args:
        dtype: the type.
        ne: the dimensions.
        nb: the strides. Of a dimension of length 1 no stride is ever taken, so there any will do.
        shape: the dimensions as the caller wrote them.

    Raises:
        Misuse.
    """
    if ne[0] % dtype.block:
        raise Misuse(f"{tuple(shape)}: rows of {ne[0]} elements are not whole blocks of {dtype.name}, which hold {dtype.block}")
    too_far = [stride for length, stride in zip(ne, nb, strict=True) if length > 1 and stride > U32]
    if too_far and 0 not in ne:
        raise Misuse(f"{tuple(shape)} in {dtype.name}: a stride of {too_far[0]} bytes does not fit into the wire's 32 bits")
    if extent(dtype, ne, nb) > U64:
        raise Misuse(f"{tuple(shape)} in {dtype.name}: {extent(dtype, ne, nb)} bytes are more than 64 bits can count")


def encoded_name(name: object) -> bytes:
    """Return a tensor's name in UTF-8.

    Raises:
        Misuse: where it is not a text that has one.
    """
    if not isinstance(name, str):
        raise Misuse(f"name = {name!r}: it must be a text")
    try:
        return name.encode()
    except UnicodeEncodeError:
        raise Misuse(f"name = {name!r}: it has no UTF-8 form") from None


def as_array(values: Any, what: str) -> npt.NDArray[Any]:
    """Return an array of numbers.

    Raises:
        Misuse: where the values are not numbers, or not as many in every row.
    """
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise Misuse(f"{what} can't be made an array: {error}") from None
    if array.dtype.kind not in "biuf":
        raise Misuse(f"no ggml type holds {array.dtype}: {what} must be an array of numbers")
    if array.ndim > 4:
        raise Misuse(f"{what} of shape {array.shape}: a tensor has up to four dimensions")
    return array
