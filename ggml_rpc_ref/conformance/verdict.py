"""What a case may end with, and the two exceptions by which it says so.

A case that returns has passed; one that raises `Broken` has found the rule broken; one that raises `NotJudged` could not tell.
"""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """What became of a case."""

    PASS = "PASS"
    """The rule holds here."""
    FAIL = "FAIL"
    """The server answered, accepted or closed where the rule says otherwise."""
    UNSUPPORTED = "UNSUPPORTED"
    """The server lacks what the case needs (a second device, a second client at a time, a cache); no fault."""
    SKIP = "SKIP"
    """Not judged: the tool was not allowed to, can't see it from where it stands, or the server is gone."""
    CRASH = "CRASH"
    """After the case the server accepted no connection any more."""
    HANG = "HANG"
    """Neither an answer nor an end of the connection came before the deadline."""
    DESYNC = "DESYNC"
    """A reply of the wrong length, one too many, or none where the next request's came: the stream is out of step."""
    ERROR = "ERROR"
    """The tool's own fault."""


NO_FAULT = frozenset({Verdict.PASS, Verdict.UNSUPPORTED, Verdict.SKIP})
"""Verdicts that say nothing against the server."""


class Broken(Exception):  # noqa: N818  (it is the server that is broken)
    """A rule does not hold.

    Args:
        expected: what should have happened, as half a sentence.
        actual: what happened.
        rule: id of the rule that is broken; "" for the one that the case judges. Another one where the case stumbled on its way,
            over a reply of the wrong length for instance.
        verdict: FAIL, HANG or DESYNC.
    """

    def __init__(self, expected: str, actual: str, rule: str = "", verdict: Verdict = Verdict.FAIL) -> None:
        self.expected, self.actual, self.rule, self.verdict = expected, actual, rule, verdict
        super().__init__(f"expected {expected}; {actual}")


class NotJudged(Exception):  # noqa: N818  (no error)
    """A case can't be judged on this server.

    Args:
        reason: why, as a sentence without its full stop.
        verdict: UNSUPPORTED where the server lacks something, SKIP where the tool does.
    """

    def __init__(self, reason: str, verdict: Verdict = Verdict.UNSUPPORTED) -> None:
        self.reason, self.verdict = reason, verdict
        super().__init__(reason)


def require(condition: bool, expected: str, actual: object) -> None:
    """Raise Broken unless a condition holds."""
    if not condition:
        raise Broken(expected, f"got {actual}")
