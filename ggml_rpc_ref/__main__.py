"""`python -m ggml_rpc_ref`: the same as the command ggml-rpc-ref."""

from ggml_rpc_ref.commands.main import main

main()
