"""Inputs worth trying on FLASH_ATTN_EXT."""

import math
from collections.abc import Iterator
from dataclasses import replace

from ggml_rpc_ref.ops.cases.case import Case, Operand, since, until
from ggml_rpc_ref.ops.cases.shared.matmul import weights
from ggml_rpc_ref.ops.shared.matmul import WEIGHTS
from ggml_rpc_ref.ops.tolerance import Tolerance

HALF = Tolerance(1e-3, 1e-4, 1e-4, "Q is rounded to K's partner type, an F16 V is summed in F16 over the keys")

EIGHTH = Tolerance(nmse=5e-4, reason="Q is quantised to K's partner type before the scores")


def attention(
    id: str, q: Operand, k: Operand, v: Operand, mask: Operand | None = None, sinks: Operand | None = None, **params: float
) -> Case:
    """Return a case whose destination follows from its operands; scale is 1/sqrt(dk) unless given."""
    dk, n, heads, batch = q.quad
    dst = Operand("F32", (v.ne[0], heads, n, batch))
    scale = {"scale": 1 / max(dk, 1) ** 0.5, "max_bias": 0.0, "logit_softcap": 0.0}
    plain = k.dtype in ("F32", "F16", "BF16") and v.dtype in ("F32", "F16", "BF16")
    return Case(id, dst, (q, k, v, mask, sinks), scale | params, HALF if plain else EIGHTH)


def cases() -> Iterator[Case]:
    """Types, head sizes, shared heads, masks, slopes, cap, sinks, one query and many, views, hidden keys, special values."""
    q, k, v = Operand("F32", (32, 3, 4)), Operand("F16", (32, 17, 2)), Operand("F16", (32, 17, 2))
    for name in WEIGHTS:
        kv, gentle = weights(name, (256, 9)), 1 / 512 if name.startswith("IQ") else 1 / 16
        yield attention(f"{name.lower()}", Operand("F32", (256, 2, 2)), kv, kv, scale=gentle)
    yield attention("k-q8_0-v-f16", q, Operand("Q8_0", (32, 17, 2)), v)
    yield attention("k-f16-v-q4_0", q, k, Operand("Q4_0", (32, 17, 2)))
    yield attention("k-bf16-v-f32", q, Operand("BF16", (32, 17, 2)), Operand("F32", (32, 17, 2)))
    for dk, dv in ((1, 1), (8, 8), (40, 40), (64, 64), (80, 80), (192, 128), (256, 256), (72, 24)):
        yield attention(f"dk{dk}-dv{dv}", Operand("F32", (dk, 2, 2)), Operand("F16", (dk, 33)), Operand("F16", (dv, 33)))
    yield from _mask_cases(q, k, v)
    yield from _many_query_cases()
    yield from _view_cases()
    yield from _special_cases(q, k, v)


def _mask_cases(q: Operand, k: Operand, v: Operand) -> Iterator[Case]:
    mask, far, sinks = Operand("F16", (17, 3), fill="mask"), Operand("F16", (17, 3), fill="uniform:-8:0"), Operand("F32", (4,))
    yield attention("mask", q, k, v, mask)
    yield attention("mask-values", q, k, v, Operand("F16", (17, 3)))
    yield attention("mask-padded", q, k, v, Operand("F16", (32, 64), fill="mask"))
    yield attention("mask-heads", q, k, v, Operand("F16", (17, 3, 2), fill="mask"))
    yield attention("alibi", q, k, v, far, max_bias=8.0)
    yield attention("alibi-heads", q, k, v, Operand("F16", (17, 3, 4), fill="uniform:-8:0"), max_bias=2.0)
    yield attention("alibi-heads-shared", q, k, v, Operand("F16", (17, 3, 2), fill="uniform:-8:0"), max_bias=4.0)
    six = Operand("F32", (32, 3, 6))
    yield attention("alibi-six", six, k, v, far, max_bias=8.0)
    yield attention("softcap", q, k, v, mask, logit_softcap=2.0)
    yield attention("softcap-alibi-sinks", q, k, v, far, sinks, logit_softcap=10.0, max_bias=8.0)
    yield attention("sinks", q, k, v, None, sinks)
    yield attention("sinks-mask", q, k, v, mask, sinks)
    masked_out = attention("masked-out", q, k, v, Operand("F16", (17, 3), fill="values:-inf"))
    yield from since("FLASH_ATTN_EXT.hidden", [masked_out])
    yield from until("FLASH_ATTN_EXT.hidden", [replace(masked_out, id="masked-out-nan")])
    yield attention("masked-out-sinks", q, k, v, Operand("F16", (17, 3), fill="values:-inf"), sinks)
    batch = Operand("F32", (32, 3, 4, 2))
    kv = Operand("F16", (32, 17, 2, 2))
    yield attention("mask-batch", batch, kv, kv, Operand("F16", (17, 3, 1, 2), fill="mask"))
    yield attention("mask-batch-shared", batch, kv, kv, Operand("F16", (17, 3, 2, 1), fill="mask"))


