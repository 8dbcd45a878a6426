"""What `decode` makes of captures other than whole ones of plain Ethernet: tunnels, links, byte orders, ports; laid out by hand."""

from __future__ import annotations

import gzip
import importlib.util
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from types import SimpleNamespace

import pytest

from ggml_rpc_ref import decode
from ggml_rpc_ref.commands import decode as command
from ggml_rpc_ref.decode import Decoded, Options, scratch
from ggml_rpc_ref.decode.pcap import Half, Segment
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.protocol.connection import Role

needs_scapy = pytest.mark.skipif(importlib.util.find_spec("scapy") is None, reason="captures need scapy: pip install -e '.[test]'")

End = tuple[tuple[int, int, int, int], int]
ONE, OTHER, SERVER = ((10, 0, 0, 1), 40000), ((10, 0, 0, 9), 40000), ((10, 0, 0, 2), 50052)
TALK = (
    ("c", struct.pack("<BQ", 14, 0)), ("s", struct.pack("<Q3B", 3, 3, 6, 1)),
    ("c", struct.pack("<BQ", 15, 0)), ("s", struct.pack("<QI", 4, 1)),
    ("c", struct.pack("<BQI", 11, 4, 0)), ("s", struct.pack("<QQQ", 16, 1, 2)),
)  # fmt: skip
SAID = ["HELLO", "HELLO reply", "DEVICE_COUNT", "DEVICE_COUNT reply", "GET_DEVICE_MEMORY", "GET_DEVICE_MEMORY reply"]


def tcp(source: End, to: End, seq: int, flags: int, data: bytes = b"") -> bytes:
    return struct.pack(">HHIIBBHHH", source[1], to[1], seq, 0, 0x50, flags, 9000, 0, 0) + data


def ipv4(source: End, to: End, body: bytes, proto: int = 6, fragment: int = 0, id: int = 1) -> bytes:
    head = (0x45, 0, 20 + len(body), id, fragment, 64, proto, 0, bytes(source[0]), bytes(to[0]))
    return struct.pack(">BBHHHBBH4s4s", *head) + body


def ipv6(source: End, to: End, body: bytes, proto: int = 6) -> bytes:
    addresses = b"".join(bytes(12) + bytes(end[0]) for end in (source, to))
    return struct.pack(">IHBB", 0x60000000, len(body), proto, 64) + addresses + body


def udp(port: int, body: bytes) -> bytes:
    return struct.pack(">HHHH", 9999, port, 8 + len(body), 0) + body


def ethernet(body: bytes, kind: int = 0x0800) -> bytes:
    return b"\2\0\0\0\0\1\2\0\0\0\0\2" + kind.to_bytes(2, "big") + body


def packets(client: End, server: End = SERVER, *, syn: bool = True, ip: Callable[..., bytes] = ipv4) -> Iterator[tuple[str, bytes]]:
    """Sender and IP packet of each segment of one conversation of six messages."""
    ends, seq = {"c": (client, server), "s": (server, client)}, {"c": 1000, "s": 9000}
    if syn:
        yield "c", ip(client, server, tcp(client, server, 999, 0x02))
        yield "s", ip(server, client, tcp(server, client, 8999, 0x12))
    for who, data in TALK:
        yield who, ip(*ends[who], tcp(*ends[who], seq[who], 0x18, data))
        seq[who] += len(data)


def pcap(frames: list[bytes], link: int = 1, order: str = "<", magic: int = 0xA1B2C3D4) -> bytes:
    rows = enumerate(frames)
    head = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    return head + b"".join(struct.pack(f"{order}IIII", 1_700_000_000, at, len(data), len(data)) + data for at, data in rows)


def pcapng(frames: list[bytes], order: str = "<") -> bytes:
    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        return struct.pack(f"{order}II", kind, 12 + len(body)) + body + struct.pack(f"{order}I", 12 + len(body))

    start = block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1)) + block(1, struct.pack(f"{order}HHI", 1, 0, 0))
    return start + b"".join(
        block(6, struct.pack(f"{order}IIIII", 0, 0, at, len(data), len(data)) + data) for at, data in enumerate(frames)
    )


