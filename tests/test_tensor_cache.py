"""The tensor cache: files by hash, and that nothing wrong with them is ever served or raised."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggml_rpc_ref.protocol.fnv import definition, fnv1a
from ggml_rpc_ref.server import tensor_cache
from ggml_rpc_ref.server.tensor_cache import THRESHOLD, TensorCache, default_directory

SIZE = 4096
"""Bytes of the tensors here, with the threshold lowered: the rules are the same for 10 MiB."""


@pytest.fixture(autouse=True)
def low_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_cache, "THRESHOLD", 1024)


@pytest.fixture
def cache(tmp_path: Path) -> TensorCache:
    return TensorCache(tmp_path / "cache")


def some_bytes(seed: int, size: int = SIZE) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()


DATA = some_bytes(0)
DIGEST = definition(DATA)


def save(cache: TensorCache, data: bytes) -> int:
    cache.save(memoryview(data))
    return definition(data)


def load(cache: TensorCache, digest: int, room: int = SIZE) -> bytes | None:
    """What the cache returns, in a buffer whose guard bytes must not change."""
    memory = bytearray(b"\xa5" * (room + 16))
    count = cache.load(digest, memoryview(memory)[8 : room + 8])
    kept = 0 if count is None else count
    assert memory[:8] + memory[8 + kept :] == b"\xa5" * (room + 16 - kept)
    return None if count is None else bytes(memory[8 : 8 + count])


# ------------------------------------------------------------------------------------------------------------------- files


def test_names_and_contents_are_upstreams(cache: TensorCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_cache, "THRESHOLD", 5)
    save(cache, b"foobar")
    assert [path.name for path in cache.directory.iterdir()] == ["85944171f73967e8"]
    assert (cache.directory / "85944171f73967e8").read_bytes() == b"foobar"


def test_names_have_16_digits(cache: TensorCache) -> None:
    assert cache.path(0xABC).name == "0000000000000abc"


def test_the_threshold_is_upstreams_and_excludes_its_own_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert THRESHOLD == 10_485_760
    monkeypatch.undo()
    cache = TensorCache(tmp_path)
    cache.save(memoryview(bytes(10_485_760)))
    assert not list(tmp_path.iterdir())
    cache.save(memoryview(bytes(10_485_761)))
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [10_485_761]


def test_what_was_saved_is_loaded(cache: TensorCache) -> None:
    assert load(cache, save(cache, DATA)) == DATA


def test_it_may_be_shorter_than_the_room(cache: TensorCache) -> None:
    assert load(cache, save(cache, DATA), room=SIZE + 100) == DATA


def test_another_server_finds_it(cache: TensorCache) -> None:
    save(cache, DATA)
    assert load(TensorCache(cache.directory), DIGEST) == DATA


DIRECTORIES = [
    ({"LLAMA_CACHE": "/there", "XDG_CACHE_HOME": "/no", "HOME": "/h"}, "linux", "/there/rpc"),
    ({"XDG_CACHE_HOME": "/xdg", "HOME": "/h"}, "linux", "/xdg/llama.cpp/rpc"),
    ({"HOME": "/h"}, "linux", "/h/.cache/llama.cpp/rpc"),
    ({"HOME": "/h"}, "darwin", "/h/Library/Caches/llama.cpp/rpc"),
    ({"LLAMA_CACHE": "/there", "HOME": "/h"}, "darwin", "/there/rpc"),
]


@pytest.mark.parametrize(("environ", "platform", "wanted"), DIRECTORIES)
def test_the_directory_is_upstreams(environ: dict[str, str], platform: str, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", environ["HOME"])
    assert str(default_directory(environ, platform)) == wanted


# ------------------------------------------------------------------------------------------------------------------ misses


def corrupt(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, SIZE // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_link(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [corrupt, truncate, empty, lengthen, make_directory, make_link, make_pipe, remove])
def test_damage_is_a_miss(cache: TensorCache, damage: Callable[[Path], None]) -> None:
    digest = save(cache, DATA)
    damage(cache.path(digest))
    assert load(cache, digest, room=SIZE + 100) is None


@pytest.mark.parametrize("damage", [corrupt, truncate, empty, lengthen])
def test_a_damaged_file_is_replaced(cache: TensorCache, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture) -> None:
    damage(cache.path(save(cache, DATA)))
    load(cache, DIGEST, room=SIZE + 100)
    assert "other contents than its name says" in caplog.text
    save(cache, DATA)
    assert load(cache, DIGEST) == DATA


def test_data_larger_than_the_room_are_a_miss_and_stay(cache: TensorCache) -> None:
    digest = save(cache, DATA)
    assert load(cache, digest, room=SIZE - 1) is None
    assert load(cache, digest, room=SIZE) == DATA


def test_a_file_changed_while_it_is_read_is_a_miss(
    cache: TensorCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    digest = save(cache, DATA)

    def hash_then_change(file: object) -> int:
        cache.path(digest).write_bytes(some_bytes(1))
        return digest

    monkeypatch.setattr(tensor_cache, "_hash", hash_then_change)
    assert cache.load(digest, memoryview(bytearray(SIZE))) is None
    assert "changed while it was read" in caplog.text


def test_a_missing_directory_is_made(cache: TensorCache) -> None:
    cache.directory.rmdir()
    assert load(cache, DIGEST) is None
    assert load(cache, save(cache, DATA)) == DATA


def test_a_directory_that_is_a_file_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_bytes(b"")
    cache = TensorCache(tmp_path / "cache")
    assert load(cache, save(cache, DATA)) is None
    assert "can't be used" in caplog.text
    assert "could not keep" in caplog.text


def test_a_full_disk_leaves_nothing_behind(
    cache: TensorCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    save(cache, DATA)
    assert not list(cache.directory.iterdir())
    assert "No space left on device" in caplog.text


# ------------------------------------------------------------------------------------------------------------------- limit


def test_the_least_recently_used_make_room(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path, limit=3 * SIZE)
    digests = sorted((save(cache, some_bytes(seed)) for seed in range(3)), reverse=True)  # an order that names don't have
    for age, digest in enumerate(digests):
        os.utime(cache.path(digest), (1000 + age, 1000 + age))
    assert load(cache, digests[0]) is not None  # now the most recently used
    newest = save(cache, some_bytes(3))
    assert {path.name for path in tmp_path.iterdir()} == {f"{digest:016x}" for digest in (digests[0], digests[2], newest)}


def test_data_beyond_the_limit_remove_nothing(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path, limit=SIZE)
    save(cache, DATA)
    save(cache, some_bytes(1, SIZE + 1))
    assert [path.name for path in tmp_path.iterdir()] == [f"{DIGEST:016x}"]


def test_other_files_are_neither_counted_nor_removed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(bytes(10 * SIZE))
    save(TensorCache(tmp_path, limit=SIZE), DATA)
    assert len(list(tmp_path.iterdir())) == 2


def test_saving_again_counts_as_use(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path)
    path = cache.path(save(cache, DATA))
    os.utime(path, (1000, 1000))
    save(cache, DATA)
    assert path.stat().st_mtime > 1000


def test_unfinished_files_of_dead_servers_go_and_those_of_live_ones_stay(tmp_path: Path) -> None:
    dead, live, other = (tmp_path / name for name in (f"{DIGEST:016x}.00ff.part", f"{DIGEST:016x}.11ff.part", "mine.part"))
    for path in (dead, live, other):
        path.write_bytes(b"x")
    yesterday = time.time() - 86_400
    os.utime(dead, (yesterday, yesterday))
    os.utime(other, (yesterday, yesterday))
    TensorCache(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {live.name, other.name}


def test_servers_share_a_directory(tmp_path: Path) -> None:
    """Four writers over a limit that only two of the eight files fit under: no error, and whatever is found is whole."""
    everything = [some_bytes(seed) for seed in range(8)]
    wrong: list[object] = []

    def work(seed: int) -> None:
        cache = TensorCache(tmp_path, limit=2 * SIZE)
        try:
            for index in np.random.default_rng(seed).integers(0, 8, 60):
                cache.save(memoryview(everything[index]))
                found = load(cache, fnv1a(everything[index]))
                if found not in (None, everything[index]):
                    wrong.append(index)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not list(tmp_path.glob("*.part"))


def on_disk(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("servers", [1, 2])
def test_uploads_at_once_stay_under_the_limit(tmp_path: Path, servers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is taken before anything is written, by threads and servers alike: 8 uploads of 30 MiB left 240 under a limit of 32."""
    caches = [TensorCache(tmp_path, limit=2 * SIZE) for _ in range(servers)]
    write, wrote, go = TensorCache._write, threading.Semaphore(0), threading.Event()

    def wait_then_write(self: TensorCache, *args: Any) -> None:
        wrote.release()
        go.wait(20)
        write(self, *args)

    monkeypatch.setattr(TensorCache, "_write", wait_then_write)
    threads = [threading.Thread(target=save, args=(caches[seed % servers], some_bytes(seed))) for seed in range(8)]
    for thread in threads:
        thread.start()
    assert all(wrote.acquire(timeout=20) for _ in range(2))
    while sum(thread.is_alive() for thread in threads) > 2:  # the others find no room and give up
        time.sleep(0.001)
    assert on_disk(tmp_path) == 2 * SIZE
    go.set()
    for thread in threads:
        thread.join()
    assert on_disk(tmp_path) == 2 * SIZE
    assert len(list(tmp_path.iterdir())) == 2


