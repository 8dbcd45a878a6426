/* The K types that upstream writes; `quantise_row` calls these. Each takes one block of 256 elements. */
#pragma once
#include <stdint.h>

void quantise_q2_k(const float *x, uint8_t *to);
void quantise_q3_k(const float *x, uint8_t *to);
void quantise_q4_k(const float *x, uint8_t *to);
void quantise_q5_k(const float *x, uint8_t *to);
void quantise_q6_k(const float *x, uint8_t *to);
void quantise_q8_k(const float *x, uint8_t *to);
