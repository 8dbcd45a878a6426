"""Whole models from Python: a small Gemma 3 says what the stock client says on the same servers; its tokens are llama.cpp's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

import ggml_rpc_ref
from ggml_rpc_ref import upstream
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.models.gemma3 import Gemma3
from ggml_rpc_ref.models.gguf_file import ModelFile
from ggml_rpc_ref.models.vocabulary import BYTE, CONTROL, Vocabulary
from tests.support import tiny_models

PROMPT = [int(token) for token in np.random.default_rng(3).integers(0, tiny_models.VOCABULARY, 20)]
"""Longer than the window of the small model."""
STEPS, TOP = 6, 10


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma 3 with seven layers and random F32 weights."""
    path = tmp_path_factory.mktemp("models") / "gemma3.gguf"
    tiny_models.write("gemma3", path)
    return path


@contextlib.contextmanager
def servers(version: str, genuine: int, ours: int) -> Iterator[list[str]]:
    with contextlib.ExitStack() as stack:
        endpoints = [stack.enter_context(upstream.server(version, threads=1)).endpoint for _ in range(genuine)]
        started = [stack.enter_context(ggml_rpc_ref.Server(memory=2**26, proto=version)) for _ in range(ours)]
        yield endpoints + [server.endpoint for server in started]


def python_says(endpoints: list[str], path: Path) -> tuple[list[int], list[list[float]]]:
    """Return the tokens, and for each the best logits, best first."""
    backends = [*map(ggml_rpc_ref.rpc_init, endpoints), ggml_rpc_ref.local("oracle", memory=2**26)]
    with ggml_rpc_ref.Scheduler(backends) as scheduler:
        model = Gemma3(scheduler, ModelFile(path), [1] * max(1, len(endpoints)), 256)
        tokens, best = list[int](), list[list[float]]()
        logits = model.feed(PROMPT)
        for _ in range(STEPS):
            tokens.append(int(np.argmax(logits)))
            best.append(np.sort(logits)[::-1][:TOP].tolist())
            logits = model.feed([tokens[-1]])
        used = {split.backend for split in model.explain().splits if sum(not node.is_view for node in split.nodes) > 1}
        assert len(used) == max(1, len(endpoints))
    return tokens, best


@pytest.mark.parametrize(("genuine", "ours"), [(1, 0), (2, 0), (2, 1)])
def test_it_says_what_the_stock_client_says_on_the_same_servers(
    genuine: int, ours: int, small: Path, upstream_build: upstream.Build
) -> None:
    """Token for token, and on genuine servers alone logit for logit, bit by bit."""
    with servers("3.6.1", genuine, ours) as endpoints:
        said = upstream.generate("3.6.1", rpc=endpoints, prompt=PROMPT, n_predict=STEPS, model=small, top=TOP, n_ctx=256)
        tokens, best = python_says(endpoints, small)
    assert tokens == list(said.tokens)
    theirs = [[logit for _, logit in step] for step in said.top]
    if ours:  # the layers are not on the same of the servers, and ours rounds less
        np.testing.assert_allclose(best, theirs, rtol=0.05, atol=0.05)
    else:
        np.testing.assert_array_equal(np.asarray(best, np.float32), np.asarray(theirs, np.float32))


def test_this_machine_alone_says_the_same_as_servers(small: Path) -> None:
    with servers("3.6.1", 0, 3) as endpoints:
        assert python_says([], small) == python_says(endpoints, small)


def test_the_check_before_an_upload_counts_the_caches(small: Path) -> None:
    """The weights alone would fit."""
    file = ModelFile(small)
    size = sum(len(weight.source()) for weight in file.weights.values())
    room = size + 2**16
    with ggml_rpc_ref.Server(memory=room) as server:
        backends = [ggml_rpc_ref.rpc_init(server.endpoint), ggml_rpc_ref.local("oracle", memory=2**20)]
        with ggml_rpc_ref.Scheduler(backends) as scheduler:
            caches = 7 * 2 * 2 * 1024 * tiny_models.HEAD * tiny_models.HEADS_KV  # layers, keys and values, bytes, cells, a cell
            with pytest.raises(Misuse, match=rf"{room} bytes free and needs \d+ \({caches} of them for states\), .* do not fit"):
                Gemma3(scheduler, file, [1], 1024)
            assert backends[0].memory().free == room


def test_nothing_is_uploaded_where_proportions_do_not_fit(small: Path) -> None:
    """To this machine's backend neither, which may be a GPU."""
    arrived: list[str] = []
    with ggml_rpc_ref.Scheduler([ggml_rpc_ref.local("oracle", memory=2**26)]) as scheduler:
        with pytest.raises(Misuse, match="3 proportions do not fit 0 servers' devices"):
            Gemma3(scheduler, ModelFile(small), [1, 2, 3], 256, lambda device, name, size: arrived.append(name))
        assert arrived == []


