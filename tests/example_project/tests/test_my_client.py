"""The tests of the example project's client."""


def test_conformance(ggml_rpc_client_case):
    ggml_rpc_client_case()


def test_it_counts_the_devices(ggml_rpc_play):
    run = ggml_rpc_play()
    assert run.works
    assert run.commands() == {"HELLO": 1, "DEVICE_COUNT": 1}
