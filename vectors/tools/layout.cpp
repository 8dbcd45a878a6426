// The records of protocol 3.6.1 as structures, written by hand from the facts (ggml's RPC messages are packed C structures), so that a
// C++ compiler, and no line of ggml_rpc_ref, says what their sizes and offsets are. record_layout.py compiles and runs this.
#include <cstddef>
#include <cstdint>
#include <cstdio>

#pragma pack(push, 1)
struct Tensor {
    uint64_t id;
    uint32_t type;
    uint64_t buffer;
    uint32_t ne[4], nb[4];
    uint32_t op;
    int32_t op_params[16];
    int32_t flags;
    uint64_t src[10];
    uint64_t view_src, view_offs, data;
    char name[64];
    char padding[4];
};
struct RequestHead { uint8_t command; uint64_t size; };
struct ReplyHead { uint64_t size; };
struct HelloReply { uint8_t major, minor, patch; };
struct DeviceCountReply { uint32_t device_count; };
struct AllocBuffer { uint32_t device; uint64_t size; };
struct AllocBufferReply { uint64_t remote_ptr, remote_size; };
struct GetAlignment { uint32_t device; };
struct GetAlignmentReply { uint64_t alignment; };
struct GetMaxSize { uint32_t device; };
struct GetMaxSizeReply { uint64_t max_size; };
struct BufferGetBase { uint64_t remote_ptr; };
struct BufferGetBaseReply { uint64_t base_ptr; };
struct FreeBuffer { uint64_t remote_ptr; };
struct BufferClear { uint64_t remote_ptr; uint8_t value; };
struct SetTensor { Tensor tensor; uint64_t offset; char data[1]; };
struct SetTensorHash { Tensor tensor; uint64_t offset, hash; };
struct SetTensorHashReply { uint8_t result; };
struct GetTensor { Tensor tensor; uint64_t offset, size; };
struct CopyTensor { Tensor src, dst; };
struct CopyTensorReply { uint8_t result; };
struct GetDeviceMemory { uint32_t device; };
struct GetDeviceMemoryReply { uint64_t free_mem, total_mem; };
struct InitTensor { Tensor tensor; };
struct GetAllocSize { uint32_t device; Tensor tensor; Tensor srcs[10]; };
struct GetAllocSizeReply { uint64_t alloc_size; };
struct GraphRecompute { uint32_t device; };
// GRAPH_COMPUTE with two nodes and three tensors: what varies is an array of known length here
struct GraphCompute { uint32_t device; uint32_t n_nodes; uint64_t nodes[2]; uint32_t n_tensors; Tensor tensors[3]; };
#pragma pack(pop)

static const char * separator = "";

#define FIELD(structure, field) \
    printf("%s\n  \"%s\": {\"offset\": %zu, \"size\": %zu}", separator, #field, offsetof(structure, field), sizeof(structure::field)); \
    separator = ",";
#define FIELDS_1(s, a) FIELD(s, a)
#define FIELDS_2(s, a, ...) FIELD(s, a) FIELDS_1(s, __VA_ARGS__)
#define FIELDS_3(s, a, ...) FIELD(s, a) FIELDS_2(s, __VA_ARGS__)
#define FIELDS_5(s, a, b, ...) FIELD(s, a) FIELD(s, b) FIELDS_3(s, __VA_ARGS__)
#define FIELDS_14(s, a, b, c, d, e, f, g, h, i, ...) \
    FIELD(s, a) FIELD(s, b) FIELD(s, c) FIELD(s, d) FIELD(s, e) FIELD(s, f) FIELD(s, g) FIELD(s, h) FIELD(s, i) FIELDS_5(s, __VA_ARGS__)
#define STRUCTURE(structure, count, ...) \
    printf("%s\n \"%s\": {\"size\": %zu, \"fields\": {", separator, #structure, sizeof(structure)); \
    separator = ""; \
    FIELDS_##count(structure, __VA_ARGS__) \
    printf("}}"); \
    separator = ",";

int main() {
    printf("{");
    STRUCTURE(Tensor, 14, id, type, buffer, ne, nb, op, op_params, flags, src, view_src, view_offs, data, name, padding)
    STRUCTURE(RequestHead, 2, command, size)
    STRUCTURE(ReplyHead, 1, size)
    STRUCTURE(HelloReply, 3, major, minor, patch)
    STRUCTURE(DeviceCountReply, 1, device_count)
    STRUCTURE(AllocBuffer, 2, device, size)
    STRUCTURE(AllocBufferReply, 2, remote_ptr, remote_size)
    STRUCTURE(GetAlignment, 1, device)
    STRUCTURE(GetAlignmentReply, 1, alignment)
    STRUCTURE(GetMaxSize, 1, device)
    STRUCTURE(GetMaxSizeReply, 1, max_size)
    STRUCTURE(BufferGetBase, 1, remote_ptr)
    STRUCTURE(BufferGetBaseReply, 1, base_ptr)
    STRUCTURE(FreeBuffer, 1, remote_ptr)
    STRUCTURE(BufferClear, 2, remote_ptr, value)
    STRUCTURE(SetTensor, 3, tensor, offset, data)
    STRUCTURE(SetTensorHash, 3, tensor, offset, hash)
    STRUCTURE(SetTensorHashReply, 1, result)
    STRUCTURE(GetTensor, 3, tensor, offset, size)
    STRUCTURE(CopyTensor, 2, src, dst)
    STRUCTURE(CopyTensorReply, 1, result)
    STRUCTURE(GetDeviceMemory, 1, device)
    STRUCTURE(GetDeviceMemoryReply, 2, free_mem, total_mem)
    STRUCTURE(InitTensor, 1, tensor)
    STRUCTURE(GetAllocSize, 3, device, tensor, srcs)
    STRUCTURE(GetAllocSizeReply, 1, alloc_size)
    STRUCTURE(GraphRecompute, 1, device)
    STRUCTURE(GraphCompute, 5, device, n_nodes, nodes, n_tensors, tensors)
    printf("\n}\n");
}