def plain(client: End = ONE, server: End = SERVER, *, syn: bool = True) -> list[bytes]:
    return [ethernet(packet) for _, packet in packets(client, server, syn=syn)]


def decoded(directory: Path, data: bytes, **wanted: object) -> Decoded:
    path = directory / "input"
    path.write_bytes(data)
    return decode.decode_file(path, Options(**wanted))  # type: ignore[arg-type]


def names(found: Decoded) -> list[str]:
    return [message.name for message in found.messages]


# ------------------------------------------------------------------------------------------------------------- tunnels

GATES = ((172, 31, 0, 1), 0), ((172, 31, 0, 2), 0)
LABEL = struct.pack(">I", 77 << 12 | 64)
LAST_LABEL = struct.pack(">I", 78 << 12 | 0x140)
VXLAN = struct.pack(">II", 0x08000000, 5 << 8)
TUNNELS: dict[str, Callable[[End, End, bytes], bytes]] = {
    "none": lambda a, b, packet: ethernet(packet),
    "IP in IP": lambda a, b, packet: ethernet(ipv4(a, b, packet, 4)),
    "IP in IP in IP": lambda a, b, packet: ethernet(ipv4(b, a, ipv4(a, b, packet, 4), 4)),
    "IP in IPv6": lambda a, b, packet: ethernet(ipv6(a, b, packet, 4), 0x86DD),
    "GRE": lambda a, b, packet: ethernet(ipv4(a, b, b"\0\0\x08\0" + packet, 47)),
    "GRE with a key": lambda a, b, packet: ethernet(ipv4(a, b, b"\x20\0\x08\0\0\0\0\x07" + packet, 47)),
    "GRE of Ethernet": lambda a, b, packet: ethernet(ipv4(a, b, b"\0\0\x65\x58" + ethernet(packet), 47)),
    "VXLAN": lambda a, b, packet: ethernet(ipv4(a, b, udp(4789, VXLAN + ethernet(packet)), 17)),
    "VXLAN on Linux's port": lambda a, b, packet: ethernet(ipv4(a, b, udp(8472, VXLAN + ethernet(packet)), 17)),
    "GENEVE": lambda a, b, packet: ethernet(ipv4(a, b, udp(6081, b"\0\0\x65\x58\0\0\x05\0" + ethernet(packet)), 17)),
    "MPLS": lambda a, b, packet: ethernet(LAST_LABEL + packet, 0x8847),
    "MPLS of two labels": lambda a, b, packet: ethernet(LABEL + LAST_LABEL + packet, 0x8847),
    "MPLS in GRE": lambda a, b, packet: ethernet(ipv4(a, b, b"\0\0\x88\x47" + LAST_LABEL + packet, 47)),
    "VLAN": lambda a, b, packet: ethernet(b"\0\x07\x08\0" + packet, 0x8100),
    "VLAN in VLAN": lambda a, b, packet: ethernet(b"\0\x07\x81\0\0\x08\x08\0" + packet, 0x88A8),
    "PPPoE": lambda a, b, packet: ethernet(b"\x11\0\0\x01" + struct.pack(">HH", len(packet) + 2, 0x21) + packet, 0x8864),
}


@needs_scapy
@pytest.mark.parametrize("name", TUNNELS)
def test_two_connections_with_one_pair_of_ports_through_one_tunnel(tmp_path: Path, name: str) -> None:
    """Clients of two pods, with the same source port: only the inner addresses tell them apart."""
    both = [row for pair in zip(packets(ONE), packets(OTHER), strict=True) for row in pair]
    found = decoded(tmp_path, pcap([TUNNELS[name](*(GATES if who == "c" else GATES[::-1]), packet) for who, packet in both]))
    assert (len(found.source.conversations), found.faults, found.source.notes) == (2, [], [])
    for number in (1, 2):
        assert sorted(message.name for message in found.messages if message.connection == number) == sorted(SAID)
    assert {conversation.label[14:22] for conversation in found.source.conversations} == {"10.0.0.1", "10.0.0.9"}


