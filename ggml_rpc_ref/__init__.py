"""ggml-rpc-ref: the reference for ggml's RPC protocol."""
