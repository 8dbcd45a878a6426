"""Make a session vector of a recording: the same conversation with names in place of pointers, so that it can be played.

    session = make(Path("tiny.recording"), Labels(id="tiny", about="A product of two matrices."))
    print(session.text)

With the recorded values in place of the names, the steps are the recording's bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.files.conversation import AtLeast, Exactly, Near, Omitted, Script, Step, step_as_json
from ggml_rpc_ref.golden.canonical import canonical
from ggml_rpc_ref.golden.symboliser import NMSE, Symboliser
from ggml_rpc_ref.golden.timeline import read_timeline
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.versions import DEFAULT, Version

SUFFIX: Final = ".recording"
"""The suffix of recordings."""
WORDS: Final = re.compile("[a-z0-9-]+")
"""The form of ids and flags."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What a recording does not say about itself.

    Attributes:
        id: permanent; "": the file's name.
        about: what the conversation shows.
        client: program and library.
        server: program, library and options; "": the endpoint that was recorded.
        cpu: the server's processor.
        command: what records it again.
        flags: flags beside those that follow from the steps.
        nmse: limit for computed numbers.
    """

    id: str = ""
    about: str = ""
    client: str = "not told"
    server: str = ""
    cpu: str = "not told"
    command: str = "not told"
    flags: tuple[str, ...] = ()
    nmse: float = NMSE


@dataclass(frozen=True, slots=True)
class Session:
    """A session vector.

    Attributes:
        content: its JSON, as vectors/schema/sessions.json describes it.
        faults: why it is not the whole recording; empty if it is.
        notes: what a player should know, one sentence each.
    """

    content: dict[str, Any]
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The JSON as it is written."""
        return canonical("sessions", self.content)


def make(path: Path, labels: Labels) -> Session:
    """Return the session vector of a recording; of a damaged one up to the damage.

    Raises:
        Damaged: for a file that is not a recording.
        Misuse: for one that can't be read, holds no message, or those of several protocol versions, and for labels that can't be.
    """
    for word in (labels.id, *labels.flags):
        if word and not WORDS.fullmatch(word):
            raise Misuse(f"{word!r}: ids and flags are made of a-z, 0-9 and -")
    timeline = read_timeline(path)
    symboliser = Symboliser(timeline, labels.nmse)
    steps = tuple(symboliser.steps())
    if not steps and not timeline.faults:
        raise Misuse(f"{path} holds no message")
    id = labels.id or re.sub("[^a-z0-9]+", "-", path.stem.lower()).strip("-") or "session"
    script = Script(id, labels.about or f"Recorded by {timeline.header.tool}.", steps, symboliser.bindings)
    script = replace(script, flags=tuple(sorted({*flags_of(script), *labels.flags})))
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    provenance = {
        "client": labels.client,
        "server": labels.server or timeline.header.endpoint,
        "cpu": labels.cpu,
        "recorded": timeline.header.started,
        "command": labels.command,
        "recording": f"{id}{SUFFIX}",
        "sha256": sha256,
    }
    return Session(as_json(script, provenance, timeline.version), tuple(timeline.faults), tuple(symboliser.notes))


def as_json(script: Script, provenance: dict[str, str], version: Version = DEFAULT) -> dict[str, Any]:
    """Return a script as vectors/schema/sessions.json describes it."""
    bindings = {
        name: {"by": binding.by} | ({} if binding.value is None else {"value": f"{binding.value:#x}"})
        for name, binding in script.bindings.items()
    }
    return {
        "schema_version": 1,
        "id": script.id,
        "protocol": str(version),
        "about": script.about,
        "flags": list(script.flags),
        "provenance": provenance,
        "bindings": bindings,
        "steps": [step_as_json(step) for step in script.steps],
    }


def flags_of(script: Script) -> Iterator[str]:
    """Yield the flags that follow from a script's steps; vectors/flags.json says what they mean."""
    sent = [step for step in script.steps if step.act == "send"]
    pieces = [piece for step in script.steps for piece in step.pieces]
    if any(isinstance(piece, Near) for piece in pieces):
        yield "computed-values"
    if any(isinstance(piece, Omitted) for step in sent for piece in step.pieces):
        yield "needs-data"
    if any(step.command == "SET_TENSOR_HASH" and step.act == "receive" and step.pieces[-1] == HIT for step in script.steps):
        yield "needs-cache"
    if len({step.connection for step in script.steps}) > 1:
        yield "several-connections"
    if are_concurrent(script.steps):
        yield "concurrent-connections"
    if any(isinstance(piece, AtLeast) and piece.width == 4 and piece.least > 1 for piece in pieces):
        yield "two-devices"


def are_concurrent(steps: Iterable[Step]) -> bool:
    """Whether two connections are open at the same time."""
    open_now: set[int] = set()
    for step in steps:
        open_now.add(step.connection)
        if len(open_now) > 1:
            return True
        if step.act in ("close", "refused"):
            open_now.remove(step.connection)
    return False


HIT: Final = Exactly(codec.REPLY_HEAD.pack(1) + b"\1")
"""The whole reply to SET_TENSOR_HASH for data that the server has."""


# ------------------------------------------------------------------------------------------------------------ the two forms


def faults(path: Path, content: Any) -> Iterator[str]:
    """Yield what is wrong between a session and the recording beside it, a sentence each; one laid out by hand has none.

    Args:
        path: of the session's JSON.
        content: its JSON, which follows its schema.
    """
    if content["id"] != path.stem:
        yield f"its id {content['id']!r} is not the name of the file"
    provenance = content["provenance"]
    if "recording" not in provenance:
        if path.parent.parent.name.startswith("upstream-"):
            yield "it was laid out by hand and lies among the recordings"
        return
    recording = path.with_name(provenance["recording"])
    if not recording.is_file():
        yield f"the recording {recording.name} is not there"
        return
    near = (piece["nmse"] for step in content["steps"] for piece in step.get("receive", ()) if "nmse" in piece)
    texts = {key: provenance[key] for key in ("client", "server", "cpu", "command")}
    labels = Labels(content["id"], content["about"], **texts, flags=tuple(content["flags"]), nmse=next(near, NMSE))
    try:
        made = make(recording, labels)
    except Misuse as error:
        yield str(error)
        return
    yield from made.faults
    for key, value in made.content.items():
        if content[key] != value:
            yield f"{key} is not what `vectors record` makes of {recording.name}{_first_difference(content[key], value)}"


def _first_difference(found: Any, wanted: Any) -> str:
    """Say where two lists, or two objects, differ first."""
    if isinstance(wanted, list) and isinstance(found, list):
        found, wanted = dict(enumerate(found, 1)), dict(enumerate(wanted, 1))
    if not isinstance(wanted, dict):
        return ""
    return f": {next(key for key in (*wanted, *found) if found.get(key) != wanted.get(key))}"
