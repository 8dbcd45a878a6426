/* DUP, CPY, CONT: the elements of src0, counted in ne order, written to dst in its type. */
#pragma once
#include "kernel.h"

/* Plan a node of one of them. */
bool plan_copy(struct geometry *g);
