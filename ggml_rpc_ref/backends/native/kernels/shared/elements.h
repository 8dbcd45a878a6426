/* What the plain kernels share: elements that are reached one by one, wherever they lie. */
#pragma once
#include "half.h"
#include "kernel.h"

/* As `f32`: numbers in a client's memory, which may begin at any byte. */
typedef int32_t i32 __attribute__((aligned(1), may_alias));
typedef int64_t i64 __attribute__((aligned(1), may_alias));
typedef uint16_t u16 __attribute__((aligned(1), may_alias));

/* Where an element of a plain type lies. */
static inline uint8_t *element(const struct layout *l, const uint8_t *data, int64_t i0, int64_t i1, int64_t i2, int64_t i3)
{
    return (uint8_t *)data + i0 * l->nb[0] + i1 * l->nb[1] + i2 * l->nb[2] + i3 * l->nb[3];
}

static inline float f32_at(const struct layout *l, const uint8_t *data, int64_t i0, int64_t i1, int64_t i2, int64_t i3)
{
    return *(const f32 *)element(l, data, i0, i1, i2, i3);
}

/* The rows of a tensor of F32 without gaps between elements. */
static inline f32 *floats(const struct layout *l, const uint8_t *data, int64_t i1, int64_t i2, int64_t i3)
{
    return (f32 *)element(l, data, 0, i1, i2, i3);
}

static inline bool is_f16(const struct layout *l) { return l->type == GGML_TYPE_F16; }

/* F32, F16 or BF16. */
static inline bool is_float(const struct layout *l) { return is_f32(l) || is_f16(l) || l->type == GGML_TYPE_BF16; }

/* An F32, F16 or BF16 as float32. */
static inline float float_at(int32_t type, const uint8_t *p)
{
    if (type == GGML_TYPE_F32)
        return *(const f32 *)p;
    return type == GGML_TYPE_F16 ? from_half(*(const u16 *)p) : from_bf16(*(const u16 *)p);
}

/* An index of I32 or I64 among the contents. */
static inline int64_t index_at(int32_t type, const uint8_t *p)
{
    return type == GGML_TYPE_I64 ? *(const i64 *)p : *(const i32 *)p;
}

/* Whether an index is in range; the run ends where one is not. */
static inline bool in_range(int64_t index, int64_t count, const struct work *work)
{
    if (index >= 0 && index < count)
        return true;
    atomic_store(work->outcome, BAD_INDEX);
    return false;
}

/* The remainder that is never negative. */
static inline int64_t modulo(int64_t a, int64_t n) { return (a % n + n) % n; }

/* The quotient rounded up, of a >= 0. */
static inline int64_t parts_of(int64_t a, int64_t n) { return (a + n - 1) / n; }
