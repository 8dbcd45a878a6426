/* Multiply two matrices on a ggml RPC 3.6 server. Written from SPEC.md alone: what this file knows, that text says.

   matmul HOST PORT < MATRICES

   Standard input has three counts, k, m and n; then m rows of k numbers, the matrix a; then n rows of k numbers, b. Standard
   output gets n rows of m numbers: c, of which each number is the product of a row of b with a row of a. Exit code: 0; 1 if
   the server can't be reached, or refuses, or answers wrongly; 2 if what was given can't be meant. */

#define _POSIX_C_SOURCE 200809L
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

enum { ALLOC_BUFFER = 0, GET_ALIGNMENT = 1, BUFFER_GET_BASE = 3, FREE_BUFFER = 4, SET_TENSOR = 6, GET_TENSOR = 8,
       GRAPH_COMPUTE = 10, HELLO = 14, DEVICE_COUNT = 15 };
enum { F32 = 0, OP_NONE = 0, OP_MUL_MAT = 29, FLAG_COMPUTE = 16, RECORD_SIZE = 296, LONGEST = 4096, DEVICE = 0 };

struct tensor {
    uint64_t id, buffer, data, src[2];
    uint32_t ne[2], op, flags;
    const char *name;
};

static void fail(int status, const char *what, const char *why) {
    fprintf(stderr, "matmul: %s: %s\n", what, why);
    exit(status);
}

static uint8_t *allocate(size_t size) {
    uint8_t *memory = calloc(size ? size : 1, 1);
    if (!memory) fail(1, "memory", "there is not enough");
    return memory;
}

/* ------------------------------------------------------------------------------------------------ little-endian numbers */

static uint8_t *put(uint8_t *at, uint64_t value, int size) {
    for (int i = 0; i < size; i++) at[i] = (uint8_t)(value >> (8 * i));
    return at + size;
}

static uint64_t get(const uint8_t *at, int size) {
    uint64_t value = 0;
    for (int i = 0; i < size; i++) value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static void put_floats(uint8_t *at, const float *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], 4);
        at = put(at, bits, 4);
    }
}

