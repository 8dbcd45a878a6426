"""Models of a few hundred kilobytes with random F32 weights, one for each of several llama.cpp architectures.

They have no vocabulary (tokens go in as numbers). The weights are seeded and scaled so that each part of a layer counts: a matrix
keeps the size of what it multiplies, the last one makes logits a few units apart. Names of tensors and of metadata, and the order
of dimensions (ggml's `ne`), are those of llama-arch.cpp and llama-model.cpp of the 3.6.1 release.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np

VOCABULARY = 300
EMBEDDING = 64
LAYERS = 2
FORWARD = 96
HEAD = 16
HEADS, HEADS_KV = 4, 2
EXPERTS, EXPERTS_USED = 4, 2
WINDOW = 8
"""Sliding window in tokens: shorter than the prompts of the tests, so that it cuts."""

Shapes = Iterator[tuple[str, tuple[int, ...]]]
Metadata = dict[str, int | float | list[int]]


def outer(*, norm_bias: bool = False, output: bool = True) -> Shapes:
    """The tensors around the layers."""
    yield "token_embd.weight", (EMBEDDING, VOCABULARY)
    yield from norm("output_norm", bias=norm_bias)
    if output:
        yield "output.weight", (EMBEDDING, VOCABULARY)


def norm(name: str, size: int = EMBEDDING, *, bias: bool = False) -> Shapes:
    """The weights of a normalisation, and its bias where it has one."""
    yield f"{name}.weight", (size,)
    if bias:
        yield f"{name}.bias", (size,)


def linear(name: str, size: int, out: int, *, bias: bool = False) -> Shapes:
    """A matrix from vectors of `size` to vectors of `out`."""
    yield f"{name}.weight", (size, out)
    if bias:
        yield f"{name}.bias", (out,)


def attention(layer: str, *, bias: bool = False, qk_norm: bool = False, gated: bool = False) -> Shapes:
    """Attention with fewer heads for keys and values than for queries; `gated`: the query matrix makes a gate as well."""
    yield from linear(f"{layer}.attn_q", EMBEDDING, HEADS * HEAD * (2 if gated else 1), bias=bias)
    yield from linear(f"{layer}.attn_k", EMBEDDING, HEADS_KV * HEAD, bias=bias)
    yield from linear(f"{layer}.attn_v", EMBEDDING, HEADS_KV * HEAD, bias=bias)
    yield from linear(f"{layer}.attn_output", HEADS * HEAD, EMBEDDING, bias=bias)
    if qk_norm:
        yield from norm(f"{layer}.attn_q_norm", HEAD)
        yield from norm(f"{layer}.attn_k_norm", HEAD)


def experts(layer: str, *, bias: bool = False) -> Shapes:
    """The router and the experts."""
    yield from linear(f"{layer}.ffn_gate_inp", EMBEDDING, EXPERTS, bias=bias)
    for part, size, out in ("gate", EMBEDDING, FORWARD), ("up", EMBEDDING, FORWARD), ("down", FORWARD, EMBEDDING):
        yield f"{layer}.ffn_{part}_exps.weight", (size, out, EXPERTS)
        if bias:
            yield f"{layer}.ffn_{part}_exps.bias", (out, EXPERTS)


def forward(layer: str, suffix: str = "") -> Shapes:
    """A gated feed-forward part."""
    yield from linear(f"{layer}.ffn_gate{suffix}", EMBEDDING, FORWARD)
    yield from linear(f"{layer}.ffn_up{suffix}", EMBEDDING, FORWARD)
    yield from linear(f"{layer}.ffn_down{suffix}", FORWARD, EMBEDDING)


def layers() -> list[str]:
    """The prefixes of the layers' tensors."""
    return [f"blk.{index}" for index in range(LAYERS)]


