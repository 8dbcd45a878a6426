/* ROPE and ROPE_BACK: each pair of elements turned by its angle, or back by it. ops/rope.py has the formulas. */
#pragma once
#include "kernel.h"

/* Plan a node of one of them. */
bool plan_rotation(struct geometry *g);
