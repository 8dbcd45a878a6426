"""bench/device_check.py on a GPU made of threads: what a person with a GPU runs, as far as it goes without one."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from bench import device_check
from ggml_rpc_ref.backends.cuda import Cuda, compiler
from tests.support.gpu import compile_kernels
from tests.support.gpu.devices import Card


def test_a_good_device_is_right_and_measured() -> None:
    card = Card(limit=2**28)
    rng = np.random.default_rng(0)
    drawn = [device_check.draw(rng, number) for number in (3, 4, 5)]
    chosen = [
        ("random shapes", lambda backend, _: device_check.judged("random shapes", backend, iter(drawn), 60), 1.0),
        ("transfers", device_check.moving, 1.0),
        ("a vector", device_check._vector("Q8_0", 32, 4), 1.0),
        ("a fault", device_check.fault, 1.0),
    ]
    rows = list(device_check.check(card.backend, chosen, 600))
    assert [(row.part, row.state) for row in rows] == [
        ("random shapes", "right"), ("transfers", "right"), ("a vector", "measured"), ("a fault", "right"),
    ]  # fmt: skip
    assert rows[0].figures["taken"] == 3
    assert len(card.contexts) == 2


def test_a_wrong_kernel_is_a_wrong_row_and_the_rest_goes_on(tmp_path: Path) -> None:
    kernels = shutil.copytree(compiler.DIRECTORY, tmp_path / "kernels")
    (kernels / "scale.cu").write_text((kernels / "scale.cu").read_text().replace("x * factor :", "x + factor :"))
    card = Card(path=compile_kernels(tmp_path / "wrong.so", kernels, ["scale"]))
    scales = [(f"SCALE {case.id}", device_check.node_of("SCALE", case), None) for case in islice(device_check.cases_of("SCALE"), 3)]

    def broken(*_: object) -> device_check.Row:
        raise ValueError("oh")

    chosen = [
        ("scale", lambda backend, _: device_check.judged("scale", backend, iter(scales), 60), 1.0),
        ("broken", broken, 1.0),
    ]
    rows = list(device_check.check(card.backend, chosen, 600))
    assert [row.state for row in rows] == ["wrong", "wrong"]
    assert "wrong, the first: SCALE" in rows[0].text
    assert rows[1].text == "ValueError: oh"


def test_attention_is_timed_by_its_fast_kernels_beside_a_copy() -> None:
    card = Card(limit=2**28)
    chosen = [("a token", device_check._attention(256, 2**16), 1.0), ("a prompt", device_check._prompt(64, 4), 1.0)]
    token, prompt = device_check.check(card.backend, chosen, 600)
    assert (token.state, prompt.state) == ("measured", "measured")
    assert "by flash_attn_ext_few_4, " in token.text
    assert token.text.endswith(f"{token.figures['bytes_per_second'] / token.figures['copying']:.2f} of a copy's rate in this run")
    assert prompt.text.endswith("by flash_attn_ext_tile_128")
    assert prompt.figures["flops"] > 0


def test_products_are_timed_by_wgmma_and_by_what_takes_its_place() -> None:
    card, named = Card(limit=2**28), dict(device_check.figures(128))
    chosen = [(name, named[name], 1.0) for name in ("F16 product, 64³", "F16 product by mma.sync, 64³")]
    for row, kernel in zip(device_check.check(card.backend, chosen, 600), ("wgmma_f16_128", "tile_f16"), strict=True):
        assert row.state == "measured"
        assert f" TFLOP/s by mul_mat_{kernel}" in row.text
        assert row.figures["flops"] > 0


def test_products_by_mma_sync_are_checked_too() -> None:
    card = Card(limit=2**28)
    row = device_check.tiles(card.backend, 1)
    assert row.state == "right"
    assert any(kernel.startswith("mul_mat_tile") for kernel in card.gpu.launched)
    assert not any("wgmma" in kernel for kernel in card.gpu.launched)


def test_every_op_with_a_kernel_is_checked() -> None:
    """Those too that only the newest version has."""
    assert [name for name in Cuda.KERNELS if next(device_check.cases_with_elements(name), None) is None] == []
    assert len(Cuda.KERNELS) == 92


def test_what_there_is_no_time_for_is_said() -> None:
    rows = list(device_check.check(Card().backend, [("transfers", device_check.moving, 1.0)], -1))
    assert [(row.state, row.text) for row in rows] == [("not done", "-1 s were over")]


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["device_check.py"])
    monkeypatch.setattr("ggml_rpc_ref.backends.cuda.unavailable", lambda index: "there is none")
    assert device_check.main() == 2
    assert capsys.readouterr().err == "device_check: cuda:0 can't be used: there is none\n"