def _many_query_cases() -> Iterator[Case]:
    """64 queries and more, and one query over 512 keys and more: upstream's other two ways."""
    for name in ("F32", "F16"):
        kv, mask = Operand(name, (32, 70)), Operand("F16", (70, 67), fill="mask")
        q, sinks = Operand("F32", (32, 64, 2)), Operand("F32", (2,))
        full = Operand(name, (32, 128))
        yield attention(f"queries-64-{name.lower()}", q, kv, kv, None, sinks)
        yield attention(f"queries-64-softcap-{name.lower()}", q, full, full, None, sinks, logit_softcap=4.0)
        yield attention(f"queries-67-{name.lower()}", Operand("F32", (32, 67, 2)), kv, kv, mask)
        long = Operand(name, (16, 515, 2))
        yield attention(f"keys-515-{name.lower()}", Operand("F32", (16, 1, 4)), long, long)
        hidden = Operand("F16", (515, 1), fill="mask")
        yield attention(f"keys-515-mask-{name.lower()}", Operand("F32", (16, 1, 4)), long, long, hidden, Operand("F32", (4,)))


def _view_cases() -> Iterator[Case]:
    cache = Operand("F16", (32, 17, 2), nb=(2, 128, 64, 2176))
    yield attention("kv-permuted", Operand("F32", (32, 3, 4), nb=(4, 512, 128, 1536)), cache, cache)
    gaps = Operand("F32", (32, 17, 2), nb=(4, 160, 2800, 6000))
    yield attention("kv-gaps", Operand("F32", (32, 3, 4), nb=(4, 144, 448, 2000)), gaps, gaps)
    blocks = Operand("Q8_0", (32, 17, 2), nb=(34, 68, 34, 1156))
    yield attention("kv-q8_0-permuted", Operand("F32", (32, 3, 4)), blocks, blocks)
    yield attention("v-longer", Operand("F32", (32, 3, 4)), Operand("F16", (32, 17, 2)), Operand("F16", (32, 20, 2)))
    yield attention("v-heads-differ", Operand("F32", (32, 3, 4)), Operand("F16", (32, 17, 2)), Operand("F16", (32, 17, 4)))


def _special_cases(q: Operand, k: Operand, v: Operand) -> Iterator[Case]:
    yield attention("prec-f32", q, k, v, prec=10)
    yield attention("scale-zero", q, k, v, scale=0.0)
    yield attention("scale-large", q, k, v, scale=8.0)
    sound, hides = Operand("F32", (1, 8, 2)), Operand("F16", (8, 3), fill="values:0,1,0,0,-inf,0,2,0,1,0,0,0,0,1,0,2")
    for value in ("nan", "inf"):
        numbers = f"0.5,-1,2,1,1,-2,1.5,1,0.5,-1,2,1,{value},-2,1.5,1"  # key 4 of head 1, which only query 1 sees
        spoilt = Operand("F32", (1, 8, 2), fill=f"values:{numbers}")
        yield attention(f"spoilt-v-{value}", Operand("F32", (1, 3, 4)), sound, spoilt, hides)
    nan = Operand("F32", (1, 8, 2), fill="values:0.5,-1,2,1,1,-2,1.5,1,0.5,-1,2,1,nan,-2,1.5,1")
    yield attention("spoilt-k-nan", Operand("F32", (1, 3, 4)), nan, sound, hides)
    above = {name: Operand("F32", ne, fill="uniform:0.5:2") for name, ne in (("q", (8, 3, 4)), ("kv", (8, 5, 2)))}
    hidden, sinks = Operand("F16", (5, 3), fill="values:-inf,0,-inf,0,0,-inf,-inf,-inf,-inf,-inf,0,0,0,0,0"), Operand("F32", (4,))
    for words, mask, sink in (("", None, None), ("-mask", hidden, None), ("-sinks", None, sinks), ("-softcap", None, None)):
        cap = {"logit_softcap": 2.0} if words == "-softcap" else {}
        yield attention(f"scale-minus-inf{words}", above["q"], above["kv"], above["kv"], mask, sink, scale=-math.inf, **cap)
    # every length another one, so that no dimension can be taken for another
    yield attention("heads-apart", Operand("F32", (32, 3, 4)), Operand("F16", (32, 17, 4)), Operand("F16", (40, 19, 4)))
    yield attention("all-apart", Operand("F32", (8, 2, 6, 4)), Operand("F32", (8, 5, 3, 2)), Operand("F32", (12, 7, 2, 4)))
    yield attention("no-keys", q, Operand("F16", (32, 0, 2)), Operand("F16", (32, 0, 2)))
    yield attention("no-queries", Operand("F32", (32, 0, 4)), k, v)
