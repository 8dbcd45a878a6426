/* The interpreter of PTX as a library (`tests/support/gpu/ptx.py`). emulated.h comes first, by -include. */
#include "ptx.h"
