"""The errors of this library: whose fault it is decides which one is raised.

Nothing else is public: any other exception that leaves a public function is a defect of ours.
"""


class Violation(Exception):  # noqa: N818  (the field's word: a peer violates a rule)
    """A peer's bytes break a rule of the specification.

    The only exception that a peer's bytes can cause. After it the connection is over.

    Args:
        rule: id of the broken rule, a key of `ggml_rpc_ref.spec.rules.RULES`, e.g. ``"tensor.in-buffer"``.
        field: the field that breaks it, with its path where it lies in a record, e.g. ``"srcs[3].type"``.
        value: the value found there (an int, or a short text).
        detail: what would have been right, as half a sentence.
        offset: byte offset in the message's payload where the decoder can name one.
    """

    def __init__(self, rule: str, field: str, value: object, detail: str = "", offset: int | None = None) -> None:
        self.rule, self.field, self.value, self.detail, self.offset = rule, field, value, detail, offset
        where = "" if offset is None else f" at offset {offset}"
        super().__init__(f"{rule}: {field} is {value}{where}" + (f"; {detail}" if detail else ""))


class Misuse(Exception):  # noqa: N818
    """The caller asked for something that can't be: one sentence that says what was wrong, where, and what to do."""


class Damaged(Misuse):
    """A file that is not, or no longer, what it is taken for.

    Args:
        path: the file.
        offset: where in it; None where no byte can be named.
        field: what lies there, e.g. "direction".
        problem: half a sentence that says what is wrong with it.
        rule: id of the rule that it breaks, a key of `ggml_rpc_ref.spec.files.FILE_RULES`.
    """

    def __init__(self, path: object, offset: int | None, field: str, problem: str, rule: str) -> None:
        self.offset, self.field, self.problem, self.rule = offset, field, problem, rule
        where = "" if offset is None else f" at offset {offset}"
        super().__init__(f"{path}{where} is damaged: {field} {problem} [{rule}]")


class Unsupported(Exception):  # noqa: N818
    """A fact of the protocol that this build does not handle (an unknown version, an op without an oracle)."""
