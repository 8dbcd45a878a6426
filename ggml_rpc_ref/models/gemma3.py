"""Gemma 3 over several servers, as an example to read: weights, KV cache, graph, and one token after another.

    with Scheduler([rpc_init("10.0.0.1:50052"), rpc_init("10.0.0.2:50052"), local()]) as scheduler:
        model = Gemma3(scheduler, ModelFile(Path("gemma-3-270m.gguf")), split=[3, 1])
        for token in model.generate(prompt, 32):
            print(token)

The graph is the one that a stock llama.cpp sends, node for node (vectors/, sessions/gemma-3-270m), so that on the same servers it
says the same: token embeddings on this machine, each layer where its weights lie, its keys and values beside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ggml_rpc_ref.client.devices import Device
from ggml_rpc_ref.client.scheduler.explain import Explanation
from ggml_rpc_ref.client.scheduler.graph import ScheduledGraph
from ggml_rpc_ref.client.scheduler.scheduler import Scheduler
from ggml_rpc_ref.client.scheduler.splitting import MEMORY, Split
from ggml_rpc_ref.client.scheduler.weights import Uploaded
from ggml_rpc_ref.client.tensors import RemoteTensor
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.models.gguf_file import ModelFile
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.tensor import Array

CELLS = 256
"""Rows of the cache that a graph looks at are a multiple of this, as llama.cpp's, so that one graph does for many tokens."""
GLOBAL_EVERY = 6
"""Of so many layers the last looks at all tokens, and the others at a window (llama-model.cpp, gemma3)."""
WINDOWED_BASE = 10000.0
"""Base of the rotations in layers with a window, and in all where the file names none (llama-model.cpp)."""
PRECISE = 10
"""GGML_PREC_F32."""
F16_BYTES = 2
WRITES_CACHE = "SET_ROWS"
EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the metadata say."""

    layers: int
    width: int
    heads: int
    heads_kv: int
    head: int
    window: int
    epsilon: float
    base: float
    trained: int

    @classmethod
    def of(cls, file: ModelFile) -> Sizes:
        """Read them.

        Raises:
            Misuse: for another architecture, or where one is missing.
        """
        if file.architecture != "gemma3":
            raise Misuse(f"{file.path} is a model of the architecture {file.architecture or 'unknown'}: only gemma3 is built here")
        return cls(
            layers=file.size("block_count"),
            width=file.size("embedding_length"),
            heads=file.size("attention.head_count"),
            heads_kv=file.size("attention.head_count_kv"),
            head=file.size("attention.key_length"),
            window=file.size("attention.sliding_window"),
            epsilon=file.number("attention.layer_norm_rms_epsilon"),
            base=file.number("rope.freq_base", WINDOWED_BASE),
            trained=file.size("context_length"),
        )


class Step:
    """A graph for so many tokens at once, over so many cells of the cache; its inputs, and the logits of the last token."""

    def __init__(self, model: Gemma3, count: int, cells: int) -> None:
        self.count, self.cells, self._model = count, cells, model
        graph = self.graph = model.scheduler.graph()
        self.tokens = graph.input("I32", (count,), "tokens")
        self.positions = graph.input("I32", (count,), "positions")
        self.rows = graph.input("I64", (count,), "rows of the cache")
        self.last = graph.input("I32", (1,), "last token")
        self.masks = [graph.input("F16", (cells, count), name) for name in ("mask", "mask of the window")]
        self.logits = self._build(graph)

    def run(self, tokens: Sequence[int], first: int) -> Array:
        """Feed tokens, the first of them at that position, and return the logits after the last."""
        positions = np.arange(first, first + self.count, dtype=np.int32)
        self.tokens.write(np.asarray(tokens, np.int32))
        self.positions.write(positions)
        self.rows.write(positions.astype(np.int64))
        self.last.write(np.array([self.count - 1], np.int32))
        behind = positions[:, None] - np.arange(self.cells)
        for mask, reach in zip(self.masks, (math.inf, self._model.sizes.window), strict=True):
            mask.write(np.where((behind >= 0) & (behind < reach), 0, -np.inf).astype(np.float16))
        self.graph.compute()
        return self.logits.numpy().reshape(-1)

    def _build(self, graph: ScheduledGraph) -> RemoteTensor:
        sizes, weights = self._model.sizes, self._model.weights
        x = graph.scale(graph.get_rows(weights[EMBEDDING], self.tokens), math.sqrt(sizes.width))
        for layer in range(sizes.layers):
            attn_out = self._attention(graph, layer, self._normed(graph, x, f"blk.{layer}.attn_norm"))
            if layer == sizes.layers - 1:  # what follows is wanted for the last token alone
                attn_out, x = graph.get_rows(attn_out, self.last), graph.get_rows(x, self.last)
            x = graph.add(self._normed(graph, attn_out, f"blk.{layer}.post_attention_norm"), x)
            ffn_out = self._forward(graph, layer, self._normed(graph, x, f"blk.{layer}.ffn_norm"))
            x = graph.add(self._normed(graph, ffn_out, f"blk.{layer}.post_ffw_norm"), x)
        return graph.mul_mat(weights[OUTPUT], self._normed(graph, x, "output_norm"), name="logits")

    def _normed(self, graph: ScheduledGraph, x: RemoteTensor, name: str) -> RemoteTensor:
        return graph.mul(graph.rms_norm(x, eps=self._model.sizes.epsilon), self._model.weights[f"{name}.weight"])

    def _attention(self, graph: ScheduledGraph, layer: int, x: RemoteTensor) -> RemoteTensor:
        sizes, weights, count = self._model.sizes, self._model.weights, self.count
        is_global = (layer + 1) % GLOBAL_EVERY == 0

        def projected(name: str, heads: int) -> RemoteTensor:
            return graph.reshape(graph.mul_mat(weights[f"blk.{layer}.attn_{name}.weight"], x), sizes.head, heads, count)

        def rotated(name: str, heads: int) -> RemoteTensor:
            normed = self._normed(graph, projected(name, heads), f"blk.{layer}.attn_{name}_norm")
            base = sizes.base if is_global else WINDOWED_BASE
            how = {"n_ctx_orig": sizes.trained, "freq_base": base, "beta_fast": 32.0, "beta_slow": 1.0}
            return graph.op("ROPE", [normed, self.positions], params={"n_dims": sizes.head, "mode": "neox", **how})

        query = graph.scale(rotated("q", sizes.heads), 1 / math.sqrt(sizes.head))
        keys, values = rotated("k", sizes.heads_kv), projected("v", sizes.heads_kv)
        seen_keys, seen_values = (
            self._cached(graph, *pair) for pair in zip(self._model.caches[layer], (keys, values), strict=True)
        )
        mask = self.masks[0 if is_global else 1]
        attn_out = graph.flash_attn_ext(graph.permute(query, 0, 2, 1, 3), seen_keys, seen_values, mask, scale=1.0, prec=PRECISE)
        return graph.mul_mat(weights[f"blk.{layer}.attn_output.weight"], graph.reshape(attn_out, sizes.head * sizes.heads, count))

    def _cached(self, graph: ScheduledGraph, cache: RemoteTensor, new: RemoteTensor) -> RemoteTensor:
        """Write new rows into a cache, and return all that the graph looks at, by heads."""
        sizes = self._model.sizes
        graph.set_rows(graph.reshape(new, sizes.head * sizes.heads_kv, self.count), self.rows, cache)
        row = F16_BYTES * sizes.head * sizes.heads_kv
        nb = (F16_BYTES, F16_BYTES * sizes.head, row, row * self.cells)
        return graph.permute(graph.view(cache, sizes.head, sizes.heads_kv, self.cells, nb=nb), 0, 2, 1, 3)

    def _forward(self, graph: ScheduledGraph, layer: int, x: RemoteTensor) -> RemoteTensor:
        weights = self._model.weights
        gate, up = (graph.mul_mat(weights[f"blk.{layer}.ffn_{name}.weight"], x) for name in ("gate", "up"))
        return graph.mul_mat(weights[f"blk.{layer}.ffn_down.weight"], graph.geglu(gate, up))


class Gemma3:
    """A model on the backends of a scheduler.

    Args:
        scheduler: where.
        file: the model.
        split: which backend has which layers, as `Scheduler.weights` takes it.
        n_ctx: tokens that prompt and continuation may have together.
        progress: called with backend, name and bytes for each weight that has arrived.

    Raises:
        Misuse: where the file is no such model, and as `Scheduler.weights`.

    Attributes:
        weights, caches: on the backends; for each layer the keys and the values.
        position: tokens that the caches hold.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        file: ModelFile,
        split: Split = MEMORY,
        n_ctx: int = 1024,
        progress: Uploaded = lambda device, name, size: None,
    ) -> None:
        self.scheduler, self.sizes, self.position = scheduler, Sizes.of(file), 0
        self.n_ctx = -(-n_ctx // CELLS) * CELLS
        given = dict(file.weights)
        # the matrix of the output is that of the embeddings again, which lies on this machine
        given.setdefault(OUTPUT, given[EMBEDDING])
        chosen, here = scheduler.choose(split, given), scheduler.backends[-1]

        def backend_of(name: str) -> Device:
            return here if name == EMBEDDING else chosen(name)

        row = self.sizes.head * self.sizes.heads_kv
        pairs = [[f"blk.{layer}.attn_{which}.weight" for which in "kv"] for layer in range(self.sizes.layers)]
        caches = {name: F16_BYTES * row * self.n_ctx for pair in pairs for name in pair}
        for backend in map(backend_of, caches):
            if WRITES_CACHE not in op_table(backend.version):
                raise Misuse(f"{backend.name} speaks {backend.version}, which has no {WRITES_CACHE}: it can't keep keys and values")
        self.weights = scheduler.weights(given, backend_of, reserve=caches, progress=progress)
        self.caches = [
            [scheduler.state("F16", (row, self.n_ctx), f"cache of {name}", on=self.weights[name]) for name in pair]
            for pair in pairs
        ]
        self._steps: dict[tuple[int, int], Step] = {}

    def feed(self, tokens: Sequence[int]) -> Array:
        """Feed tokens after those that the caches hold, and return the logits after the last, float32.

        Raises:
            Misuse: where they are more than the context holds.
            ServerLost: where a server goes; what the caches on it held has to be fed again.
        """
        end = self.position + len(tokens)
        if not tokens or end > self.n_ctx:
            raise Misuse(f"{len(tokens)} tokens after {self.position} do not fit in a context of {self.n_ctx}")
        key = len(tokens), -(-end // CELLS) * CELLS
        if key not in self._steps:
            if len(self._steps) >= 4:  # a prompt's graph is not needed again
                self._steps.clear()
            self._steps[key] = Step(self, *key)
        logits = self._steps[key].run(tokens, self.position)
        self.position = end
        return logits

    def explain(self) -> Explanation:
        """Return where the last graph was computed."""
        return self.scheduler.explain(next(reversed(self._steps.values())).graph)

    def generate(self, prompt: Sequence[int], most: int) -> Iterator[int]:
        """Yield tokens, each the most likely one; of equal ones the lowest number. The caller stops at an end of the text."""
        logits = self.feed(prompt)
        for done in range(most):
            token = int(np.argmax(logits))
            yield token
            if done + 1 < most:
                logits = self.feed([token])
