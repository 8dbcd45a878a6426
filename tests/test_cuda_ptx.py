"""What nvcc makes of the kernels, run instruction by instruction on a GPU made of threads, held to the oracle.

The other tests of kernels have g++ compile them, with twins in place of inline PTX. Here nothing of a kernel is replaced: what is
wrong in its inline PTX, or is made of it by nvcc, is seen. Most cases are recorded ones, so that results are the genuine library's.
"""

from __future__ import annotations

import ctypes
import re
import struct
from collections.abc import Iterator
from functools import cache
from itertools import chain

import pytest

from ggml_rpc_ref.backends import DeviceFault
from ggml_rpc_ref.backends.cuda import compiler, products
from ggml_rpc_ref.backends.cuda.backend import Cuda
from ggml_rpc_ref.backends.cuda.device import Launch
from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.ops.tolerance import Tolerance
from tests.support.gpu import Emulated
from tests.support.gpu.devices import Card
from tests.support.gpu.judge import judge
from tests.support.gpu.ptx import Interpreted, text
from tests.test_cuda_attention import odd as odd_attention
from tests.test_cuda_attention import some as some_attention
from tests.test_cuda_kernels import COMPUTED, ORDERS, SHUFFLED, cases, node_of
from tests.test_cuda_products import DEVICES, near
from tests.test_cuda_products import some as some_products

pytestmark = pytest.mark.skipif(compiler.nvcc() is None, reason="nvcc is not here")


def interpreted(order: int, total: int, capability: int, processors: int) -> Emulated:
    return Interpreted(order, total, capability, processors)


@cache
def on(capability: int, order: int, processors: int = 4) -> Cuda:
    return Card(order, capability=capability, processors=processors, make=interpreted).backend


# ------------------------------------------------------------------------------------------------------------- the kernels


def recorded(name: str, backend: Cuda) -> int:
    """Return how many recorded cases of an op a GPU computes."""
    taken = 0
    for case, version in cases(name):
        try:
            taken += judge(backend, node_of(name, case, version), case.tolerance)
        except AssertionError as error:
            raise AssertionError(f"{case.id}: {error}") from None
    return taken


@pytest.mark.parametrize("name", COMPUTED)
def test_recorded_results_on_hopper(name: str) -> None:
    assert recorded(name, on(90, SHUFFLED)) == COMPUTED[name]


OTHERWISE = ("FLASH_ATTN_EXT", "MUL_MAT", "MUL_MAT_ID")
"""Ops whose kernels are others on older cards."""


@pytest.mark.parametrize("capability", [75, 80])
@pytest.mark.parametrize("name", OTHERWISE)
def test_recorded_results_on_older_cards(name: str, capability: int) -> None:
    assert recorded(name, on(capability, SHUFFLED)) == COMPUTED[name]


