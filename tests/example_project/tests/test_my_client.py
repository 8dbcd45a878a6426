"""The tests of the example project's client: as a program, and as functions that a test calls."""

import my_client
import pytest

from ggml_rpc_ref.conformance.clients.script import EACH_BYTE, Change, End, Script, answering, fault
from ggml_rpc_ref.spec.messages import DeviceCountReply


def test_conformance(ggml_rpc_client_case):
    ggml_rpc_client_case()


def test_it_counts_the_devices(ggml_rpc_play):
    run = ggml_rpc_play()
    assert run.works
    assert run.commands() == {"HELLO": 1, "DEVICE_COUNT": 1}


def test_it_ends_with_an_error_where_the_server_leaves(ggml_rpc_play):
    run = ggml_rpc_play(fault("DEVICE_COUNT", lambda reply: b"", End.FIN))
    assert run.ended.status == 1
    assert run.ended.lines == ("the server has left",)


def test_the_function_counts_what_the_server_says(ggml_rpc_server):
    server = ggml_rpc_server(Script(devices=2))
    assert my_client.count_devices(server.endpoint) == 2
    assert server.heard().commands() == {"HELLO": 1, "DEVICE_COUNT": 1}
    many = ggml_rpc_server(answering("DEVICE_COUNT", lambda request, reply: DeviceCountReply(device_count=4096)))
    assert my_client.count_devices(many.endpoint) == 4096


@pytest.mark.parametrize("end", [End.FIN, End.RESET])
def test_the_function_raises_where_the_server_leaves(ggml_rpc_server, end):
    server = ggml_rpc_server(fault("DEVICE_COUNT", lambda reply: reply[:9], end=end))
    with pytest.raises(ConnectionError):
        my_client.count_devices(server.endpoint)
    assert server.heard().after_fault() == []


def test_the_function_takes_replies_in_pieces_and_refuses_other_versions(ggml_rpc_server):
    assert my_client.count_devices(ggml_rpc_server(Script(changes=(Change(number=0, cut=EACH_BYTE),))).endpoint) == 1
    with pytest.raises(ValueError, match="another version"):
        my_client.count_devices(ggml_rpc_server(version="3.5.0").endpoint)
