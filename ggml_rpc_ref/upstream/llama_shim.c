// llama.cpp's functions that take or return structures by value, as functions of plain values.
//
// Compiled with the headers of the build it belongs to, so that the structures are that build's, whatever fields they have there;
// genuine.py calls it through ctypes. Facts: llama.h of 0.3.16 to 0.3.36 of llama-cpp-python and of xllamacpp 2026.10.11549.

#include "llama.h"

// Load a GGUF file: n_gpu_layers layers on the devices, a list that ends in NULL. split_mode is llama.cpp's own number.
struct llama_model * ref_llama_load(const char * path, ggml_backend_dev_t * devices, int n_gpu_layers, int split_mode) {
    struct llama_model_params parameters = llama_model_default_params();
    parameters.devices = devices;
    parameters.n_gpu_layers = n_gpu_layers;
    parameters.split_mode = (enum llama_split_mode) split_mode;
    // see genuine.py, load_model
    parameters.use_extra_bufts = false;
    return llama_model_load_from_file(path, parameters);
}

// Make a context of n_ctx tokens, all of which may come in one batch.
struct llama_context * ref_llama_context(struct llama_model * model, int n_ctx, int n_threads) {
    struct llama_context_params parameters = llama_context_default_params();
    parameters.n_ctx = parameters.n_batch = n_ctx;
    parameters.n_threads = parameters.n_threads_batch = n_threads;
    return llama_init_from_model(model, parameters);
}

// Feed tokens at the end of the context; 0 where all went well.
int ref_llama_decode(struct llama_context * context, llama_token * tokens, int count) {
    return llama_decode(context, llama_batch_get_one(tokens, count));
}
