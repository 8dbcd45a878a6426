"""What the kernels in C and CUDA are told of types and ops.

`declared.h` is what Python and C both see: cffi reads it down to `INSIDE` (`backends/native/build.py`). `numbers.h` and `grids.h`
are for kernels of either kind: numbers and blocks of types, numbers of ops and kinds, for each op parameter a function that reads
it, and the points of the IQ types.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ggml_rpc_ref.blocks.common import Values
from ggml_rpc_ref.blocks.iq_tables import IQ1_GRID, IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID
from ggml_rpc_ref.derive.header import counted, enum
from ggml_rpc_ref.ops import ops_of
from ggml_rpc_ref.ops.op import MAX_SRC, OP_PARAMS_BYTES, Param
from ggml_rpc_ref.spec.dtypes import DTYPES
from ggml_rpc_ref.spec.op_changes import OP_CHANGES
from ggml_rpc_ref.spec.opcodes import GGML_OP, kinds
from ggml_rpc_ref.spec.versions import NEWEST

INSIDE = "/* ---- what only the kernels see ---- */"
"""Where the part ends that Python sees."""

SEEN = f"""\
/* What kernels compute, and how Python starts them. Written by `ggml-rpc-ref gen` from the rows of types and ops. */

/* Type, dimensions and strides of a tensor, in ggml's order; type -1: there is no such tensor. */
struct layout {{
    int64_t ne[4];
    int64_t nb[4];
    int32_t type;
    int32_t unused;
}};

struct work;
struct node;
typedef void (*phase_function)(const struct node *node, int64_t first, int64_t last, const struct work *work);

/* Part of an operation that threads share: units first to last may be computed by any thread in any order. All units of a
   phase are done before the next phase begins. */
struct phase {{
    phase_function run;
    int64_t units;
    int64_t cost; /* of a unit, about, in nanoseconds of one thread */
}};

