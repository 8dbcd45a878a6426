/* DUP, CPY, CONT: the elements of src0, counted in ne order, written to dst in its type. */
#pragma once
#include "kernel.h"

/* Plan a node of one of them. */
bool plan_copy(struct geometry *g);

/* Move n elements (or blocks) of `size` bytes that lie `step` bytes apart. */
void move_elements(uint8_t *to, int64_t to_step, const uint8_t *from, int64_t from_step, int64_t n, int64_t size);