def llama() -> Shapes:
    """Dense, grouped queries, rotary positions with frequency factors."""
    yield from outer()
    yield "rope_freqs.weight", (HEAD // 2,)
    for layer in layers():
        yield from norm(f"{layer}.attn_norm")
        yield from attention(layer)
        yield from norm(f"{layer}.ffn_norm")
        yield from forward(layer)


def qwen2vl() -> Shapes:
    """Rotary positions in sections: four positions a token, which for text are equal."""
    yield from outer()
    for layer in layers():
        yield from norm(f"{layer}.attn_norm")
        yield from attention(layer)
        for name, heads in ("q", HEADS), ("k", HEADS_KV), ("v", HEADS_KV):
            yield f"{layer}.attn_{name}.bias", (heads * HEAD,)
        yield from norm(f"{layer}.ffn_norm")
        yield from forward(layer)


def gemma2() -> Shapes:
    """Soft-capped attention and logits, sliding window in every second layer, output matrix shared with the embedding."""
    yield from outer(output=False)
    for layer in layers():
        for name in "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm":
            yield from norm(f"{layer}.{name}")
        yield from attention(layer)
        yield from forward(layer)


GEMMA3_LAYERS = 7
"""One more than a period of its windows, so that a layer of each kind follows the other."""


def gemma3() -> Shapes:
    """Windows in five of six layers, normalised queries and keys, output matrix shared with the embedding."""
    yield from outer(output=False)
    for layer in (f"blk.{index}" for index in range(GEMMA3_LAYERS)):
        for name in "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm":
            yield from norm(f"{layer}.{name}")
        yield from attention(layer, qk_norm=True)
        yield from forward(layer)


def bloom() -> Shapes:
    """ALiBi in place of positions, biases everywhere, GELU."""
    yield from outer(norm_bias=True)
    yield from norm("token_embd_norm", bias=True)
    for layer in layers():
        yield from norm(f"{layer}.attn_norm", bias=True)
        yield from linear(f"{layer}.attn_qkv", EMBEDDING, 3 * EMBEDDING, bias=True)
        yield from linear(f"{layer}.attn_output", EMBEDDING, EMBEDDING, bias=True)
        yield from norm(f"{layer}.ffn_norm", bias=True)
        yield from linear(f"{layer}.ffn_up", EMBEDDING, FORWARD, bias=True)
        yield from linear(f"{layer}.ffn_down", FORWARD, EMBEDDING, bias=True)


def qwen3moe() -> Shapes:
    """Experts chosen by soft-max, their weights normalised."""
    yield from outer()
    for layer in layers():
        yield from norm(f"{layer}.attn_norm")
        yield from attention(layer, qk_norm=True)
        yield from norm(f"{layer}.ffn_norm")
        yield from experts(layer)


def gpt_oss() -> Shapes:
    """Attention sinks, experts with biases, the SWIGLU variant of this model."""
    yield from outer()
    for layer in layers():
        yield from norm(f"{layer}.attn_norm")
        yield from norm(f"{layer}.post_attention_norm")
        yield from attention(layer, bias=True)
        yield f"{layer}.attn_sinks.weight", (HEADS,)
        yield from experts(layer, bias=True)


def mamba(inner: int = 2 * EMBEDDING, state: int = 16, rank: int = 4) -> Shapes:
    """A selective state-space model: no attention."""
    yield from outer()
    for layer in layers():
        yield from norm(f"{layer}.attn_norm")
        yield from linear(f"{layer}.ssm_in", EMBEDDING, 2 * inner)
        yield f"{layer}.ssm_conv1d.weight", (4, inner)
        yield f"{layer}.ssm_conv1d.bias", (inner,)
        yield from linear(f"{layer}.ssm_x", inner, rank + 2 * state)
        yield from linear(f"{layer}.ssm_dt", rank, inner, bias=True)
        yield f"{layer}.ssm_a", (state, inner)
        yield f"{layer}.ssm_d", (inner,)
        yield from linear(f"{layer}.ssm_out", inner, EMBEDDING)


def mamba2(inner: int = 2 * EMBEDDING, state: int = 32, heads: int = 8, groups: int = 2) -> Shapes:
    """State-space heads: one rate of decay for a whole head, groups of heads that share their inputs."""
    convolved = inner + 2 * groups * state
    yield from outer()
    for layer in layers():
        yield from norm(f"{layer}.attn_norm")
        yield from linear(f"{layer}.ssm_in", EMBEDDING, inner + convolved + heads)
        yield f"{layer}.ssm_conv1d.weight", (4, convolved)
        yield f"{layer}.ssm_conv1d.bias", (convolved,)
        yield f"{layer}.ssm_dt.bias", (heads,)
        yield f"{layer}.ssm_a", (1, heads)
        yield f"{layer}.ssm_d", (1, heads)
        yield f"{layer}.ssm_norm.weight", (inner // groups, groups)
        yield from linear(f"{layer}.ssm_out", inner, EMBEDDING)


def rwkv_outer() -> Shapes:
    """What RWKV 6 and 7 share: a normalised embedding and two normalisations in each layer."""
    yield from outer(norm_bias=True)
    yield from norm("token_embd_norm", bias=True)
    for layer in layers():
        for name in "attn_norm", "attn_norm_2", "time_mix_ln":
            yield from norm(f"{layer}.{name}", bias=True)
        for name in "key", "value", "receptance", "output":
            yield from linear(f"{layer}.time_mix_{name}", EMBEDDING, EMBEDDING)
        yield f"{layer}.channel_mix_lerp_k.weight", (EMBEDDING, 1, 1)
        yield from linear(f"{layer}.channel_mix_key", EMBEDDING, FORWARD)
        yield from linear(f"{layer}.channel_mix_value", FORWARD, EMBEDDING)


def rwkv6(extra: int = 8) -> Shapes:
    """Linear attention with a decay that depends on the input."""
    yield from rwkv_outer()
    for layer in layers():
        yield from linear(f"{layer}.time_mix_w1", EMBEDDING, 5 * extra)
        yield f"{layer}.time_mix_w2.weight", (extra, EMBEDDING, 5)
        yield f"{layer}.time_mix_lerp_x.weight", (EMBEDDING, 1, 1)
        yield f"{layer}.time_mix_lerp_fused.weight", (EMBEDDING, 1, 1, 5)
        yield f"{layer}.time_mix_first.weight", (2 * HEAD, EMBEDDING // (2 * HEAD))
        yield f"{layer}.time_mix_decay.weight", (EMBEDDING,)
        yield from linear(f"{layer}.time_mix_decay_w1", EMBEDDING, extra)
        yield from linear(f"{layer}.time_mix_decay_w2", extra, EMBEDDING)
        yield from linear(f"{layer}.time_mix_gate", EMBEDDING, EMBEDDING)
        yield f"{layer}.channel_mix_lerp_r.weight", (EMBEDDING, 1, 1)
        yield from linear(f"{layer}.channel_mix_receptance", EMBEDDING, EMBEDDING)


def rwkv7(rank: int = 8) -> Shapes:
    """The generalised delta rule."""
    yield from rwkv_outer()
    for layer in layers():
        for name in "w", "a", "v":
            yield f"{layer}.time_mix_{name}0.weight", (EMBEDDING,)
        for name in "w", "a", "v", "g":
            yield from linear(f"{layer}.time_mix_{name}1", EMBEDDING, rank)
            yield from linear(f"{layer}.time_mix_{name}2", rank, EMBEDDING)
        yield f"{layer}.time_mix_lerp_fused.weight", (EMBEDDING, 1, 1, 6)
        for name in "k_k", "k_a", "r_k":
            yield f"{layer}.time_mix_{name}.weight", (EMBEDDING,)


def qwen3next(key: int = 2 * HEAD, value: int = 4 * HEAD) -> Shapes:
    """A gated delta net in the first layer, gated attention in the second; experts and one shared expert."""
    yield from outer()
    for index, layer in enumerate(layers()):
        yield from norm(f"{layer}.attn_norm")
        yield from norm(f"{layer}.post_attention_norm")
        if index == 0:
            yield from linear(f"{layer}.attn_qkv", EMBEDDING, 2 * key + value)
            yield from linear(f"{layer}.attn_gate", EMBEDDING, value)
            yield f"{layer}.ssm_conv1d.weight", (4, 2 * key + value)
            yield f"{layer}.ssm_dt.bias", (value // HEAD,)
            yield f"{layer}.ssm_a", (value // HEAD,)
            yield from linear(f"{layer}.ssm_ba", EMBEDDING, 2 * value // HEAD)
            yield from norm(f"{layer}.ssm_norm", HEAD)
            yield from linear(f"{layer}.ssm_out", value, EMBEDDING)
        else:
            yield from attention(layer, qk_norm=True, gated=True)
        yield from experts(layer)
        yield f"{layer}.ffn_gate_inp_shexp.weight", (EMBEDDING,)
        yield from forward(layer, "_shexp")


RMS: Metadata = {"attention.layer_norm_rms_epsilon": 1e-6}
LAYER_NORM: Metadata = {"attention.layer_norm_epsilon": 1e-5}
ATTENTION: Metadata = {
    "attention.head_count": HEADS,
    "attention.head_count_kv": HEADS_KV,
    "attention.key_length": HEAD,
    "attention.value_length": HEAD,
    "rope.dimension_count": HEAD,
}
MIXTURE: Metadata = {"expert_count": EXPERTS, "expert_used_count": EXPERTS_USED, "expert_feed_forward_length": FORWARD}
CAPPED: Metadata = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "attention.sliding_window": WINDOW}
"""Caps low enough to bend what these weights give."""
GEMMA3: Metadata = {"block_count": GEMMA3_LAYERS, "attention.sliding_window": WINDOW, "rope.freq_base": 1e6}
STATE_SPACE: Metadata = {"ssm.conv_kernel": 4, "ssm.inner_size": 128, "ssm.state_size": 16, "ssm.time_step_rank": 4}
STATE_HEADS: Metadata = STATE_SPACE | {"ssm.state_size": 32, "ssm.time_step_rank": 8, "ssm.group_count": 2}
DELTA_NET: Metadata = {
    "ssm.conv_kernel": 4,
    "ssm.inner_size": 4 * HEAD,
    "ssm.state_size": HEAD,
    "ssm.time_step_rank": 4,
    "ssm.group_count": 2,
    "full_attention_interval": 2,
    "expert_shared_feed_forward_length": FORWARD,
}
RWKV6: Metadata = {"wkv.head_size": 2 * HEAD, "time_mix_extra_dim": 8, "time_decay_extra_dim": 8, "rescale_every_n_layers": 2}
RANKS = ("decay", "iclr", "value_residual_mix", "gate")
# one head: upstream's kernel computes sizes below 64 wrongly on x86 with AVX-512 (ops/rwkv_wkv7.py)
RWKV7: Metadata = {"wkv.head_size": EMBEDDING, **{f"attention.{name}_lora_rank": 8 for name in RANKS}}

MODELS: dict[str, tuple[Callable[[], Shapes], Metadata]] = {
    "llama": (llama, RMS | ATTENTION),
    "qwen2vl": (qwen2vl, RMS | ATTENTION | {"rope.dimension_sections": [2, 3, 3, 0]}),
    "gemma2": (gemma2, RMS | ATTENTION | CAPPED),
    "gemma3": (gemma3, RMS | ATTENTION | GEMMA3),
    "bloom": (bloom, LAYER_NORM | {"attention.head_count": HEADS}),
    "qwen3moe": (qwen3moe, RMS | ATTENTION | MIXTURE),
    "gpt-oss": (gpt_oss, RMS | ATTENTION | MIXTURE | {"attention.sliding_window": WINDOW}),
    "mamba": (mamba, RMS | STATE_SPACE),
    "mamba2": (mamba2, RMS | STATE_HEADS),
    "rwkv6": (rwkv6, LAYER_NORM | RWKV6),
    "rwkv7": (rwkv7, LAYER_NORM | RWKV7),
    "qwen3next": (qwen3next, RMS | ATTENTION | MIXTURE | DELTA_NET),
}
"""For each architecture: its tensors, and the metadata beside what all have."""


LETTERS = "\u2581abcdefghijklmnopqrstuvwxyz.,!?-ABCDEFGHI"
"""Tokens of the vocabulary beside the special ones and those of single bytes; the first stands for a space."""


def add_vocabulary(writer: gguf.GGUFWriter) -> None:
    """Give a model a vocabulary of SentencePiece's kind: three special tokens, 256 bytes, letters."""
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *LETTERS]
    assert len(texts) == VOCABULARY
    writer.add_tokenizer_model("llama")
    writer.add_token_list(texts)
    writer.add_token_scores([0.0] * 259 + [-1.0] * len(LETTERS))
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(LETTERS))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_space_prefix(False)


def write(architecture: str, path: Path, *, vocabulary: bool = False) -> None:
    """Write the model of an architecture as a GGUF file."""
    shapes, metadata = MODELS[architecture]
    common = {"context_length": 512, "embedding_length": EMBEDDING, "block_count": LAYERS, "feed_forward_length": FORWARD}
    writer = gguf.GGUFWriter(path, architecture)
    if vocabulary:
        add_vocabulary(writer)
    else:
        writer.add_tokenizer_model("none")
    for key, value in (common | {"vocab_size": VOCABULARY} | metadata).items():
        match value:
            case float():
                writer.add_float32(f"{architecture}.{key}", value)
            case int():
                writer.add_uint32(f"{architecture}.{key}", value)
            case list():
                writer.add_array(f"{architecture}.{key}", value)
    for name, ne in shapes():
        # a seed of its own for each tensor: adding one does not change the others
        random = np.random.default_rng(zlib.crc32(f"{architecture} {name}".encode()))
        writer.add_tensor(name, weights(name, ne, random))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def weights(name: str, ne: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Random values of the size that the tensor's part in the model asks for, in numpy's order of dimensions."""
    drawn = random.standard_normal(tuple(reversed(ne)), np.float32)
    if name.endswith("ssm_a"):  # the state decays at this rate
        return -np.exp(drawn)
    if name == "rope_freqs.weight":
        return np.exp(np.abs(drawn))
    if ("norm" in name and name.endswith(".weight")) or name.endswith("_ln.weight"):
        return 1 + drawn / 10
    if name.endswith(".bias") or len([extent for extent in ne if extent > 1]) == 1:
        return drawn / 4
    if name == "output.weight":
        return drawn * np.float32(4 / np.sqrt(ne[0]))
    return drawn / np.float32(np.sqrt(ne[0]))
