"""Words of the command line to values: sizes, networks, addresses, delays, versions. Each raises Misuse for what it can't read."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from decimal import Decimal

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.net.stream import Endpoint, parse_endpoint
from ggml_rpc_ref.spec.messages import REQUESTS, command_name
from ggml_rpc_ref.spec.transport import MAX_SERVERS
from ggml_rpc_ref.spec.versions import PROFILES, Version

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMGT]?)(?:iB|B)?", re.IGNORECASE)
_UNITS = {"K": 2**10, "": 2**20, "M": 2**20, "G": 2**30, "T": 2**40}
_LARGEST = 2**63 - 1
"""Bytes: what the system's own calls take."""


def parse_size(text: str) -> int:
    """Return the bytes of a size: a number of MiB, as in rpc-server's -m, or one with the suffix K, M, G or T.

    Raises:
        Misuse: for anything else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise Misuse(f"{text!r} is not a size: write a number of MiB, or one with a suffix, for example 512, 512M or 8G")
    size = Decimal(match[1]) * _UNITS[match[2].upper()]  # exact, and of any number of digits
    if size > _LARGEST:
        raise Misuse(f"{text[:40]!r} is more than a machine can have: at most 8388607T")
    return int(size)


def parse_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return the network of a text like 192.168.0.0/16, 10.0.0.7 or fd00::/8.

    Raises:
        Misuse: for anything else.
    """
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise Misuse(f"{text!r} is not a network: write an address or a CIDR block, for example 192.168.0.0/16") from None


def parse_listen(text: str) -> Endpoint:
    """Return the address to listen on: 127.0.0.1 without a host, any free port for port 0.

    Raises:
        Misuse: for an invalid endpoint.
    """
    where = f"127.0.0.1{text}" if text.startswith(":") else text
    return parse_endpoint(f"{where[:-1]}1")._replace(port=0) if where.endswith(":0") else parse_endpoint(where)


def parse_delays(texts: list[str]) -> dict[type, float]:
    """Return request class to seconds for texts like "SET_TENSOR=20", in milliseconds.

    Raises:
        Misuse: for an unknown command, or an invalid number of milliseconds.
    """
    commands = {command_name(cls): cls for cls in REQUESTS}
    found: dict[type, float] = {}
    for text in texts:
        name, _, milliseconds = text.partition("=")
        if name.upper() not in commands:
            raise Misuse(f"{text!r}: there is no command {name!r}; write for instance SET_TENSOR=20")
        try:
            seconds = float(milliseconds) / 1000
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= 3600:
            raise Misuse(f"{text!r}: after the = come milliseconds, at most 3600000; write for instance SET_TENSOR=20")
        found[commands[name.upper()]] = seconds
    return found


def parse_version(text: str, option: str = "--proto") -> Version:
    """Return a protocol version.

    Raises:
        Misuse: for another form, and for an unknown version; by the option's name.
    """
    try:
        version = Version.parse(text)
    except ValueError as error:
        raise Misuse(f"{option}: {error}") from None
    if version not in PROFILES:
        raise Misuse(f"{option} {text}: known are {', '.join(map(str, PROFILES))}")
    return version


def parse_own(text: str) -> Version | None:
    """Return the version that --as names; None without it. Raises as `parse_version`."""
    return parse_version(text, "--as") if text else None


def distinct_endpoints(texts: Iterable[str]) -> list[str]:
    """Return endpoints as HOST:PORT, in their order.

    Raises:
        Misuse: for one that can't be read, one that is listed twice, or more than a process uses.
    """
    found: list[str] = []
    for text in texts:
        endpoint = str(parse_endpoint(text.strip()))
        if endpoint in found:
            raise Misuse(f"{endpoint} is listed twice")
        found.append(endpoint)
    if len(found) > MAX_SERVERS:
        raise Misuse(f"{len(found)} servers: one process uses at most {MAX_SERVERS}")
    return found


def proportions(text: str) -> list[float]:
    """Return the numbers of a text like "3,1".

    Raises:
        Misuse: for anything else.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise Misuse(f"--tensor-split {text}: write numbers with commas between, for example 3,1") from None
