"""A case of the malformed vectors: its rule, reason, outcome and conversation, and what the genuine server was seen to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from vectors.tools.malformed.protocol import DEVICE_COUNT, SILENT, Step, alive, refusal, say

CVE: Final = "https://www.cve.org/CVERecord?id=CVE-"
ISSUE: Final = "https://github.com/ggml-org/llama.cpp/issues/"
PULL: Final = "https://github.com/ggml-org/llama.cpp/pull/"

RECORD: Final[dict[str, tuple[str, ...]]] = {
    "SEC-01": (f"{CVE}2024-42479",),
    "SEC-02": (f"{CVE}2024-42478",),
    "SEC-03": (f"{CVE}2024-42477",),
    "SEC-04": (f"{CVE}2026-34159", f"{PULL}20908"),
    "SEC-05": (f"{CVE}2026-78147", f"{ISSUE}25289"),
    "SEC-06": (f"{CVE}2026-78148", f"{ISSUE}25299", f"{PULL}25670"),
    "SEC-07": (f"{CVE}2026-86317", f"{ISSUE}25288"),
    "SEC-08": (f"{ISSUE}13067", f"{PULL}13069"),
    "SEC-09": (f"{PULL}20712",),
    "SEC-10": ("GHSA-2phh-px2f-2qmx", f"{PULL}24292", f"{ISSUE}25703"),
    "SEC-20": ("https://github.com/ggml-org/ggml/pull/1103",),
    "SEC-21": (f"{PULL}14868",),
    "SEC-23": (f"{ISSUE}25287",),
    "SEC-24": (f"{ISSUE}25958",),
    "SEC-25": (f"{ISSUE}26825", f"{PULL}26933"),
    "SEC-26": (f"{ISSUE}26912", f"{PULL}26933"),
    "SEC-27": (f"{PULL}25542",),
    "SEC-28": (f"{ISSUE}25765",),
    "SEC-29": (f"{ISSUE}25764",),
    "SEC-30": (f"{ISSUE}25704",),
    "SEC-32": (f"{PULL}13167",),
    "SEC-33": (f"{PULL}9040",),
    "SEC-34": (f"{PULL}7411", f"{ISSUE}7407"),
    "SEC-35": (f"{PULL}13210",),
    "SEC-36": (f"{ISSUE}26680",),
    "SEC-37": (f"{ISSUE}28908", f"{PULL}28916"),
    "SEC-38": (),
    "SEC-39": (f"{ISSUE}28789",),
    "SEC-40": (f"{ISSUE}12496",),
    "SEC-42": (f"{ISSUE}7293",),
    "OBS-1": (),
    "OBS-2": (),
    "OBS-3": (),
    "OBS-4": (),
    "OBS-5": (),
    "OBS-7": (),
    "OBS-9": (),
    "OBS-10": (),
    "OBS-12": (),
    "OBS-13": (),
    "OBS-14": (),
    "FUN-01": (f"{ISSUE}21006", f"{PULL}21030"),
    "FUN-03": (f"{ISSUE}22701",),
    "FUN-05": (),
    "FUN-06": (f"{ISSUE}11047",),
    "FUN-07": (f"{PULL}17116",),
    "FUN-09": (f"{ISSUE}9799",),
    "FUN-13": (f"{PULL}12955",),
    "FUN-15": (f"{PULL}16276",),
    "FUN-16": (f"{ISSUE}24177", f"{ISSUE}24325", f"{ISSUE}26959"),
    "FUN-21": (f"{ISSUE}21184",),
    "FUN-23": (f"{ISSUE}19179",),
}
"""Id in SPEC.md's public record to the public addresses of it that are known."""

NAME: Final = re.compile(r"\$\{([^}]+)\}")


class Seen(NamedTuple):
    """What the genuine server of its version did with a case: verdicts, and how in words."""

    verdict: tuple[str, ...]
    how: str


CLOSES: Final = Seen(("PASS",), "closes the connection")
ANSWERS: Final = Seen(("PASS",), "as expected")


class Case(NamedTuple):
    """A case as the file has it."""

    id: str
    reason: str
    outcome: str
    references: tuple[str, ...]
    flags: tuple[str, ...]
    seen: Seen
    steps: Sequence[Step]

    @property
    def json(self) -> dict[str, Any]:
        """The case in the file's order of keys."""
        cited = dict.fromkeys(link for id in self.references for link in (id, *RECORD[id]))
        names = dict.fromkeys(NAME.findall(str(self.steps)))
        return {
            "id": self.id,
            "rule": self.id.split("/")[0],
            "reason": self.reason,
            "outcome": self.outcome,
            "references": list(cited),
            "flags": list(self.flags),
            "observed": {"verdict": list(self.seen.verdict), "how": self.seen.how},
            "bindings": {name: {"by": "server"} for name in names},
            "steps": list(self.steps),
        }


def refused(
    id: str, reason: str, references: str, flags: str, steps: Sequence[Step], seen: Seen = CLOSES, sentinel: bool = True
) -> Case:
    """Return a case whose last step is refused; where that has no reply, DEVICE_COUNT is sent behind it, to show an acceptance."""
    *_, last = steps
    on = last["connection"]
    behind = [say(DEVICE_COUNT, on=on)] if sentinel and last.get("command") in SILENT else []
    return Case(id, reason, "refused", tuple(references.split()), tuple(flags.split()), seen, [*steps, *behind, refusal(on)])


def accepted(id: str, reason: str, references: str, flags: str, steps: Sequence[Step], seen: Seen = ANSWERS) -> Case:
    """Return a case that is accepted; DEVICE_COUNT at its end shows that the conversation is still in step."""
    on = next(step["connection"] for step in reversed(steps) if "close" not in step)
    return Case(id, reason, "accepted", tuple(references.split()), tuple(flags.split()), seen, [*steps, *alive(on)])


def answered_no(id: str, reason: str, references: str, flags: str, steps: Sequence[Step], seen: Seen = ANSWERS) -> Case:
    """Return a case that is answered with a no, after which the connection goes on."""
    return accepted(id, reason, references, flags, steps, seen)._replace(outcome="answered-no")
