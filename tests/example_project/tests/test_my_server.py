"""The tests of the example project."""


def test_conformance(ggml_rpc_case):
    ggml_rpc_case()


def test_a_buffer_of_mine(ggml_rpc_peer):
    buffer = ggml_rpc_peer.alloc(4096)
    assert buffer.size == 4096
    assert ggml_rpc_peer.subject.facts.device_count == 1
