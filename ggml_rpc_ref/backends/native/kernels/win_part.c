/* WIN_PART: an image cut into square windows, with zeros where the last ones reach beyond it. */
#include "elements.h"

static void cut_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    const struct layout *image = &g->src[0];
    size_t size = (size_t)(4 * g->dst.ne[0]);
    int64_t w = win_part_w(g), across = win_part_npx(g);
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(&g->dst, row);
        int64_t x = p.i3 % across * w + p.i1, y = p.i3 / across * w + p.i2;
        uint8_t *dst = row_at(&g->dst, node->dst, p.i1, p.i2, p.i3);
        if (x < image->ne[1] && y < image->ne[2])
            memcpy(dst, row_at(image, node->src[0], x, y, 0), size);
        else
            memset(dst, 0, size);
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, cut_rows, 0.5); }

KERNEL(win_part, GGML_OP_WIN_PART, plan);
