"""The process that servers with a change are forked from: it has imported our server and has never served.

Run as `python -m tests.mutation.zygote OUT [MODULE NUMBER]`, with one request in JSON on each line of standard input:

    {"module": "server/memory.py", "number": 3}   fork a server with this change; {} one without
    {"trace": true}                               fork one that says which lines it reached, at each SIGUSR1
    {"proto": "2.0.0"}                            fork one that speaks this version; else it goes by the form of HELLO

It answers on the file descriptor OUT with {"port": …, "pid": …}; what a traced server reached comes there too, as {"lines": […]}.
With MODULE and NUMBER the change is made before anything is imported: for lines that are run by importing.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import resource
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

from tests.mutation.mutants import MODULES, PACKAGE, ROOT, Finder, code

ENDS = {signal.SIGTERM, signal.SIGINT}
MEMORY = 8 * 2**30
"""Bytes of address space that a server may take: a change may make it allocate without end."""
SECONDS = 300
"""Of processor time that a server may take."""
BACKEND_MEMORY = 2**30
"""Bytes of each device."""

_names = {str(ROOT / PACKAGE / name): name for name in MODULES}


def main() -> None:
    """Serve requests until standard input ends."""
    out = int(sys.argv[1])
    if sys.argv[2:]:
        sys.meta_path.insert(0, Finder(sys.argv[2], int(sys.argv[3])))
    reached = _Reached()
    sys.settrace(reached.trace)
    import ggml_rpc_ref.server.host
    import ggml_rpc_ref.server.server  # noqa: F401  (and with the two all that a server needs)

    sys.settrace(None)
    _say(out, {"imported": sorted(reached.lines)})
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        if not os.fork():
            try:
                _serve(out, request)
            finally:
                os._exit(1)


def _say(out: int, what: object) -> None:
    data = json.dumps(what).encode() + b"\n"
    while data:
        data = data[os.write(out, data) :]


def _serve(out: int, request: dict[str, Any]) -> None:
    """Serve with one change until a signal comes."""
    os.setsid()
    # blocked before there are other threads, one of which would otherwise take the signal and end the process
    signal.pthread_sigmask(signal.SIG_BLOCK, {*ENDS, signal.SIGUSR1})
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    reached = _Reached()
    if request.get("trace"):
        threading.settrace(reached.trace)
        gc.unfreeze()
    # whoever asks first runs the lines whose result is remembered, and nobody else would be seen to reach them
    remembered = [it for it in gc.get_objects() if isinstance(it, functools._lru_cache_wrapper)] if request.get("trace") else []
    if "module" in request:
        change(request["module"], request["number"])
    from ggml_rpc_ref.server.host import make_host
    from ggml_rpc_ref.server.server import Server

    with tempfile.TemporaryDirectory() as cache:
        host = make_host(
            "oracle,oracle", memory=BACKEND_MEMORY, cache_dir=Path(cache), values=2**25, proto=request.get("proto", "auto")
        )
        with Server(host, "127.0.0.1", 0) as server:
            _say(out, {"port": int(server.endpoint.rpartition(":")[2]), "pid": os.getpid()})
            while signal.sigwait({*ENDS, signal.SIGUSR1}) == signal.SIGUSR1:
                for function in remembered:
                    function.cache_clear()
                _say(out, {"lines": sorted(reached.swap())})
    os._exit(0)


def change(module: str, number: int) -> None:
    """Put a change into the functions of a module that is imported already, and forget what their results were."""
    path = str(ROOT / PACKAGE / module)
    new = {(it.co_qualname, it.co_firstlineno): it for it in _codes(code(module, number))}
    gc.unfreeze()
    if _module_name(module) not in sys.modules:
        raise ImportError(f"{module} is not imported yet: a change to it would be lost")
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType) and thing.__code__.co_filename == path:
            changed = new.get((thing.__code__.co_qualname, thing.__code__.co_firstlineno))
            if changed is not None and changed != thing.__code__:
                thing.__code__ = changed
        elif isinstance(thing, functools._lru_cache_wrapper):
            thing.cache_clear()


def same_closures(module: str, number: int) -> bool:
    """Whether each function of a changed module takes the same variables of those around it, so that it can be put in place."""
    was = {(it.co_qualname, it.co_firstlineno): it.co_freevars for it in _codes(code(module, -1))}
    return all(was.get((it.co_qualname, it.co_firstlineno)) == it.co_freevars for it in _codes(code(module, number)))


def _module_name(module: str) -> str:
    return f"{PACKAGE}/{module}".removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


class _Reached:
    """Takes note of the lines of our modules that are run, as "module:line"."""

    def __init__(self) -> None:
        self.lines = set[str]()

    def swap(self) -> set[str]:
        """Return what was reached since the last time."""
        lines, self.lines = self.lines, set()
        return lines

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        """Follow the functions of our modules, and no others."""
        name = _names.get(frame.f_code.co_filename)
        if name is None or frame.f_code.co_name == "<module>":
            return None

        def line(frame: FrameType, event: str, argument: object) -> Any:
            self.lines.add(f"{name}:{frame.f_lineno}")
            return line

        return line(frame, event, argument)


if __name__ == "__main__":
    main()