# --------------------------------------------------------------------------------------------------- links and byte orders

LINKS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "BSD loopback, little-endian": (0, lambda packet: struct.pack("<I", 2) + packet),
    "BSD loopback, big-endian": (0, lambda packet: struct.pack(">I", 2) + packet),
    "OpenBSD loopback": (108, lambda packet: struct.pack(">I", 2) + packet),
    "raw IP": (101, lambda packet: packet),
    "raw IP, by its old number": (12, lambda packet: packet),
    "raw IPv4": (228, lambda packet: packet),
    "Linux cooked": (113, lambda packet: struct.pack(">HHH8sH", 0, 1, 6, bytes(8), 0x0800) + packet),
    "Linux cooked 2": (276, lambda packet: struct.pack(">HHIHBB8s", 0x0800, 0, 2, 1, 0, 6, bytes(8)) + packet),
}


@needs_scapy
@pytest.mark.parametrize("name", LINKS)
def test_links(tmp_path: Path, name: str) -> None:
    link, framed = LINKS[name]
    found = decoded(tmp_path, pcap([framed(packet) for _, packet in packets(ONE)], link))
    assert (sorted(names(found)), found.faults, found.source.notes) == (sorted(SAID), [], [])


@needs_scapy
@pytest.mark.parametrize("family", [10, 24, 28, 30])
@pytest.mark.parametrize("order", "<>")
def test_ipv6_on_the_loopback_of_each_system(tmp_path: Path, family: int, order: str) -> None:
    frames = [struct.pack(f"{order}I", family) + packet for _, packet in packets(ONE, ip=ipv6)]
    assert sorted(names(decoded(tmp_path, pcap(frames, 0)))) == sorted(SAID)


FORMS: dict[str, Callable[[list[bytes]], bytes]] = {
    "pcap, little-endian": pcap,
    "pcap, big-endian": lambda frames: pcap(frames, order=">"),
    "pcap, nanoseconds": lambda frames: pcap(frames, magic=0xA1B23C4D),
    "pcap, nanoseconds, big-endian": lambda frames: pcap(frames, order=">", magic=0xA1B23C4D),
    "pcapng, little-endian": pcapng,
    "pcapng, big-endian": lambda frames: pcapng(frames, ">"),
    "pcapng, sections of both": lambda frames: pcapng(frames[:4]) + pcapng(frames[4:], ">"),
    "pcapng, sections of both, big first": lambda frames: pcapng(frames[:4], ">") + pcapng(frames[4:]),
    "gzip": lambda frames: gzip.compress(pcap(frames)),
    "gzip of two members": lambda frames: gzip.compress(pcap(frames[:4])) + gzip.compress(pcap(frames[4:])[24:]),
    "gzip of pcapng": lambda frames: gzip.compress(pcapng(frames)),
}


@needs_scapy
@pytest.mark.parametrize("name", FORMS)
def test_forms_and_byte_orders(tmp_path: Path, name: str) -> None:
    found = decoded(tmp_path, FORMS[name](plain()))
    assert (sorted(names(found)), found.faults, found.source.notes) == (sorted(SAID), [], [])
    assert found.source.kind == "pcap"
    cut = decoded(tmp_path, FORMS[name](plain())[:-3])
    assert len(cut.faults) >= 1
    assert len(names(cut)) >= 4 or "gzip" in name


# -------------------------------------------------------------------------------------------------------------- roles


@needs_scapy
@pytest.mark.parametrize("port", [None, 60000])
@pytest.mark.parametrize("client", [40000, 50052, 59999])
def test_without_syn_the_client_is_who_says_hello(tmp_path: Path, client: int, port: int | None) -> None:
    """Whatever the ports are: a server on a high one, a client on the one that servers usually have."""
    found = decoded(tmp_path, pcap(plain((ONE[0], client), (SERVER[0], 60000), syn=False)), port=port)
    assert (sorted(names(found)), found.faults, found.source.notes) == (sorted(SAID), [], [])
    assert [message.sender for message in found.messages if message.name == "HELLO"] == [Role.CLIENT]


