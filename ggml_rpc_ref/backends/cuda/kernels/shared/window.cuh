/* The window of a convolution: along one axis, tap k of output o covers input index o * stride + k * dilation - padding.

   What lies outside of the input is padding. Padding and dilation may be any integers. */
#pragma once
#include "kernel.cuh"

struct window {
    int64_t size, kernel, stride, padding, dilation;
};

DEVICE bool covers(const struct window *w, int64_t output, int64_t tap, int64_t *index)
{
    *index = output * w->stride + tap * w->dilation - w->padding;
    return *index >= 0 && *index < w->size;
}

/* The other way round: which output has that input element under a tap; -1: none. */
DEVICE int64_t output_at(const struct window *w, int64_t index, int64_t tap, int64_t outputs)
{
    int64_t shifted = index + w->padding - tap * w->dilation;
    return shifted >= 0 && shifted % w->stride == 0 && shifted / w->stride < outputs ? shifted / w->stride : -1;
}

/* The windows of an op with two or three axes; kernel and input say how long they are. */
#define WINDOW(op, axis, input, taps) {(input)->ne[axis], (taps)->ne[axis], op##_s##axis(&g), op##_p##axis(&g), op##_d##axis(&g)}

/* What an element of the input counts as: with an F16 kernel it is rounded to F16, which makes those above 65504 infinite. */
DEVICE float as_kernels(int32_t kernel_type, float x) { return kernel_type == GGML_TYPE_F16 ? from_half(to_half(x)) : x; }
