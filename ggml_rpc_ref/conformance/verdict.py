"""The verdicts of cases, and the two exceptions with which a case reports one.

A case that returns has passed; one that raises `Broken` has found the rule broken; one that raises `NotJudged` could not tell.
"""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """The outcome of a case."""

    PASS = "PASS"
    """The server follows the rule."""
    FAIL = "FAIL"
    """The server answered, accepted or closed contrary to the rule."""
    UNSUPPORTED = "UNSUPPORTED"
    """The server lacks what the case needs (a second device, a second client at a time, a cache); not a fault."""
    SKIP = "SKIP"
    """Not judged: not permitted, not observable from here, or the server is gone."""
    CRASH = "CRASH"
    """After the case the server no longer accepted connections."""
    HANG = "HANG"
    """Before the deadline the server neither answered nor closed the connection."""
    DESYNC = "DESYNC"
    """A reply has the wrong length, is missing, or is one too many: replies no longer match requests."""
    ERROR = "ERROR"
    """A defect of this tool."""


NO_FAULT = frozenset({Verdict.PASS, Verdict.UNSUPPORTED, Verdict.SKIP})
"""Verdicts that find no fault with the server."""

SEVERITY = tuple(Verdict[name] for name in ["PASS", "UNSUPPORTED", "SKIP", "FAIL", "DESYNC", "HANG", "CRASH", "ERROR"])
"""The verdicts from the best to the worst."""


class Broken(Exception):  # noqa: N818  (it is the server that is broken)
    """The server breaks a rule.

    Args:
        expected: what should have happened, as half a sentence.
        actual: what happened.
        rule: id of the broken rule; "" for the one that the case judges. It is another one if the case came upon that on its way,
            for instance by a reply of the wrong length.
        verdict: FAIL, HANG or DESYNC.
        refused: whether the server ended the connection where a reply was due, as it does with what it does not take.
    """

    def __init__(
        self, expected: str, actual: str, rule: str = "", verdict: Verdict = Verdict.FAIL, *, refused: bool = False
    ) -> None:
        self.expected, self.actual, self.rule, self.verdict, self.refused = expected, actual, rule, verdict, refused
        super().__init__(f"expected {expected}; {actual}")


class NotJudged(Exception):  # noqa: N818  (not an error)
    """A case can't be judged on this server.

    Args:
        reason: why, as a sentence without a full stop.
        verdict: UNSUPPORTED where the server lacks something, SKIP where the tool does.
        command: the command that the case needs and that does not work, where that is the reason.
    """

    def __init__(self, reason: str, verdict: Verdict = Verdict.UNSUPPORTED, command: str = "") -> None:
        self.reason, self.verdict, self.command = reason, verdict, command
        super().__init__(reason)


def require(condition: bool, expected: str, actual: object) -> None:
    """Raise Broken unless a condition holds."""
    if not condition:
        raise Broken(expected, f"got {actual}")
