# Read by cmake at each project() of llama.cpp. Its own code builds graphs and reads models, and computes next to nothing: most of
# what its optimisation costs buys nothing here. ggml's kernels, which compute, are left as the release has them.
if(NOT GGML_RPC_REF_LLAMA_QUICK)
    set(GGML_RPC_REF_LLAMA_QUICK TRUE)
    cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL target_compile_options llama PRIVATE -O0)
endif()