# ------------------------------------------------------------------------------------------------------ other files

OTHER_FILES = {
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(40), "is compressed with zstd: `zstd -dc "),
    "xz": (b"\xfd7zXZ\0" + bytes(40), "is compressed with xz: `xz -dc "),
    "bzip2": (b"BZh91AY&SY" + bytes(40), "is compressed with bzip2: `bzip2 -dc "),
    "lz4": (b"\x04\x22\x4d\x18" + bytes(40), "is compressed with lz4: `lz4 -dc "),
    "modified-pcap": (struct.pack("<I", 0xA1B2CD34) + bytes(40), "is a capture with the modified pcap header of old Linux systems"),
    "modified-pcap-big-endian": (struct.pack(">I", 0xA1B2CD34) + bytes(40), "is a capture with the modified pcap header"),
    "snoop": (b"snoop\0\0\0" + bytes(40), "is a capture of Solaris's snoop"),
    "gguf": (b"GGUF" + bytes(60), "is a GGUF model"),
    "elf": (b"\x7fELF" + bytes(60), "is a program (ELF)"),
    "zip": (b"PK\3\4" + bytes(60), "is a ZIP archive"),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_a_file_that_says_what_it_is_is_not_taken_for_raw_bytes(tmp_path: Path, name: str) -> None:
    data, said = OTHER_FILES[name]
    with pytest.raises(Misuse) as caught:
        decoded(tmp_path, data)
    assert said in str(caught.value)
    assert str(tmp_path / "input") in str(caught.value)
    assert decoded(tmp_path, data, kind="raw").faults  # as it was told: bytes like any others


def test_compressed_hex_and_what_is_wrong_with_compression(tmp_path: Path) -> None:
    assert names(decoded(tmp_path, gzip.compress(b"0e 00 00 00 00  00 00 00 00"))) == ["HELLO"]
    whole = gzip.compress(b"0e 00 00 00 00  00 00 00 00")
    for harmed, said in ((whole[:-4], "breaks off"), (whole[:-8] + bytes(8), "CRC check failed"), (whole[:3], "breaks off")):
        (fault,) = decoded(tmp_path, harmed).faults
        assert (fault.rule, said in fault.problem) == ("input.gzip", True), fault
    for inner, said in ((b"GGUF" + bytes(60), "input is a GGUF model"), (gzip.compress(b"0e"), "with gzip twice")):
        with pytest.raises(Misuse, match=said):
            decoded(tmp_path, gzip.compress(inner))


# ----------------------------------------------------------------------------------------------------- pipes and devices


def test_no_more_is_unpacked_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "LARGEST", 2**20)
    with pytest.raises(Misuse, match=r"unpacks to more than 1 MiB"):
        decoded(tmp_path, gzip.compress(bytes(2**20 + 1)))
    assert not list(tmp_path.glob("ggml-rpc-ref-*"))


@pytest.mark.parametrize("file", ["/dev/zero", "pipe"])
def test_no_more_is_copied_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    monkeypatch.setattr(scratch, "LARGEST", 2**20)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if file == "pipe":
        reading, writing = os.pipe()
        feeder = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdout.buffer.write(bytes(2**21))"], stdout=writing)
        os.close(writing)
        file = f"/dev/fd/{reading}"
    with pytest.raises(Misuse, match=r"is a pipe or device with more than 1 MiB: save it to a file"):
        command.run(file, Options())
    if file != "/dev/zero":
        os.close(reading)
        feeder.wait(60)
    assert list(tmp_path.iterdir()) == []


def test_the_limit_leaves_half_of_what_the_disk_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert scratch.room() == 500
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**60))
    assert scratch.room() == scratch.LARGEST


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_no_copy_behind(tmp_path: Path, number: signal.Signals) -> None:
    line = [sys.executable, "-m", "ggml_rpc_ref", "decode", "-"]
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert process.stdin is not None
    process.stdin.write(bytes(2**20))
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(tmp_path.iterdir())
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, b"Traceback" in err) == (130, False), err
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------ what was lost