# ----------------------------------------------------------------------------------------------------------------- forgery


@pytest.fixture
def weak(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash that all data have: what a forger makes of FNV-1a with some work."""
    monkeypatch.setattr(tensor_cache, "fnv1a", lambda data: 7)
    monkeypatch.setattr(tensor_cache, "_hash", lambda file: 7)


@pytest.mark.usefixtures("weak")
@pytest.mark.parametrize("size", [SIZE, SIZE + 1])
def test_two_contents_of_one_hash_are_both_distrusted(cache: TensorCache, size: int, caplog: pytest.LogCaptureFixture) -> None:
    save(cache, some_bytes(1, size))
    assert load(cache, 7, size) == some_bytes(1, size)
    for _ in range(2):
        save(cache, DATA)
        assert load(cache, 7, size) is None
    save(cache, some_bytes(1, size))
    assert load(cache, 7, size) is None
    assert caplog.text.count("neither is kept") == 1


@pytest.mark.parametrize("damage", [corrupt, truncate, lengthen])
def test_an_upload_replaces_a_file_of_other_contents(cache: TensorCache, damage: Callable[[Path], None]) -> None:
    """Only its size was compared: the wrong file stayed, and was found wrong at each load."""
    path = cache.path(save(cache, DATA))
    damage(path)
    save(cache, DATA)
    assert path.read_bytes() == DATA


ADDRESSES = ["192.0.2.1", "192.0.2.2", "[2001:db8::1]", "[fe80::1%eth0]", "..", "../x"]


def test_clients_apart_find_only_their_own(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path, per_client=True)
    parts = [cache.for_client(address) for address in ADDRESSES]
    save(parts[0], DATA)
    assert [load(part, DIGEST) for part in parts] == [DATA] + [None] * 5
    assert load(TensorCache(tmp_path, per_client=True).for_client(ADDRESSES[0]), DIGEST) == DATA
    assert load(TensorCache(tmp_path), DIGEST) is None
    assert load(cache.for_client(ADDRESSES[0]), DIGEST) == DATA


def test_clients_apart_share_the_limit(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path, limit=2 * SIZE, per_client=True)
    for seed, address in enumerate(ADDRESSES[:4]):
        save(cache.for_client(address), some_bytes(seed))
    assert on_disk(tmp_path) == 2 * SIZE
    assert cache.state() == {"directory": str(tmp_path), "per_client": True, "files": 2, "size": 2 * SIZE, "limit": 2 * SIZE}


def test_a_part_lies_below_the_cache_whatever_the_address_says(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path, per_client=True)
    for address in ADDRESSES:
        assert cache.for_client(address).path(1).resolve().is_relative_to(tmp_path.resolve() / "clients")


def test_one_cache_for_all_is_rpc_servers(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path)
    assert cache.for_client("192.0.2.1") is cache
