/* CONV_3D: convolution of volumes with a bank of kernels, a thread for each result. A tap on padding counts as 0. */
#include "window.cuh"

KERNEL(conv_3d)
{
    const struct operand *kernel = &g.src[0], *volumes = &g.src[1];
    struct window width = WINDOW(conv_3d, 0, volumes, kernel), height = WINDOW(conv_3d, 1, volumes, kernel);
    struct window depth = WINDOW(conv_3d, 2, volumes, kernel);
    int64_t channels = conv_3d_c(&g), outputs = conv_3d_oc(&g);
    int64_t taps[4] = {width.kernel, height.kernel, depth.kernel, channels}, count = taps[0] * taps[1] * taps[2] * taps[3];
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        int64_t volume = p.i3 / outputs, bank = p.i3 % outputs;
        float sum = 0;
        for (int64_t number = 0; number < count; number++) {
            struct place k = place_in(taps, number);
            int64_t x, y, z;
            bool inside = covers(&width, p.i0, k.i0, &x) & covers(&height, p.i1, k.i1, &y) & covers(&depth, p.i2, k.i2, &z);
            float value = inside ? as_kernels(kernel->type, f32_at(at(volumes, x, y, z, volume * channels + k.i3))) : 0;
            sum = fmaf(load(kernel->type, at(kernel, k.i0, k.i1, k.i2, bank * channels + k.i3)), value, sum);
        }
        *(float *)at_place(&g.dst, p) = sum;
    }
}