MAC_IP_TCP = 14 + 20 + 20
DATA = bytes(range(250)) * 20
UPLOAD = struct.pack("<BQ", 6, 304 + len(DATA)) + bytes(304) + DATA
DOWNLOAD = struct.pack("<BQ", 8, 312) + bytes(304) + struct.pack("<Q", len(DATA))
LONG_TALK = (*TALK[:4], ("c", UPLOAD + DOWNLOAD), ("s", struct.pack("<Q", len(DATA)) + DATA), *TALK[4:])
LONG_SAID = [*SAID[:4], "SET_TENSOR", "GET_TENSOR", "GET_TENSOR reply", *SAID[4:]]


def segments(talk: tuple[tuple[str, bytes], ...] = LONG_TALK, size: int = 1000, *, syn: bool = True) -> list[bytes]:
    """The frames of a conversation, in segments of at most so many bytes; each part of the talk begins a new one."""
    ends, seq = {"c": (ONE, SERVER), "s": (SERVER, ONE)}, {"c": 1000, "s": 9000}
    frames = [ethernet(packet) for _, packet in list(packets(ONE))[:2]] if syn else []
    for who, data in talk:
        for at in range(0, len(data), size):
            frames.append(ethernet(ipv4(*ends[who], tcp(*ends[who], seq[who], 0x18, data[at : at + size]))))
            seq[who] += len(data[at : at + size])
    return frames


def snapped(frames: list[bytes], snap: int) -> bytes:
    """A pcap file of which each packet has only its first bytes."""
    rows = [
        struct.pack("<IIII", 1_700_000_000, at, min(len(data), snap), len(data)) + data[:snap] for at, data in enumerate(frames)
    ]
    return pcap([]) + b"".join(rows)


@needs_scapy
@pytest.mark.parametrize("snap", [400, 1000])
def test_short_snap_lengths_cost_the_data_and_not_what_follows(tmp_path: Path, snap: int) -> None:
    """What each segment lacks is known, so the next message is where the size field says."""
    found = decoded(tmp_path, snapped(segments((*LONG_TALK[:4], ("c", UPLOAD), ("c", DOWNLOAD), *LONG_TALK[5:])), snap))
    assert sorted(names(found)) == sorted(LONG_SAID)
    assert {message.name for message in found.messages if message.fault} == {"SET_TENSOR", "GET_TENSOR reply"}
    assert len(found.faults) == 2
    lacks = 1000 - (snap - MAC_IP_TCP)
    for fault in found.faults:
        assert (fault.rule, fault.field) == ("capture.stream-whole", "data")
        assert f"the capture lacks the next {lacks} bytes of the TCP stream, {5 * lacks} of this message in all" in fault.problem


@needs_scapy
def test_the_shortest_snap_length_still_names_every_request(tmp_path: Path) -> None:
    """96 bytes: how long a reply must be may be lost with a request's fields, so from there on replies are told by their size."""
    found = decoded(tmp_path, snapped(segments((*LONG_TALK[:4], ("c", UPLOAD), ("c", DOWNLOAD), *LONG_TALK[5:])), 96))
    sent = [message for message in found.messages if message.sender is Role.CLIENT]
    assert [message.name for message in sent] == [name for name in LONG_SAID if "reply" not in name]
    assert [message.name for message in sent if message.fault] == ["SET_TENSOR", "GET_TENSOR"]
    assert {fault.rule for fault in found.faults} == {"capture.stream-whole"}


@needs_scapy
@pytest.mark.parametrize("lost", [*range(7, 11), *range(13, 18)])
def test_a_lost_packet_inside_data_costs_one_message(tmp_path: Path, lost: int) -> None:
    frames = segments()
    found = decoded(tmp_path, pcap(frames[:lost] + frames[lost + 1 :]))
    assert sorted(names(found)) == sorted(LONG_SAID)
    assert [message.name for message in found.messages if message.fault] == ["SET_TENSOR" if lost < 12 else "GET_TENSOR reply"]
    (fault,) = found.faults
    assert "the capture lacks the next 1000 bytes" in fault.problem or lost == 17


