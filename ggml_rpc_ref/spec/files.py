"""One row per rule of the files around the protocol: recordings, captures, hex text, vectors. Ids are permanent, as in `rules`.

They bind files, not peers: if a capture lost a packet, that is not the server's fault. SPEC.md's chapter "Files around the
protocol" describes the formats; damage is reported with the id of the rule, the field and the offset.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileRule:
    """What a file must be.

    Attributes:
        id: kind of file and words, e.g. "recording.direction"; permanent.
        sentence: the rule.
    """

    id: str
    sentence: str


_ROWS = (
    FileRule("input.bytes", "There is at least one byte to decode."),
    FileRule("input.gzip", "A file that begins as gzip does can be unpacked to its end."),
    FileRule("recording.magic", "A recording's first line is `ggml-rpc recording 1`."),
    FileRule(
        "recording.header",
        "A recording's second line, of at most 65,536 bytes, is JSON: schema_version 1, protocol, endpoint, started, tool.",
    ),
    FileRule("recording.chunk-head", "A chunk begins with 21 bytes: time, direction, connection, length."),
    FileRule("recording.direction", "A chunk's direction is 0, 1, 2 or 3."),
    FileRule(
        "recording.left-out",
        "A chunk that stands for data left out has 16 bytes, how many they were and their hash, and stands for a whole data part.",
    ),
    FileRule("recording.chunk-whole", "A chunk has as many bytes as its length says."),
    FileRule(
        "recording.message-whole", "A recording ends where a message ends, unless it says that a side ended the connection there."
    ),
    FileRule("capture.format", "A capture is a pcap or pcapng file, and each packet can be taken apart."),
    FileRule("capture.block", "A block of a pcapng file has at least 12 bytes."),
    FileRule("capture.packet-whole", "A capture ends where a packet or block ends."),
    FileRule("capture.stream-whole", "A capture holds every byte of the TCP streams, up to where each ends."),
    FileRule("capture.conversation", "A capture holds a TCP connection that begins with HELLO, or one of the port asked for."),
    FileRule("hex.digit", "Hex text is hexadecimal digits, white space, colons, commas, and comments from # to the line's end."),
    FileRule("hex.pair", "Each byte of hex text has two digits."),
    FileRule("vector.json", "A vector file is one JSON document in UTF-8."),
    FileRule("vector.schema", "A vector file follows the JSON Schema of its kind, in vectors/schema/."),
)

FILE_RULES: dict[str, FileRule] = {rule.id: rule for rule in _ROWS}
"""Rule id to its row."""

assert len(FILE_RULES) == len(_ROWS), "two rules have the same id"