def test_this_machine_uses_the_mapped_file_where_it_is(small: Path) -> None:
    """The embeddings, more than its memory, take none of it; what is written to them is not written to the file."""
    before = small.read_bytes()
    here = ggml_rpc_ref.local("oracle", memory=2**14)
    with (
        ggml_rpc_ref.Server(memory=2**26) as server,
        ggml_rpc_ref.Scheduler([ggml_rpc_ref.rpc_init(server.endpoint), here]) as scheduler,
    ):
        model = Gemma3(scheduler, ModelFile(small), [1], 256)
        table = model.weights["token_embd.weight"]
        assert table.nbytes > here.memory().total == here.memory().free
        table.write(np.full(table.shape, 0.5, np.float32))
        np.testing.assert_array_equal(table.numpy(), np.full(table.shape, 0.5))
    assert small.read_bytes() == before


# -------------------------------------------------------------------------------------------------------------- vocabulary


def test_pairs_of_the_best_score_are_joined_first() -> None:
    """By hand: of "abcab" first both "ab" (-1), then "abc" (-2) of the left one; ï, which is no token, becomes its bytes."""
    texts = [b"<s>", b"a", b"b", b"c", b"ab", b"abc", b"bc", b"<0xC3>", b"<0xAF>", "▁".encode(), "▁ab".encode(), b"ca"]
    scores = [0, -9, -9, -9, -1, -2, -3, 0, 0, -9, -4, -1.5]
    kinds = [CONTROL, 1, 1, 1, 1, 1, 1, BYTE, BYTE, 1, 1, 1]
    vocabulary = Vocabulary(texts, scores, kinds, 0, set(), False)
    assert vocabulary.encode("abcab") == [0, 5, 4]
    assert vocabulary.encode("bca") == [0, 2, 11]  # not "bc" first, whose score is less
    assert vocabulary.encode("c abï") == [0, 3, 10, 7, 8]
    assert vocabulary.decode([0, 5, 9, 7, 8]).decode() == "<s>abc ï"
    assert vocabulary.encode("a<s>b") == [0, 1, 0, 2]


TEXTS = [
    "The capital of France is",
    " two  spaces,\n\n\ttabs and naïve 漢字 🤖!",
    "<start_of_turn>user\nHow many?<end_of_turn>\n",
    "x = [1, 23, 456]; print(f'{x!r}')",
]


def test_tokens_are_llama_cpps(gemma_model: Path, upstream_build: upstream.Build) -> None:
    vocabulary = ModelFile(gemma_model).vocabulary
    assert vocabulary is not None
    said = upstream.generate_each(
        "3.6.1", rpc=None, runs=[(text, None) for text in TEXTS], n_predict=1, model=gemma_model, n_ctx=64
    )
    for text, one in zip(TEXTS, said, strict=True):
        assert vocabulary.encode(text) == list(one.prompt_tokens)
        assert vocabulary.decode(one.tokens).decode(errors="replace") == one.text


# ----------------------------------------------------------------------------------------------------------- what is refused


def test_what_is_no_such_model(tmp_path: Path, small: Path) -> None:
    other = tmp_path / "llama.gguf"
    tiny_models.write("llama", other)
    with ggml_rpc_ref.Scheduler([ggml_rpc_ref.local("oracle", memory=2**26)]) as scheduler:
        with pytest.raises(Misuse, match="is a model of the architecture llama: only gemma3"):
            Gemma3(scheduler, ModelFile(other))
        with pytest.raises(Misuse, match="300 tokens after 0 do not fit in a context of 256"):
            Gemma3(scheduler, ModelFile(small), n_ctx=200).feed([1] * 300)


@pytest.mark.parametrize("cut", [0, 3, 20, 300, 2000])
def test_files_that_are_cut_off(cut: int, tmp_path: Path, small: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(small.read_bytes()[:cut])
    with pytest.raises(Misuse, match=r"cut\.gguf can't be read as a GGUF"):
        ModelFile(path)
    with pytest.raises(Misuse, match="can't be read"):
        ModelFile(tmp_path / "none.gguf")


def test_arrays_are_read_as_the_package_reads_them(small: Path, tmp_path: Path) -> None:
    """Our shortcut for arrays of metadata beside the package's own way."""
    path = tmp_path / "arrays.gguf"
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<pad>", "ä", "", "▁x" * 40])
    writer.add_token_scores([0.0, -1.5, 2.0, -3.25])
    writer.add_token_types([3, 1, 1, 6])
    writer.add_bos_token_id(1)
    writer.add_tensor("t", np.arange(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    vocabulary = ModelFile(path).vocabulary
    fields = gguf.GGUFReader(path).fields
    assert vocabulary is not None
    assert [text.decode() for text in vocabulary._texts] == fields["tokenizer.ggml.tokens"].contents()
    assert list(vocabulary._scores) == fields["tokenizer.ggml.scores"].contents()
    assert list(vocabulary._kinds) == fields["tokenizer.ggml.token_type"].contents()
    assert ModelFile(path).weights["t"].source().tobytes() == np.arange(4, dtype=np.float32).tobytes()
