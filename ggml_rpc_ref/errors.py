"""The errors of this library, one for each party that can be at fault.

Any other exception that leaves a public function is a defect of ours.
"""

NOT_OF_ITS_FORM = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError)
"""What comes of reading somebody else's JSON as if it were of a form: OverflowError of a whole number that is written 1e999,
RecursionError of brackets nested by the thousand. Readers make one of the errors below of it."""


class Violation(Exception):  # noqa: N818  (a peer violates a rule; "Error" would blame us)
    """A peer's bytes break a rule of the specification.

    It is the only exception that a peer's bytes can cause; after it the connection is closed.

    Args:
        rule: id of the broken rule, a key of `ggml_rpc_ref.spec.rules.RULES`, e.g. ``"tensor.in-buffer"``.
        field: the field that breaks it, with its path in the message, e.g. ``"srcs[3].type"``.
        value: the value found there (an int or a short text).
        detail: what would have been right, as half a sentence.
        offset: byte offset in the message's payload, if the decoder knows it.
    """

    def __init__(self, rule: str, field: str, value: object, detail: str = "", offset: int | None = None) -> None:
        self.rule, self.field, self.value, self.detail, self.offset = rule, field, value, detail, offset
        where = "" if offset is None else f" at offset {offset}"
        super().__init__(f"{rule}: {field} is {value}{where}" + (f"; {detail}" if detail else ""))


class Misuse(Exception):  # noqa: N818
    """The caller asked for something that can't be done; the message says in one sentence what is wrong, where, and what to do."""


class Damaged(Misuse):
    """A file that is not, or is no longer, in its format.

    Args:
        path: the file.
        offset: byte offset of the problem; None if it has none.
        field: the field there, e.g. "direction".
        problem: what is wrong with it, as half a sentence.
        rule: id of the rule that it breaks, a key of `ggml_rpc_ref.spec.files.FILE_RULES`.
    """

    def __init__(self, path: object, offset: int | None, field: str, problem: str, rule: str) -> None:
        self.offset, self.field, self.problem, self.rule = offset, field, problem, rule
        where = "" if offset is None else f" at offset {offset}"
        super().__init__(f"{path}{where} is damaged: {field} {problem} [{rule}]")


class Unsupported(Exception):  # noqa: N818
    """A fact of the protocol that this build does not handle (an unknown version, an op without an oracle)."""