@needs_scapy
@pytest.mark.parametrize("snap", [MAC_IP_TCP + 1, MAC_IP_TCP + 9, MAC_IP_TCP + 12])
def test_the_end_that_the_last_packet_lacks_is_the_captures_fault(tmp_path: Path, snap: int) -> None:
    """Nothing follows that would show the gap; the IP header says how long the packet was."""
    found = decoded(tmp_path, snapped(segments(TALK[:4] + TALK[4:5])[:-1], 2000) + snapped(segments(TALK[:5])[-1:], snap)[24:])
    assert names(found)[-1] in ("GET_DEVICE_MEMORY", "DEVICE_COUNT reply")
    (fault,) = found.faults
    assert fault.rule == "capture.stream-whole"
    assert f"the capture lacks the next {13 - (snap - MAC_IP_TCP)} bytes" in fault.problem


@needs_scapy
def test_after_lost_messages_reading_goes_on_where_a_segment_begins_one(tmp_path: Path) -> None:
    """How many messages the lost packet held is not known, so later replies are told by their size."""
    frames = segments((*TALK, *TALK[2:]))
    found = decoded(tmp_path, pcap([frame for at, frame in enumerate(frames) if at != 4]))
    assert sum(name == "GET_DEVICE_MEMORY" for name in names(found)) == 2
    assert sum(name == "DEVICE_COUNT" for name in names(found)) == 1
    (fault,) = [fault for fault in found.faults if fault.rule == "capture.stream-whole"]
    assert "command is cut off: the bytes end after 0 of its 1; the capture lacks the next 9 bytes of the TCP stream" in str(fault)
    replies = [message.name for message in found.messages if message.sender is Role.SERVER]
    assert len(replies) == 5
    assert replies[0] == "HELLO reply"
    assert all("by its size" in name for name in replies[1:])


@needs_scapy
@pytest.mark.parametrize("size", [0, 4])
def test_fragments_that_have_no_place_end(tmp_path: Path, size: int) -> None:
    """More fragments follow one whose bytes don't fill units of eight: where the next one belongs is nowhere."""
    odd = ethernet(ipv4(ONE, SERVER, bytes(size), 6, 0x2000))
    found = decoded(tmp_path, pcap([odd, *plain()]))
    assert sorted(names(found)) == sorted(SAID)
    assert found.source.notes == ["1 IP packets are in fragments of which the capture lacks some"]


@needs_scapy
def test_a_lost_hello_is_not_the_clients_fault(tmp_path: Path) -> None:
    frames = segments(TALK)
    found = decoded(tmp_path, pcap([frame for at, frame in enumerate(frames) if at != 2]), port=50052)
    assert [fault.rule for fault in found.faults] == ["capture.stream-whole"]
    sent = [message.name for message in found.messages if message.sender is Role.CLIENT]
    assert sent == ["", "DEVICE_COUNT", "GET_DEVICE_MEMORY"]


def test_many_gaps_take_no_time_that_grows_with_their_square() -> None:
    """A hundred thousand lost packets; with a search of all that waits for each, this would take an hour."""
    half = Half()
    half.begin(0)
    for number in range(100_000):
        half.add(1 + 2 * number, Segment(b"x", 0, number, number))
    stream = half.finish()
    assert (stream.end, stream.lacks(0, stream.end)) == (200_000, 100_000)


