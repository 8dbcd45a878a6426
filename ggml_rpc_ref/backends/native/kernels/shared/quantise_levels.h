/* Quantising to types of few bits or of levels from a table; a block of floats at a time. */
#pragma once
#include <stdint.h>

void quantise_q1_0(const float *x, uint8_t *to);
void quantise_q2_0(const float *x, uint8_t *to);
void quantise_tq1_0(const float *x, uint8_t *to);
void quantise_tq2_0(const float *x, uint8_t *to);
void quantise_mxfp4(const float *x, uint8_t *to);
void quantise_nvfp4(const float *x, uint8_t *to);
void quantise_iq4_nl(const float *x, uint8_t *to);
void quantise_iq4_xs(const float *x, uint8_t *to);
