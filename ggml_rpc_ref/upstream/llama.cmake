# Read by cmake at each project() of llama.cpp. Its own code builds graphs and reads models, and computes next to nothing: not
# optimised it takes a third of the time to compile. ggml's kernels, which compute, are left as the release has them.
if(NOT GGML_RPC_REF_LLAMA_QUICK)
    set(GGML_RPC_REF_LLAMA_QUICK TRUE)
    cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL target_compile_options llama PRIVATE -O0)
endif()