static float get_float(const uint8_t *at) {
    uint32_t bits = (uint32_t)get(at, 4);
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* ------------------------------------------------------------------------------------------------------------- messages */

static int open_connection(const char *host, const char *port) {
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *all;
    int error = getaddrinfo(host, port, &hints, &all), fd = -1, on = 1;
    if (error) fail(1, host, gai_strerror(error));
    for (struct addrinfo *one = all; one && fd < 0; one = one->ai_next) {
        fd = socket(one->ai_family, one->ai_socktype, one->ai_protocol);
        if (fd >= 0 && connect(fd, one->ai_addr, one->ai_addrlen)) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(all);
    if (fd < 0) fail(1, host, "no connection");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static void send_all(int fd, const uint8_t *data, size_t size) {
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent <= 0) fail(1, "send", "the server has closed the connection");
        data += sent;
        size -= (size_t)sent;
    }
}

static void receive_all(int fd, uint8_t *data, size_t size) {
    while (size) {
        ssize_t received = recv(fd, data, size, 0);
        if (received <= 0) fail(1, "receive", "the server has closed the connection");
        data += received;
        size -= (size_t)received;
    }
}

static void tell(int fd, int command, const uint8_t *payload, size_t size) {
    uint8_t head[9];
    put(put(head, (uint64_t)command, 1), size, 8);
    send_all(fd, head, sizeof head);
    send_all(fd, payload, size);
}

static void ask(int fd, int command, const uint8_t *payload, size_t size, uint8_t *reply, size_t reply_size) {
    uint8_t head[8];
    tell(fd, command, payload, size);
    receive_all(fd, head, sizeof head);
    if (get(head, 8) != reply_size) fail(1, "reply", "not of the size that was asked for");
    receive_all(fd, reply, reply_size);
}

static uint64_t ask_number(int fd, int command, uint64_t argument, int size, int reply_size) {
    uint8_t payload[8], reply[8];
    put(payload, argument, size);
    ask(fd, command, payload, (size_t)size, reply, (size_t)reply_size);
    return get(reply, reply_size);
}

/* -------------------------------------------------------------------------------------------------------------- tensors */

static size_t bytes(const struct tensor *t) {
    return (size_t)4 * t->ne[0] * t->ne[1];
}

/* The record of a contiguous matrix, in the order of the fields in SPEC.md; all that is not written here is zero. */
static uint8_t *put_tensor(uint8_t *at, const struct tensor *t) {
    uint8_t *end = at + RECORD_SIZE;
    uint64_t row = 4 * (uint64_t)t->ne[0], ne[4] = { t->ne[0], t->ne[1], 1, 1 }, nb[4] = { 4, row, bytes(t), bytes(t) };
    memset(at, 0, RECORD_SIZE);
    at = put(put(put(at, t->id, 8), F32, 4), t->buffer, 8);
    for (int i = 0; i < 4; i++) at = put(at, ne[i], 4);
    for (int i = 0; i < 4; i++) at = put(at, nb[i], 4);
    at = put(at, t->op, 4) + 64;         /* op_params */
    at = put(at, t->flags, 4);
    put(put(at, t->src[0], 8), t->src[1], 8);
    at += 80 + 8 + 8;                    /* src, view_src, view_offs */
    at = put(at, t->data, 8);
    strncpy((char *)at, t->name, 63);
    return end;
}

static void set_tensor(int fd, const struct tensor *t, const float *values) {
    size_t size = RECORD_SIZE + 8 + bytes(t);
    uint8_t *payload = allocate(size);
    put_floats(put(put_tensor(payload, t), 0, 8), values, bytes(t) / 4);
    tell(fd, SET_TENSOR, payload, size);
    free(payload);
}

static uint8_t *get_tensor(int fd, const struct tensor *t) {
    uint8_t payload[RECORD_SIZE + 16], *data = allocate(bytes(t));
    put(put(put_tensor(payload, t), 0, 8), bytes(t), 8);
    ask(fd, GET_TENSOR, payload, sizeof payload, data, bytes(t));
    return data;
}

static void compute(int fd, const struct tensor *a, const struct tensor *b, const struct tensor *c) {
    uint8_t payload[4 + 4 + 8 + 4 + 3 * RECORD_SIZE], *at = payload;
    at = put(put(at, DEVICE, 4), 1, 4);  /* one node */
    at = put(put(at, c->id, 8), 3, 4);   /* three tensors */
    put_tensor(put_tensor(put_tensor(at, a), b), c);
    tell(fd, GRAPH_COMPUTE, payload, sizeof payload);
}

/* ---------------------------------------------------------------------------------------------------------- the program */

static uint32_t read_count(void) {
    long count;
    if (scanf("%ld", &count) != 1 || count < 1 || count > LONGEST) fail(2, "standard input", "k, m and n are 1 to 4096 each");
    return (uint32_t)count;
}

static float *read_floats(size_t count) {
    float *values = (float *)(void *)allocate(count * sizeof *values);
    for (size_t i = 0; i < count; i++)
        if (scanf("%f", &values[i]) != 1) fail(2, "standard input", "too few numbers");
    return values;
}

static void greet(int fd) {
    uint8_t version[3];
    ask(fd, HELLO, NULL, 0, version, sizeof version);
    /* Older minor versions number operations otherwise, or answer what 3.6 doesn't answer: this client speaks 3.6 only. */
    if (version[0] != 3 || version[1] != 6) fail(1, "HELLO", "the server's version is not 3.6");
    uint8_t count[4];
    ask(fd, DEVICE_COUNT, NULL, 0, count, sizeof count);
    if (get(count, 4) <= DEVICE) fail(1, "DEVICE_COUNT", "the server has no device");
}

static uint64_t align(uint64_t offset, uint64_t alignment) {
    return (offset + alignment - 1) / alignment * alignment;
}

static uint64_t reserve(int fd, uint64_t size) {
    uint8_t request[12], reply[16];
    put(put(request, DEVICE, 4), size, 8);
    ask(fd, ALLOC_BUFFER, request, sizeof request, reply, sizeof reply);
    if (!get(reply, 8) || get(reply + 8, 8) < size) fail(1, "ALLOC_BUFFER", "the server has not enough memory");
    return get(reply, 8);
}

int main(int argc, char **argv) {
    if (argc != 3) fail(2, "usage", "matmul HOST PORT < MATRICES");
    uint32_t k = read_count(), m = read_count(), n = read_count();
    float *a_values = read_floats((size_t)k * m), *b_values = read_floats((size_t)k * n);
    int fd = open_connection(argv[1], argv[2]);
    greet(fd);
    uint64_t alignment = ask_number(fd, GET_ALIGNMENT, DEVICE, 4, 8);
    if (!alignment || alignment > 1 << 20) fail(1, "GET_ALIGNMENT", "no sensible number");

    struct tensor a = { .id = 1, .ne = { k, m }, .op = OP_NONE, .name = "a" };
    struct tensor b = { .id = 2, .ne = { k, n }, .op = OP_NONE, .name = "b" };
    struct tensor c = { .id = 3, .ne = { m, n }, .op = OP_MUL_MAT, .src = { 1, 2 }, .flags = FLAG_COMPUTE, .name = "c" };
    uint64_t b_offset = align(bytes(&a), alignment), c_offset = align(b_offset + bytes(&b), alignment);
    uint64_t buffer = reserve(fd, c_offset + bytes(&c));
    uint64_t base = ask_number(fd, BUFFER_GET_BASE, buffer, 8, 8);
    a.buffer = b.buffer = c.buffer = buffer;
    a.data = base;
    b.data = base + b_offset;
    c.data = base + c_offset;

    set_tensor(fd, &a, a_values);
    set_tensor(fd, &b, b_values);
    compute(fd, &a, &b, &c);
    uint8_t *result = get_tensor(fd, &c);
    uint8_t request[8];
    put(request, buffer, 8);
    ask(fd, FREE_BUFFER, request, sizeof request, NULL, 0);
    close(fd);

    for (size_t j = 0; j < n; j++)
        for (size_t i = 0; i < m; i++)
            printf("%.9g%c", (double)get_float(result + 4 * (j * m + i)), i + 1 < m ? ' ' : '\n');
    free(a_values), free(b_values), free(result);
    return 0;
}