/* All of an operation but where its tensors lie; nodes of one kind share it. Python fills what stands before `phases`. */
struct geometry {{
    int32_t op;
    int32_t op_params[{OP_PARAMS_BYTES // 4}];
    int32_t n_src;
    uint64_t changes;   /* of what the op means in the client's version: a bit for each `enum change` */
    struct layout dst;
    struct layout src[{MAX_SRC}];
    int32_t phases;
    int32_t small;      /* whether one thread computes it in less time than it takes to ask another */
    struct phase phase[4];
    int64_t shared;     /* bytes of scratch memory that all threads share */
    int64_t own;        /* bytes of scratch memory for each thread */
}};

/* One operation to perform. */
struct node {{
    const struct geometry *of;
    uint8_t *dst;
    uint8_t *src[{MAX_SRC}];
    const uint8_t *packed; /* src[0] once more, laid out for a few columns (`pack_weights`); or NULL */
}};

/* Nodes that are computed in order, and how far that has come. */
struct run {{
    const struct node *nodes;
    int64_t count;
    int64_t node;   /* the first node that is not done */
    int64_t phase;  /* its first phase that is not done */
    int64_t unit;   /* the first unit of that phase that no thread has taken */
    uint8_t *scratch;
    int64_t scratch_size;
}};

enum outcome {{ NOT_BEGUN = -1, DONE, TIME_IS_UP, BAD_INDEX, NO_MEMORY }};

/* A run that is begun again by who knows nothing of kernels (net/again.c), by the address of `run_again` and its own. */
struct again {{
    struct pool *pool;
    struct run run;
    int64_t nanoseconds;      /* that a call may take */
    const int64_t *changes;   /* counts what may have changed that the nodes point to; or NULL */
    int64_t known;            /* `changes` when they were pointed to it */
}};

struct pool;
struct pool *pool_new(int threads);
void pool_free(struct pool *pool);
int run_some(struct pool *pool, struct run *run, int64_t nanoseconds);
void run_end(struct pool *pool, struct run *run);
int run_again(void *again);
int plan_geometry(struct geometry *geometry);
int64_t bytes_packed(const struct geometry *geometry); /* of its weights; 0: they are multiplied as they are */
void pack_weights(struct pool *pool, const struct geometry *geometry, uint8_t *weights, uint8_t *to);
int runs_here(void);
const char *made_from(void); /* a digest of the sources */
"""


WORDS = """\
/* Numbers of types, ops and kinds, and a reader for each op parameter. Written by `ggml-rpc-ref gen`. */
#pragma once
#include <stdint.h>
#include <string.h>

#ifndef READER /* CUDA has words of its own for both */
#define READER static inline
#define TABLE static const
#endif"""


def declarations() -> str:
    """Return the text of `declared.h`."""
    return f'{SEEN}\n{INSIDE}\n\n#include "numbers.h"\n'


def numbers() -> str:
    """Return the text of `numbers.h`, which needs a `struct geometry` with op_params."""
    parts = [
        WORDS,
        enum("GGML_TYPE", ((dtype.name, dtype.number) for dtype in DTYPES)),
        f"#define TYPES {max(dtype.number for dtype in DTYPES) + 1}",
        _table("type_block", ((dtype.name, dtype.block) for dtype in DTYPES), "Elements of a block."),
        _table("type_size", ((dtype.name, dtype.size) for dtype in DTYPES), "Bytes of a block."),
        "/* Places in the newest version's table; on the wire an op may have another number. */",
        enum("GGML_OP", counted(row.name for row in GGML_OP)),
        f"#define OPS {len(GGML_OP)}",
        enum("GGML_UNARY_OP", counted(kinds("UNARY", NEWEST))),
        enum("GGML_GLU_OP", counted(kinds("GLU", NEWEST))),
        "/* Rows of `spec.op_changes`, by number. */",
        enum("CHANGE", counted(re.sub("[.-]", "_", change).upper() for change in OP_CHANGES)),
        *_accessors(),
    ]
    return "\n\n".join(parts) + "\n"


def _table(name: str, numbers: Iterator[tuple[str, int]], doc: str) -> str:
    # each in its place, without C's [number] =, which C++ lacks
    rows = {dtype.number: dtype.name for dtype in DTYPES}
    values = dict(numbers)
    entries = "".join(
        f"    {values[rows[number]]}, /* {rows[number]} */\n" if number in rows else "    0,\n" for number in range(max(rows) + 1)
    )
    return f"/* {doc} */\nTABLE int16_t {name}[TYPES] = {{\n{entries}}};"


def grids() -> str:
    """Return the text of `grids.h`: the points of the IQ types, each entry as its bytes."""
    tables = {
        "iq2_xxs": IQ2_XXS_GRID, "iq2_xs": IQ2_XS_GRID, "iq2_s": IQ2_S_GRID, "iq3_xxs": IQ3_XXS_GRID, "iq3_s": IQ3_S_GRID,
        "iq1": IQ1_GRID,
    }  # fmt: skip
    head = '/* The grids of the IQ types. Written by `ggml-rpc-ref gen` from blocks. */\n#pragma once\n#include "numbers.h"'
    return "\n\n".join([head, *(_grid(name, table) for name, table in tables.items())]) + "\n"


def _grid(name: str, table: Values) -> str:
    kind = "int8_t" if table.min() < 0 else "uint8_t"
    rows = [f"    {{{', '.join(str(int(level)) for level in entry)}}}," for entry in table]
    return f"TABLE {kind} {name}_grid[{len(table)}][{table.shape[1]}] = {{\n" + "\n".join(rows) + "\n};"


C_TYPES = {"i32": "int32_t", "f32": "float", "i64": "int64_t"}


def _accessors() -> Iterator[str]:
    for name, op in ops_of(NEWEST).items():
        if op.params:
            yield "\n".join(_accessor(name.lower(), param) for param in op.params)


def _accessor(op: str, param: Param) -> str:
    """Return a function that reads a parameter; of several entries, the one with index i."""
    kind, several = C_TYPES[param.kind], param.count > 1
    index = ", int i" if several else ""
    slot = f"{param.slot} + {2 if param.kind == 'i64' else 1} * i" if several else str(param.slot)
    return (
        f"READER {kind} {op}_{param.name}(const struct geometry *g{index})\n"
        f"{{\n    {kind} value;\n    memcpy(&value, g->op_params + {slot}, sizeof value);\n    return value;\n}}"
    )