def fragments(frame: bytes, id: int, size: int = 400) -> list[bytes]:
    """A frame's IP packet in fragments of so many bytes."""
    head, body = frame[14:34], frame[34:]
    cuts = range(0, len(body), size)
    return [
        ethernet(
            head[:2] + struct.pack(">HHH", 20 + len(body[at : at + size]), id, at // 8 | (0x2000 if at != cuts[-1] else 0))
            + head[8:20] + body[at : at + size]
        )
        for at in cuts
    ]  # fmt: skip


@needs_scapy
@pytest.mark.parametrize("turned", [False, True], ids=["in-order", "last-first"])
@pytest.mark.parametrize("tunnel", [False, True], ids=["plain", "through-a-tunnel"])
def test_fragments_are_joined(tmp_path: Path, turned: bool, tunnel: bool) -> None:
    frames = segments()
    if tunnel:
        frames = [ethernet(ipv4(*GATES, frame[14:], 4)) for frame in frames]
    pieces = [fragments(frame, id)[:: -1 if turned else 1] for id, frame in enumerate(frames)]
    found = decoded(tmp_path, pcap([piece for row in pieces for piece in row]))
    assert (sorted(names(found)), found.faults, found.source.notes) == (sorted(LONG_SAID), [], [])
    cut = decoded(tmp_path, pcap([piece for row in [*pieces[:9], pieces[9][:1], *pieces[10:]] for piece in row]))
    assert [fault.rule for fault in cut.faults] == ["capture.stream-whole"]
    assert cut.source.notes == ["1 IP packets are in fragments of which the capture lacks some"]


HOP_BY_HOP = bytes([44, 0, 1, 4]) + bytes(4)
"""An extension header of eight bytes, padded, that says that a fragment header (44) follows."""


def fragments_of_ipv6(frame: bytes, id: int, size: int, extended: bool) -> list[bytes]:
    """A frame's IPv6 packet in fragments of so many bytes, each behind a header for every hop if that is asked for."""
    head, body, first = frame[14:54], frame[54:], HOP_BY_HOP if extended else b""
    cuts = range(0, len(body), size)
    return [
        ethernet(
            head[:4] + struct.pack(">HB", len(first) + 8 + len(body[at : at + size]), 0 if extended else 44) + head[7:] + first
            + struct.pack(">BBHI", 6, 0, at | (at != cuts[-1]), id) + body[at : at + size],
            0x86DD,
        )
        for at in cuts
    ]  # fmt: skip


@needs_scapy
@pytest.mark.parametrize("order", ["in-order", "last-first", "mixed"])
@pytest.mark.parametrize("extended", [False, True], ids=["plain", "behind-an-extension-header"])
@pytest.mark.parametrize("size", [8, 400])
def test_fragments_of_ipv6_are_joined(tmp_path: Path, order: str, extended: bool, size: int) -> None:
    frames = [ethernet(packet, 0x86DD) for _, packet in packets(ONE, ip=ipv6)]
    pieces = [
        fragments_of_ipv6(frame, id, size, extended)[:: -1 if order == "last-first" else 1] for id, frame in enumerate(frames)
    ]
    rows = list(zip_longest(*pieces)) if order == "mixed" else pieces
    found = decoded(tmp_path, pcap([piece for row in rows for piece in row if piece]))
    assert (sorted(names(found)), found.faults, found.source.notes) == (sorted(SAID), [], [])
    if size == 8:
        cut = decoded(tmp_path, pcap([piece for row in [*pieces[:3], pieces[3][:1], *pieces[4:]] for piece in row]))
        assert [fault.rule for fault in cut.faults] == ["capture.stream-whole"]
        assert cut.source.notes == ["1 IP packets are in fragments of which the capture lacks some"]


def test_a_gap_is_given_up_before_sequence_numbers_wrap_around_it() -> None:
    """Eight gigabytes after a lost byte are none of them taken for something sent again."""
    half, order = Half(), 0
    half.begin(2**32 - 5)
    for at in range(1, 2**33, 2**29):
        half.add((2**32 - 5 + at) % 2**32, Segment(b"x", 0, order, order))
        order += 1
    stream = half.finish()
    assert stream.end == 2**33 - 2**29 + 2
    assert stream.lacks(0, stream.end) == stream.end - order == stream.end - 16
    assert [at for at in range(1, 2**33, 2**29) if bytes(stream.view(at, 1)) != b"x"] == []