@pytest.mark.parametrize("device", DEVICES)
def test_recorded_products_in_tensor_cores(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of few rows too, which other kernels compute otherwise."""
    monkeypatch.setattr(products, "FEW", 0)
    card = Card(SHUFFLED, capability=DEVICES[device][0], processors=DEVICES[device][1], make=interpreted)
    assert recorded("MUL_MAT", card.backend) == COMPUTED["MUL_MAT"]


def nodes() -> Iterator[tuple[int, int, Node, Tolerance | None]]:
    """Yield (capability, multiprocessors, node, tolerance) that together reach every line of the kernels with inline PTX."""
    for device, node in some_products():
        yield (*DEVICES[device], node, near(node))
    for node, tolerance in chain(some_attention(), odd_attention()):
        yield 90, 4, node, tolerance


@pytest.mark.parametrize("order", ORDERS)
def test_tiles_and_attention_in_any_order_of_threads(order: int) -> None:
    for capability, processors, node, tolerance in nodes():
        assert judge(on(capability, order, processors), node, tolerance), (capability, processors)


INLINE = (
    r"cvt\.rn\.bf16x2\.f32", r"prefetch\.\S+", r"dp4a\.\S+", r"cp\.async\.[^\s;]+", r"ldmatrix\.\S+", r"mma\.sync\.\S+",
    r"mbarrier\.\S+", r"fence\.[^\s;]+", r"wgmma\.[^\s;]+",
)  # fmt: skip
"""What stands in the kernels as PTX, or as a function that is one instruction."""


def test_all_that_is_written_in_ptx_was_run(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {device: Card(SHUFFLED, capability=device[0], processors=device[1], make=interpreted) for device in DEVICES.values()}
    for capability, processors, node, tolerance in nodes():
        if (capability, processors) in cards:
            assert judge(cards[capability, processors].backend, node, tolerance)
    for name in OTHERWISE:
        recorded(name, cards[80, 4].backend)
    monkeypatch.setattr(products, "FEW", 0)
    for card in cards.values():
        recorded("MUL_MAT", card.backend)
    written = re.compile(rf"(?<=\s)({'|'.join(INLINE)})(?=[\s;])")
    there = {match[0] for name in OTHERWISE for match in written.finditer(text(name.lower(), 90).decode())}
    run = {opcode for card in cards.values() for gpu in card.contexts if isinstance(gpu, Interpreted) for opcode in +gpu.counts()}
    assert len(there) > 20
    assert there <= run, there - run


# --------------------------------------------------------------------------------------------------- texts that are wrong

MMA = r"(mma\.sync\S+ \{[^}]*\}, \{)(%r\d+),(%r\d+),(%r\d+),(%r\d+)(\}, \{)(%r\d+),(%r\d+)\}"
SABOTAGES = {
    "halves of A exchanged": ("mul_mat", MMA, r"\1\2,\4,\3,\5\6\7,\8}"),
    "halves of B exchanged": ("mul_mat", MMA, r"\1\2,\3,\4,\5\6\8,\7}"),
    "fragments in another order": ("mul_mat", r"(ldmatrix\S+ \{)(%r\d+),(%r\d+),(%r\d+),(%r\d+)\}", r"\1\2,\4,\3,\5}"),
    "fragments that lie the other way": ("flash_attn_ext", r"ldmatrix(\S+)\.trans", r"ldmatrix\1"),
    "another lane of the warp": ("flash_attn_ext", r"shfl\.sync\.bfly", "shfl.sync.idx"),
    "a copy to another place": (
        "mul_mat",
        r"(cp\.async\.cg\S+) \[(%r\d+)\]([^;]*;)",
        r"{ .reg .b32 other; add.s32 other, \2, 16; \1 [other]\3 }",
    ),
    "a copy of what comes next": (
        "mul_mat",
        r"(cp\.async\.cg\S+ \[%r\d+\]), \[(%rd\d+)\]([^;]*;)",
        r"{ .reg .b64 other; add.s64 other, \2, 16; \1, [other]\3 }",
    ),
    "copies waited for too late": ("mul_mat", r"cp\.async\.wait_group 1", "cp.async.wait_group 2"),
    "copies that nobody waits for": ("mul_mat", r"cp\.async\.wait_group \d;", ""),
    "a barrier too few": ("flash_attn_ext", r"bar\.sync\s+0;", ""),
    "numbers exchanged in a pair": ("flash_attn_ext", r"(cvt\.rn\.b?f16x2\.f32 )(\S+), (\S+), (\S+);", r"\1\2, \4, \3;"),
    "rows exchanged": ("mul_mat", r"(wgmma\.mma_async[^}]*\}, )(\S+), (\S+),", r"\1\3, \2,"),
    "products waited for too late": ("mul_mat", r"wgmma\.wait_group\.sync\.aligned 1", "wgmma.wait_group.sync.aligned 2"),
    "products that are not fenced": ("mul_mat", r"wgmma\.fence\.sync\.aligned;", ""),
    "products of no group": ("mul_mat", r"wgmma\.commit_group\.sync\.aligned;", ""),
    "a box that begins elsewhere": ("mul_mat", r"(tensor\.4d\S+ \[%r\d+\], \[%rd\d+, \{)(%r\d+), (%r\d+)", r"\1\3, \2"),
    "a barrier of another parity": ("mul_mat", r"(try_wait\S+ over, \[%r\d+\], )%r\d+", r"\g<1>0"),
    "an arrival that announces nothing": ("mul_mat", r"arrive\.expect_tx(\S+) _, (\[%r\d+\]), %r\d+", r"arrive\1 _, \2"),
    "barriers that copies can't see": ("mul_mat", r"fence\.proxy\.async\.shared::cta;", ""),
}
"""What is wrong, to the op, what its text has in many places, and what stands in all of them instead."""


def fails(backend: Cuda, node: Node, tolerance: Tolerance | None) -> bool:
    try:
        return not judge(backend, node, tolerance)
    except (AssertionError, DeviceFault):
        return True


@pytest.mark.parametrize("what", SABOTAGES)
def test_a_wrong_text_is_found(what: str) -> None:
    op, right, wrong = SABOTAGES[what]

    def changed(order: int, total: int, capability: int, processors: int) -> Emulated:
        new, count = re.subn(right, wrong, text(op, capability).decode())
        assert count
        return Interpreted(order, total, capability, processors, {op: new.encode()})

    found = False
    for capability, processors, node, tolerance in nodes():
        if (op == "mul_mat") == (node.op.name == "MUL_MAT") and not found and re.search(right, text(op, capability).decode()):
            for order in ORDERS:
                card = Card(order, capability=capability, processors=processors, make=changed)
                found = found or fails(card.backend, node, tolerance)
                card.gpu.close()
    assert found, "nobody noticed"


# ------------------------------------------------------------------------------------------------------- the interpreter

HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"


def program(body: str, registers: str = "", more: str = "") -> bytes:
    """Return a kernel that begins with %rd1, where its results go, which is what it is given."""
    return f"""{HEAD}{more}
    .visible .entry kernel_made(.param .u64 kernel_made_param_0)
    {{ .reg .pred %p<9>; .reg .b16 %rs<9>; .reg .b32 %r<9>; .reg .f32 %f<9>; .reg .f64 %fd<9>; .reg .b64 %rd<9>; {registers}
       ld.param.u64 %rd1, [kernel_made_param_0]; {body} ret; }}""".encode()


def results(body: str, size: int = 8, threads: int = 32, **more: str) -> bytes:
    """Run a kernel of one block; return what it wrote."""
    gpu = Interpreted(texts={"made": program(body, **more)})
    room = gpu.allocate(max(size, 16))
    try:
        graph = gpu.record([Launch("made", "made", (1, 1, 1), threads, 0, struct.pack("<Q", room))])
        graph.start()
        graph.wait()
        return ctypes.string_at(room, size)
    finally:
        gpu.close()


def bits(number: float) -> str:
    return f"0f{struct.unpack('<I', struct.pack('<f', number))[0]:08X}"


NAN = "0f7FC00000"
MEANINGS = [
    # prmt: bytes 0 to 3 of a, 4 to 7 of b; 8 more repeats the sign
    ("prmt.b32 %r1, 0x03020100, 0x87060504, 0x7420;", "r1", 0x87040200),
    ("prmt.b32 %r1, 0x03020100, 0x87060504, 0xF8F0;", "r1", 0xFF00FF00),
    ("mov.b32 %r2, 0xFFFFFFFF; bfi.b32 %r1, 0, %r2, 8, 4;", "r1", 0xFFFFF0FF),
    ("bfi.b32 %r1, 0x1FF, 0, 28, 8;", "r1", 0xF0000000),
    ("shl.b32 %r1, 1, 32;", "r1", 0),
    ("shr.s32 %r1, -8, 40;", "r1", 0xFFFFFFFF),
    ("shr.u32 %r1, -8, 28;", "r1", 15),
    ("mul.wide.s32 %rd2, -3, 5;", "rd2", 2**64 - 15),
    ("mul.hi.u32 %r1, -1, -1;", "r1", 0xFFFFFFFE),
    ("mul.hi.s32 %r1, -1, 1;", "r1", 0xFFFFFFFF),
    ("mul.hi.u64 %rd2, -1, -1;", "rd2", 2**64 - 2),
    ("mad.wide.u32 %rd2, -1, 2, 3;", "rd2", 2**33 + 1),
    ("div.s32 %r1, -7, 2;", "r1", 2**32 - 3),
    ("rem.s32 %r1, -7, 2;", "r1", 2**32 - 1),
    ("add.cc.u32 %r2, -1, 1; addc.u32 %r1, 5, 0;", "r1", 6),
    ("sub.cc.u32 %r2, 0, 1; subc.u32 %r1, 5, 0;", "r1", 4),
    ("mad.lo.cc.u32 %r2, -1, 1, 1; madc.hi.u32 %r1, -1, 2, 0;", "r1", 2),
    ("popc.b32 %r1, 0xF0F1;", "r1", 9),
    ("clz.b32 %r1, 1;", "r1", 31),
    ("clz.b64 %r1, 0;", "r1", 64),
    ("brev.b32 %r1, 1;", "r1", 2**31),
    ("dp4a.s32.s32 %r1, 0x01FF0203, 0x05040302, 10;", "r1", 5 - 4 + 6 + 6 + 10),
    ("mov.u16 %rs1, 0xFF; cvt.s32.s8 %r1, %rs1;", "r1", 2**32 - 1),
    ("mov.u16 %rs1, 0xFFFE; cvt.u32.u16 %r1, %rs1;", "r1", 0xFFFE),
    (f"cvt.rni.s32.f32 %r1, {bits(2.5)};", "r1", 2),
    (f"cvt.rzi.s32.f32 %r1, {bits(-2.5)};", "r1", 2**32 - 2),
    (f"cvt.rmi.s32.f32 %r1, {bits(-2.5)};", "r1", 2**32 - 3),
    (f"cvt.rpi.s32.f32 %r1, {bits(2.5)};", "r1", 3),
    (f"cvt.rzi.s32.f32 %r1, {bits(3e9)};", "r1", 2**31 - 1),
    (f"cvt.rzi.u32.f32 %r1, {bits(-3.0)};", "r1", 0),
    (f"cvt.rzi.s32.f32 %r1, {NAN};", "r1", 0),
    (f"cvt.rzi.s64.f32 %rd2, {NAN};", "rd2", 2**63),
    (f"cvt.sat.f32.f32 %f1, {bits(7.0)};", "f1", 1.0),
    (f"cvt.sat.f32.f32 %f1, {NAN};", "f1", 0.0),
    (f"cvt.rn.bf16x2.f32 %r1, {bits(1.0)}, {bits(-2.0)};", "r1", 0x3F80C000),
    (f"cvt.rn.f16x2.f32 %r1, {bits(0.0)}, {bits(65520.0)};", "r1", 0x7C00),
    (f"cvt.rn.f16x2.f32 %r1, {bits(1.0)}, {bits(2**-24)};", "r1", 0x3C000001),
    # 2049 lies in the middle of two halves: to the even one
    (f"cvt.rn.f16x2.f32 %r1, {bits(2051.0)}, {bits(2049.0)};", "r1", 0x68026800),
    (f"fma.rn.f32 %f1, {bits(1 + 2**-12)}, {bits(1 + 2**-12)}, {bits(-1 - 2**-11)};", "f1", 2**-24),
    (f"fma.rm.f32 %f1, {bits(1.0)}, {bits(1.0)}, {bits(2**-30)};", "f1", 1.0),
    (f"fma.rm.f32 %f1, {bits(1.0)}, {bits(1.0)}, {bits(-(2**-30))};", "f1", 1 - 2**-24),
    (f"add.rz.f32 %f1, {bits(1.0)}, {bits(-(2**-30))};", "f1", 1 - 2**-24),
    (f"add.rn.f32 %f1, {bits(1.0)}, {bits(-(2**-30))};", "f1", 1.0),
    (f"min.f32 %f1, {NAN}, {bits(3.0)};", "f1", 3.0),
    (f"max.f32 %f1, {bits(3.0)}, {NAN};", "f1", 3.0),
    (f"copysign.f32 %f1, {bits(-0.0)}, {bits(3.0)};", "f1", -3.0),
    (f"neg.f32 %f1, {bits(3.0)};", "f1", -3.0),
    (f"setp.gt.f32 %p1, {NAN}, {bits(1.0)}; selp.u32 %r1, 1, 0, %p1;", "r1", 0),
    (f"setp.gtu.f32 %p1, {NAN}, {bits(1.0)}; selp.u32 %r1, 1, 0, %p1;", "r1", 1),
    (f"setp.ne.f32 %p1, {NAN}, {bits(1.0)}; selp.u32 %r1, 1, 0, %p1;", "r1", 0),
    (f"setp.neu.f32 %p1, {NAN}, {bits(1.0)}; selp.u32 %r1, 1, 0, %p1;", "r1", 1),
    (f"setp.num.f32 %p1, {NAN}, {bits(1.0)}; selp.u32 %r1, 1, 0, %p1;", "r1", 0),
    ("setp.lt.s32 %p1|%p2, -1, 1; @!%p2 mov.u32 %r1, 7; @%p2 mov.u32 %r1, 8;", "r1", 7),
    ("setp.lt.u32 %p1, -1, 1; mov.u32 %r1, 1; @%p1 bra away; mov.u32 %r1, 2; away:", "r1", 2),
    ("mov.b64 {%r2, %r1}, 0x500000004;", "r1", 5),
    ("mov.b64 %rd2, {4, 5};", "rd2", 0x500000004),
    ("{ .reg .b32 %r<3>; mov.u32 %r2, 9; } mov.u32 %r2, 8; mov.u32 %r1, %r2;", "r1", 8),
    ("mov.u32 %r2, %tid.x; shfl.sync.down.b32 %r1|%p1, %r2, 1, 31, -1; @!%p1 mov.u32 %r1, 1000;", "r1", 1),
    ("mov.u32 %r2, %tid.x; xor.b32 %r3, %r2, 5; shfl.sync.idx.b32 %r1, %r3, 9, 31, -1;", "r1", 12),
    ("mov.u32 %r2, %tid.x; setp.eq.s32 %p1, %r2, 31; vote.sync.any.pred %p2, %p1, -1; selp.u32 %r1, 1, 0, %p2;", "r1", 1),
    ("mov.u32 %r2, %tid.x; setp.lt.u32 %p1, %r2, 3; vote.sync.ballot.b32 %r1, %p1, -1;", "r1", 7),
]


@pytest.mark.parametrize(
    ("body", "register", "expected"), MEANINGS, ids=[re.sub(r"\s.*", "", m[0]) + f"-{k}" for k, m in enumerate(MEANINGS)]
)
def test_an_instruction_does_what_the_isa_says(body: str, register: str, expected: float) -> None:
    kind, form = {"r": ("u32", "<I"), "rd": ("u64", "<Q"), "f": ("f32", "<f")}[register.rstrip("0123456789")]
    # the first lane's: all write to one place, the last comes last
    got = results(f"{body} mov.u32 %r8, %tid.x; setp.eq.u32 %p8, %r8, 0; @%p8 st.global.{kind} [%rd1], %{register};")
    assert struct.unpack_from(form, got) == (expected,)


def test_functions_tables_and_shared_memory() -> None:
    """A call within a call with local memory, a table, static shared memory behind which the dynamic one begins, a vector."""
    more = """
    .global .align 2 .b8 table[4] = {7, 0, 9, 1};
    .extern .shared .align 16 .b8 dynamic[];
    .func (.param .b32 func_retval0) doubled(.param .b32 doubled_param_0)
    { .reg .b32 %r<4>; .reg .b64 %rd<4>; .local .align 4 .b8 depot[8];
      mov.u64 %rd1, depot; ld.param.u32 %r1, [doubled_param_0]; st.local.u32 [%rd1+4], %r1; ld.local.u32 %r2, [%rd1+4];
      add.s32 %r3, %r1, %r2; st.param.b32 [func_retval0+0], %r3; ret; }
    """
    body = """
    .shared .align 4 .b8 kept[12];
    mov.u64 %rd2, table; ld.global.u16 %r1, [%rd2+2];
    { .param .b32 param0; st.param.b32 [param0+0], %r1; .param .b32 retval0;
      call.uni (retval0), doubled, (param0); ld.param.b32 %r2, [retval0+0]; }
    mov.u32 %r3, kept; mov.u32 %r4, dynamic; sub.s32 %r5, %r4, %r3;
    st.shared.u32 [kept+8], %r2; bar.sync 0; ld.shared.u32 %r6, [%r3+8];
    mov.u32 %r7, 5;
    st.global.v4.u32 [%rd1], {%r6, %r5, %r1, %r7};
    """
    assert struct.unpack("<4I", results(body, 16, more=more)) == (2 * 265, 16, 265, 5)


FAULTS = {
    "a misaligned address": "ld.global.u32 %r1, [%rd1+2];",
    "an illegal address": "mov.u64 %rd2, 0x7000000000; ld.global.u32 %r1, [%rd2];",
    "an address that is not in shared memory": "mov.u32 %r1, 0x40000; ld.shared.u32 %r2, [%r1];",
    "a place in shared memory": ".shared .align 4 .b8 x[4]; mov.u64 %rd2, x; ld.global.u32 %r1, [%rd2];",
    "another state space": ".shared .align 4 .b8 x[4]; mov.u64 %rd2, x; cvta.shared.u64 %rd2, %rd2; st.global.u32 [%rd2], 1;",
    "a write beyond dynamic shared memory": ".shared .align 4 .b8 x[4]; mov.u32 %r1, x; st.shared.u32 [%r1+16], 1;",
    "a trap": "trap;",
    "which has ended": "mov.u32 %r1, %tid.x; setp.eq.u32 %p1, %r1, 3; @%p1 ret; bar.sync 0;",
    "without all its lanes": "vote.sync.any.pred %p1, %p2, 1;",
}


@pytest.mark.parametrize("words", FAULTS)
def test_a_fault_ends_the_launch_with_a_sentence(words: str) -> None:
    with pytest.raises(DeviceFault, match=words):
        results(FAULTS[words])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("frob.u32 %r1, %r2;", "an instruction that is not known: frob.u32 %r1, %r2 in kernel_made"),
        ("add.sat.s32 %r1, %r2, %r3;", "an instruction that is not known: add.sat.s32"),
        ("setp.lt.and.s32 %p1, %r2, %r3, %p2;", "an instruction that is not known: setp.lt.and.s32"),
        ("mov.u32 %r1, %smid;", "a register that is not known: %smid"),
        ("mov.u32 %r1, nothing;", "an operand that is not known: nothing"),
        ("bra nowhere;", "a label that is not known: nowhere"),
        ("ld.global.u32 %r1, [%rd77];", "an address that is not known: %rd77"),
        ("mov.u32 %r9, 1;", "an operand that is not known: %r9"),
    ],
)
def test_what_is_not_known_is_refused(body: str, words: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(words)):
        results(body)
