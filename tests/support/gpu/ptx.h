/* What nvcc makes of a kernel, run on the GPU made of threads: PTX text is read, and each instruction does what the PTX ISA says of it.

   emulated.h has g++ compile the kernels, with a twin in place of each piece of inline PTX. Here the twins have no part: the text is
   nvcc's, with its order of operands, its addresses, its rounding, and our inline PTX as it stands. Threads, barriers, functions of a
   warp, tensor maps and products of a warpgroup are those of emulated.h and hopper.h.

   A register is eight bytes; an instruction reads and writes as many of them as its type has. Addresses: of shared memory, places in
   hopper.h's window; of everything else, and generic ones, the processor's own. An instruction that is not known, an address of
   another state space, and one that is no multiple of the access end the load or the launch with a sentence. What is not seen: the
   hardware's approximations (ex2.approx and the like are the processor's functions here), and what ptxas makes of the text. */
#pragma once
#include <fenv.h>

#include <map>
#include <string>
#include <type_traits>
#include <vector>

/* ------------------------------------------------------------------------------------------------------------ numbers */

static float ptx_from_half(uint16_t x)
{
    uint32_t exponent = x >> 10 & 31, fraction = x & 0x3FF;
    float value = exponent == 31 ? (fraction ? NAN : INFINITY)
                                 : ldexpf((float)(exponent ? fraction + 1024 : fraction), (int)(exponent ? exponent : 1) - 25);
    return x & 0x8000 ? -value : value;
}

static float ptx_from_bf16(uint16_t x)
{
    uint32_t wide = (uint32_t)x << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/* To the nearest, ties to even: of a value's own 24 bits, `kept` below the first one are left. */
static uint16_t ptx_to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x)
        return 0x7FFF;
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static uint16_t ptx_to_half(float x)
{
    uint16_t sign = signbit(x) ? 0x8000 : 0;
    int exponent;
    x = fabsf(x);
    if (x != x)
        return 0x7FFF;
    if (x >= 65520)
        return sign | 0x7C00;
    frexpf(x, &exponent);
    if (x == 0 || exponent < -13) /* beneath the least normal one, 2^-14: multiples of 2^-24 */
        return sign | (uint16_t)nearbyintf(ldexpf(x, 24));
    /* what overflows into the exponent is right there */
    return sign | (uint16_t)(((exponent + 14) << 10) + (int)nearbyintf(ldexpf(x, 11 - exponent)) - 1024);
}

/* ------------------------------------------------------------------------------------------------ what a text is made to */

struct ptx_kernel;
struct ptx_frame;
struct ptx_instruction;
typedef void (*ptx_run)(struct ptx_frame *, const struct ptx_instruction *);

enum { FRAME = 0, ARGUMENT = 1, FIRST_REGISTER = 2, NONE = -1, SECOND = 5 };

struct ptx_instruction {
    ptx_run run = NULL;
    int guard = NONE;                                        /* a predicate, and what it must be */
    bool guard_is = true;
    int o[6] = {NONE, NONE, NONE, NONE, NONE, NONE};         /* registers; what stands behind | comes last */
    int64_t offset = 0;                                      /* of an address; where to go on; or another constant */
    std::vector<int> list;                                   /* registers in braces, one after the other */
    const struct ptx_kernel *callee = NULL;
    int opcode = 0;                                          /* in the module's list */
};

/* An entry or a function. */
struct ptx_kernel {
    struct ptx_module *module = NULL;
    std::string name;
    std::vector<struct ptx_instruction> code;
    std::vector<std::pair<int, uint64_t>> constants;         /* registers that hold them */
    int registers = FIRST_REGISTER, memory = 0;              /* of a frame; bytes for parameters and local variables */
    int argument_bytes = 0, shared = 0, most_threads = MOST_THREADS;
    std::vector<std::pair<int, int>> parameters, results;    /* where they lie in a frame's memory; bytes */
};

struct ptx_module {
    std::map<std::string, struct ptx_kernel *> functions;
    std::map<std::string, uint8_t *> variables;
    std::vector<std::string> opcodes;
    std::vector<uint64_t> executed;                          /* of each opcode, how often by a thread */
};

/* A function that is under way. */
struct ptx_frame {
    const struct ptx_kernel *function;
    const struct ptx_instruction *next;
    struct ptx_frame *caller;
    uint64_t *r;
    uint8_t *memory;
    bool carry;
};

enum { ARENA = 8 << 20 };

static struct ptx_frame *ptx_now[MOST_THREADS];
static uint8_t *ptx_arena[MOST_THREADS];

/* A frame in a thread's memory, behind the one that calls. Registers and memory hold what no program expects. */
static struct ptx_frame *ptx_enter(const struct ptx_kernel *function, struct ptx_frame *caller, uint8_t *room)
{
    size_t registers = sizeof(uint64_t) * (size_t)function->registers, memory = (size_t)(function->memory + 15) / 16 * 16;
    struct ptx_frame *f = (struct ptx_frame *)room;
    if (room + sizeof *f + 64 + registers + memory > ptx_arena[emulated.current] + ARENA)
        fault("calls too deep for the emulation");
    f->memory = (uint8_t *)(((uintptr_t)(f + 1) + 15) / 16 * 16);
    f->r = (uint64_t *)(f->memory + memory);
    memset(f->memory, 0xA5, memory + registers);
    f->function = function;
    f->next = function->code.data();
    f->caller = caller;
    f->carry = false;
    f->r[FRAME] = (uint64_t)f->memory;
    f->r[ARGUMENT] = (uint64_t)emulated.argument;
    for (auto &constant : function->constants)
        f->r[constant.first] = constant.second;
    return f;
}

static void ptx_interpret(const void *)
{
    int thread = emulated.current;
    if (!ptx_arena[thread])
        ptx_arena[thread] = (uint8_t *)mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    extern const struct ptx_kernel *ptx_launched;
    ptx_now[thread] = ptx_enter(ptx_launched, NULL, ptx_arena[thread]);
    uint64_t *executed = ptx_launched->module->executed.data();
    while (struct ptx_frame *f = ptx_now[thread]) {
        const struct ptx_instruction *i = f->next++;
        if (i->guard != NONE && (f->r[i->guard] & 1) != i->guard_is)
            continue;
        executed[i->opcode]++;
        i->run(f, i);
    }
}

const struct ptx_kernel *ptx_launched;

/* ---------------------------------------------------------------------------------------------------------- registers */

template <class T> static inline T get(const struct ptx_frame *f, int place)
{
    T value;
    memcpy(&value, &f->r[place], sizeof value);
    return value;
}

/* Bits above the type are a signed number's sign or zeros: whoever reads fewer bits later sees the same number. */
template <class T> static inline void put(struct ptx_frame *f, int place, T value)
{
    if (place == NONE)
        return;
    if constexpr (std::is_integral_v<T>) {
        f->r[place] = (uint64_t)(int64_t)value;
    } else {
        f->r[place] = 0;
        memcpy(&f->r[place], &value, sizeof value);
    }
}

/* ------------------------------------------------------------------------------------------------------------- memory */

enum space { GENERIC, GLOBAL, SHARED, LOCAL, PARAMETER };

static inline uint8_t *address_in(enum space space, uint64_t address, size_t bytes)
{
    uint64_t window = (uint64_t)window_of_shared;
    if (address % bytes)
        fault("a misaligned address");
    if (space == SHARED) {
        if (address + bytes > WINDOW)
            fault("an address that is not in shared memory");
        return window_of_shared + address;
    }
    if (address < WINDOW)
        fault("a place in shared memory, or nothing, taken for an address");
    if (space != GENERIC && address >= window && address < window + WINDOW)
        fault("an address in shared memory where another state space is meant");
    return (uint8_t *)address;
}

template <class T, enum space S, int N> static void load(struct ptx_frame *f, const struct ptx_instruction *i)
{
    T values[N];
    memcpy(values, address_in(S, f->r[i->o[0]] + (uint64_t)i->offset, sizeof values), sizeof values);
    for (int k = 0; k < N; k++)
        put<T>(f, i->list[(size_t)k], values[k]);
}

template <class T, enum space S, int N> static void store(struct ptx_frame *f, const struct ptx_instruction *i)
{
    T values[N];
    for (int k = 0; k < N; k++)
        values[k] = get<T>(f, i->list[(size_t)k]);
    memcpy(address_in(S, f->r[i->o[0]] + (uint64_t)i->offset, sizeof values), values, sizeof values);
}

/* --------------------------------------------------------------------------------------------------------- arithmetic */

template <class T> struct twice;
template <> struct twice<uint16_t> { typedef uint32_t type; };
template <> struct twice<int16_t> { typedef int32_t type; };
template <> struct twice<uint32_t> { typedef uint64_t type; };
template <> struct twice<int32_t> { typedef int64_t type; };
template <> struct twice<uint64_t> { typedef unsigned __int128 type; };
template <> struct twice<int64_t> { typedef __int128 type; };

/* What is divided by zero is all ones, as GPUs answer; the ISA leaves it open. */
template <class T> static T quotient(T a, T b)
{
    if (!b)
        return (T)-1;
    return std::is_signed_v<T> && b == (T)-1 ? (T)(0 - (uint64_t)a) : (T)(a / b);
}

template <class T> static T remainder_of(T a, T b)
{
    if (!b)
        return a;
    return std::is_signed_v<T> && b == (T)-1 ? 0 : (T)(a % b);
}

/* The one that is a number; of zeros, the negative one is less. */
template <class T> static T least(T a, T b)
{
    if constexpr (std::is_floating_point_v<T>) {
        if (a != a || b != b)
            return a != a ? b : a;
        if (a == b)
            return signbit(a) ? a : b;
    }
    return b < a ? b : a;
}

template <class T> static T most(T a, T b)
{
    if constexpr (std::is_floating_point_v<T>) {
        if (a != a || b != b)
            return a != a ? b : a;
        if (a == b)
            return signbit(a) ? b : a;
    }
    return a < b ? b : a;
}

/* With another rounding than to the nearest. */
template <class T> __attribute__((noinline)) static T rounded(int how, char what, T a, T b, T c)
{
    volatile T x = a, y = b, z = c;
    int before = fegetround();
    fesetround(how);
    volatile T result = what == '+' ? x + y : what == '*' ? x * y : fma(x, y, z);
    fesetround(before);
    return result;
}

enum rounding { AS_IT_IS, NEAREST, TO_ZERO, DOWN, UP };

template <class T> static T integral(T a, int how)
{
    return how == NEAREST ? (T)nearbyint(a) : how == TO_ZERO ? trunc(a) : how == DOWN ? floor(a) : how == UP ? ceil(a) : a;
}

enum { SATURATE = 16 };

/* `offset` says how it is rounded, and whether it is limited to 0 to 1. */
template <class D, class S> static void convert(struct ptx_frame *f, const struct ptx_instruction *i)
{
    S a = get<S>(f, i->o[1]);
    int how = (int)i->offset & (SATURATE - 1);
    if constexpr (std::is_floating_point_v<S> && std::is_integral_v<D>) {
        S whole = integral(a, how);
        if (a != a) /* "depending upon conversion types", says the ISA */
            put<D>(f, i->o[0], sizeof(S) == 8 || sizeof(D) == 8 ? (D)((uint64_t)1 << (8 * sizeof(D) - 1)) : 0);
        else if (whole >= ldexp((S)1, (int)(8 * sizeof(D)) - std::is_signed_v<D>))
            put<D>(f, i->o[0], std::is_signed_v<D> ? (D)~((uint64_t)1 << (8 * sizeof(D) - 1)) : (D)-1);
        else if (whole < (std::is_signed_v<D> ? -ldexp((S)1, (int)(8 * sizeof(D)) - 1) : 0))
            put<D>(f, i->o[0], std::is_signed_v<D> ? (D)((uint64_t)1 << (8 * sizeof(D) - 1)) : 0);
        else
            put<D>(f, i->o[0], (D)whole);
    } else if constexpr (std::is_floating_point_v<S> && std::is_floating_point_v<D>) {
        D x = (D)integral(a, how);
        put<D>(f, i->o[0], !(i->offset & SATURATE) ? x : !(x > 0) ? 0 : x > 1 ? 1 : x);
    } else {
        put<D>(f, i->o[0], (D)a);
    }
}

static uint32_t permuted(uint32_t a, uint32_t b, uint32_t which)
{
    uint64_t bytes = (uint64_t)b << 32 | a;
    uint32_t result = 0;
    for (int k = 0; k < 4; k++) {
        uint8_t x = (uint8_t)(bytes >> 8 * (which >> 4 * k & 7));
        result |= (uint32_t)(which >> 4 * k & 8 ? (x & 0x80 ? 0xFF : 0) : x) << 8 * k;
    }
    return result;
}

/* -------------------------------------------------------------------------------------------------------- instructions */

/* An opcode's parts; each must be asked for, or the opcode is not one that is known. */
struct opcode {
    std::vector<std::string> part;
    std::vector<bool> asked;
    std::string type;

    explicit opcode(const std::string &text)
    {
        for (size_t at = 0, end = 0; end != std::string::npos; at = end + 1) {
            /* "::" belongs to a part */
            end = text.find('.', at);
            part.push_back(text.substr(at, end == std::string::npos ? end : end - at));
        }
        asked.assign(part.size(), false);
        asked[0] = asked.back() = true;
        type = part.back();
    }

    bool has(const char *name)
    {
        for (size_t k = 1; k < part.size(); k++)
            if (part[k] == name)
                return asked[k] = true;
        return false;
    }

    bool is_known() const
    {
        for (bool each : asked)
            if (!each)
                return false;
        return true;
    }
};

#define RUN [](struct ptx_frame * f, const struct ptx_instruction *i)
#define A get<T>(f, i->o[1])
#define B get<T>(f, i->o[2])
#define C get<T>(f, i->o[3])
#define D(...) put<T>(f, i->o[0], (T)(__VA_ARGS__))
#define WIDE(x) ((uint64_t)(x)) /* without a sign nothing overflows; the low bits are the same */
#define IF_TYPE(unsigned_name, bits_name, t, ...)                                                                         \
    if (op.type == unsigned_name || op.type == bits_name)                                                                 \
        return RUN { typedef t T; __VA_ARGS__; };
#define BITS(...)                                                                                                         \
    {                                                                                                                     \
        IF_TYPE("u16", "b16", uint16_t, __VA_ARGS__)                                                                      \
        IF_TYPE("u32", "b32", uint32_t, __VA_ARGS__)                                                                      \
        IF_TYPE("u64", "b64", uint64_t, __VA_ARGS__)                                                                      \
    }
#define INTEGERS(...)                                                                                                     \
    {                                                                                                                     \
        BITS(__VA_ARGS__)                                                                                                 \
        IF_TYPE("s16", "s16", int16_t, __VA_ARGS__)                                                                       \
        IF_TYPE("s32", "s32", int32_t, __VA_ARGS__)                                                                       \
        IF_TYPE("s64", "s64", int64_t, __VA_ARGS__)                                                                       \
    }
#define FLOATS(...)                                                                                                       \
    {                                                                                                                     \
        IF_TYPE("f32", "f32", float, __VA_ARGS__)                                                                         \
        IF_TYPE("f64", "f64", double, __VA_ARGS__)                                                                        \
    }
#define ONLY(name, t, ...) IF_TYPE(name, name, t, __VA_ARGS__)

static void decide(struct ptx_frame *f, const struct ptx_instruction *i, bool yes)
{
    put<uint8_t>(f, i->o[0], yes);
    put<uint8_t>(f, i->o[SECOND], !yes);
}

static ptx_run comparison(struct opcode &op)
{
    std::string how = op.part[1];
    op.has(how.c_str());
    if (how == "eq") { INTEGERS(decide(f, i, A == B)) FLOATS(decide(f, i, A == B)) }
    if (how == "ne") { INTEGERS(decide(f, i, A != B)) FLOATS(decide(f, i, A < B || A > B)) }
    if (how == "lt" || how == "lo") { INTEGERS(decide(f, i, A < B)) FLOATS(decide(f, i, A < B)) }
    if (how == "le" || how == "ls") { INTEGERS(decide(f, i, A <= B)) FLOATS(decide(f, i, A <= B)) }
    if (how == "gt" || how == "hi") { INTEGERS(decide(f, i, A > B)) FLOATS(decide(f, i, A > B)) }
    if (how == "ge" || how == "hs") { INTEGERS(decide(f, i, A >= B)) FLOATS(decide(f, i, A >= B)) }
    if (how == "equ") FLOATS(decide(f, i, !(A < B || A > B)))
    if (how == "neu") FLOATS(decide(f, i, !(A == B)))
    if (how == "ltu") FLOATS(decide(f, i, !(A >= B)))
    if (how == "leu") FLOATS(decide(f, i, !(A > B)))
    if (how == "gtu") FLOATS(decide(f, i, !(A <= B)))
    if (how == "geu") FLOATS(decide(f, i, !(A < B)))
    if (how == "num") FLOATS(decide(f, i, A == A && B == B))
    if (how == "nan") FLOATS(decide(f, i, A != A || B != B))
    return NULL;
}

template <class T> static ptx_run conversion_to(const std::string &from)
{
    if (from == "u8") return convert<T, uint8_t>;
    if (from == "s8") return convert<T, int8_t>;
    if (from == "u16") return convert<T, uint16_t>;
    if (from == "s16") return convert<T, int16_t>;
    if (from == "u32") return convert<T, uint32_t>;
    if (from == "s32") return convert<T, int32_t>;
    if (from == "u64") return convert<T, uint64_t>;
    if (from == "s64") return convert<T, int64_t>;
    if (from == "f32") return convert<T, float>;
    if (from == "f64") return convert<T, double>;
    return NULL;
}

static ptx_run conversion(struct opcode &op, struct ptx_instruction *made)
{
    if (op.type == "f32" && op.has("bf16x2") && op.has("rn"))
        return RUN { put<uint32_t>(f, i->o[0], (uint32_t)ptx_to_bf16(get<float>(f, i->o[1])) << 16 | ptx_to_bf16(get<float>(f, i->o[2]))); };
    if (op.type == "f32" && op.has("f16x2") && op.has("rn"))
        return RUN { put<uint32_t>(f, i->o[0], (uint32_t)ptx_to_half(get<float>(f, i->o[1])) << 16 | ptx_to_half(get<float>(f, i->o[2]))); };
    if (op.type == "f32" && op.has("bf16") && op.has("rn"))
        return RUN { put<uint16_t>(f, i->o[0], ptx_to_bf16(get<float>(f, i->o[1]))); };
    if (op.type == "f32" && op.has("f16") && op.has("rn"))
        return RUN { put<uint16_t>(f, i->o[0], ptx_to_half(get<float>(f, i->o[1]))); };
    if (op.type == "f16" && op.has("f32"))
        return RUN { put<float>(f, i->o[0], ptx_from_half(get<uint16_t>(f, i->o[1]))); };
    std::string to = op.part[op.part.size() - 2];
    op.has(to.c_str());
    made->offset = op.has("rni") ? NEAREST : op.has("rzi") ? TO_ZERO : op.has("rmi") ? DOWN : op.has("rpi") ? UP : AS_IT_IS;
    if (op.has("sat"))
        made->offset |= SATURATE;
    op.has("rn");
    bool to_float = to[0] == 'f', from_float = op.type[0] == 'f';
    if (from_float && !to_float && !(made->offset & ~SATURATE))
        return NULL; /* a rounding must be named */
    if (to == "u8") return conversion_to<uint8_t>(op.type);
    if (to == "s8") return conversion_to<int8_t>(op.type);
    if (to == "u16") return conversion_to<uint16_t>(op.type);
    if (to == "s16") return conversion_to<int16_t>(op.type);
    if (to == "u32") return conversion_to<uint32_t>(op.type);
    if (to == "s32") return conversion_to<int32_t>(op.type);
    if (to == "u64") return conversion_to<uint64_t>(op.type);
    if (to == "s64") return conversion_to<int64_t>(op.type);
    if (to == "f32") return conversion_to<float>(op.type);
    if (to == "f64") return conversion_to<double>(op.type);
    return NULL;
}

/* The carry of sums of 32 bits. */
static void with_carry(struct ptx_frame *f, const struct ptx_instruction *i, uint64_t sum, bool keeps)
{
    put<uint32_t>(f, i->o[0], (uint32_t)sum);
    if (keeps)
        f->carry = sum >> 32 & 1;
}

/* Sums and products of more than 32 bits, in pieces. */
static ptx_run piece(struct opcode &op)
{
    std::string base = op.part[0];
    bool keeps = op.has("cc"), low = op.has("lo"), high = !low && op.has("hi"), product = base == "mad" || base == "madc";
    typedef uint32_t T;
    if (op.type != "u32" || product != (low || high))
        return NULL;
#define SUM(...) keeps ? (ptx_run)RUN { with_carry(f, i, __VA_ARGS__, true); } : (ptx_run)RUN { with_carry(f, i, __VA_ARGS__, false); }
    if (base == "add") return SUM(WIDE(A) + B);
    if (base == "addc") return SUM(WIDE(A) + B + f->carry);
    /* a difference is a sum with the complement; its borrow is no carry */
    if (base == "sub") return SUM(WIDE(A) - B);
    if (base == "subc") return SUM(WIDE(A) - B - f->carry);
    if (base == "mad") return low ? SUM((WIDE(A) * B & 0xFFFFFFFF) + C) : SUM((WIDE(A) * B >> 32) + C);
    if (base == "madc") return low ? SUM((WIDE(A) * B & 0xFFFFFFFF) + C + f->carry) : SUM((WIDE(A) * B >> 32) + C + f->carry);
#undef SUM
    return NULL;
}

static ptx_run arithmetic(struct opcode &op)
{
    std::string base = op.part[0];
    if (base == "addc" || base == "subc" || base == "madc" || op.has("cc"))
        return piece(op);
    if (base == "fma" && op.has("rm")) FLOATS(D(rounded<T>(FE_DOWNWARD, 'f', A, B, C)))
    if (base == "fma" && op.has("rp")) FLOATS(D(rounded<T>(FE_UPWARD, 'f', A, B, C)))
    if (base == "fma" && op.has("rz")) FLOATS(D(rounded<T>(FE_TOWARDZERO, 'f', A, B, C)))
    if (base == "add" && op.has("rz")) FLOATS(D(rounded<T>(FE_TOWARDZERO, '+', A, B, 0)))
    if (base == "add" && op.has("rm")) FLOATS(D(rounded<T>(FE_DOWNWARD, '+', A, B, 0)))
    if (base == "mul" && op.has("rz")) FLOATS(D(rounded<T>(FE_TOWARDZERO, '*', A, B, 0)))
    bool nearest = op.has("rn");
    if (base == "add") { INTEGERS(D(WIDE(A) + WIDE(B))) FLOATS(D(A + B)) }
    if (base == "sub") { INTEGERS(D(WIDE(A) - WIDE(B))) FLOATS(D(A - B)) }
    if (base == "mul" && op.has("lo")) INTEGERS(D(WIDE(A) * WIDE(B)))
    if (base == "mul" && op.has("hi")) INTEGERS(D((typename twice<T>::type)A * B >> 8 * sizeof(T)))
    if (base == "mul" && op.has("wide")) INTEGERS(put<uint64_t>(f, i->o[0], (uint64_t)((typename twice<T>::type)A * B)))
    if (base == "mul") FLOATS(D(A * B))
    if (base == "mad" && op.has("lo")) INTEGERS(D(WIDE(A) * WIDE(B) + WIDE(C)))
    if (base == "mad" && op.has("wide"))
        INTEGERS(put<uint64_t>(f, i->o[0], (uint64_t)((typename twice<T>::type)A * B) + get<uint64_t>(f, i->o[3])))
    if (base == "fma" && nearest) FLOATS(D(sizeof(T) == 4 ? fmaf((float)A, (float)B, (float)C) : fma(A, B, C)))
    if (base == "div") { INTEGERS(D(quotient<T>(A, B))) if (nearest) FLOATS(D(A / B)) }
    if (base == "rem") INTEGERS(D(remainder_of<T>(A, B)))
    if (base == "min") { INTEGERS(D(least<T>(A, B))) FLOATS(D(least<T>(A, B))) }
    if (base == "max") { INTEGERS(D(most<T>(A, B))) FLOATS(D(most<T>(A, B))) }
    if (base == "abs") { INTEGERS(D((int64_t)A < 0 ? 0 - WIDE(A) : WIDE(A))) FLOATS(D(sizeof(T) == 4 ? fabsf((float)A) : fabs(A))) }
    if (base == "neg") { INTEGERS(D(0 - WIDE(A))) FLOATS(D(-A)) }
    if (base == "copysign") FLOATS(D(copysign(B, A)))
    if (base == "sqrt" && nearest) FLOATS(D(sqrt(A)))
    if (base == "rcp" && nearest) FLOATS(D(1 / A))
    /* the hardware's are right to some two units of the last place (PTX ISA); here they are the nearest */
    if (op.has("approx")) {
        bool flushes = op.has("ftz");
        if (base == "ex2") ONLY("f32", float, D(exp2(A)))
        if (base == "lg2") ONLY("f32", float, D(log2(A)))
        if (base == "sin") ONLY("f32", float, D(sin(A)))
        if (base == "cos") ONLY("f32", float, D(cos(A)))
        if (base == "tanh") ONLY("f32", float, D(tanh(A)))
        if (base == "sqrt") ONLY("f32", float, D(sqrt(A)))
        if (base == "rsqrt") FLOATS(D(1 / sqrt(A)))
        if (base == "rcp") ONLY("f32", float, D(1 / A))
        /* "a gross approximation": the upper half of the number is right, the rest zeros */
        if (base == "rcp" && flushes) ONLY("f64", double, double x = 1 / A; uint64_t b; memcpy(&b, &x, 8); put<uint64_t>(f, i->o[0], b >> 32 << 32))
        if (base == "div") ONLY("f32", float, D(A / B))
    }
    return NULL;
}

static ptx_run bitwise(struct opcode &op)
{
    std::string base = op.part[0];
#define NUMBER get<uint32_t>(f, i->o[2])
    if (base == "shl") BITS(D(NUMBER < 8 * sizeof(T) ? WIDE(A) << NUMBER : 0))
    if (base == "shr") INTEGERS(D(NUMBER < 8 * sizeof(T) ? A >> NUMBER : std::is_signed_v<T> && (int64_t)A < 0 ? -1 : 0))
#undef NUMBER
    if (op.type == "pred") {
        typedef uint8_t T;
        if (base == "and") return RUN { D(A & B & 1); };
        if (base == "or") return RUN { D((A | B) & 1); };
        if (base == "xor") return RUN { D((A ^ B) & 1); };
        if (base == "not") return RUN { D(~A & 1); };
    }
    if (base == "and") BITS(D(A & B))
    if (base == "or") BITS(D(A | B))
    if (base == "xor") BITS(D(A ^ B))
    if (base == "not") BITS(D(~A))
    if (base == "popc") BITS(put<uint32_t>(f, i->o[0], (uint32_t)__builtin_popcountll(A)))
    if (base == "clz") BITS(put<uint32_t>(f, i->o[0], A ? (uint32_t)(__builtin_clzll(A) - 64 + (int)(8 * sizeof(T))) : (uint32_t)(8 * sizeof(T))))
    if (base == "brev") ONLY("b32", uint32_t, uint32_t x = 0; for (int k = 0; k < 32; k++) x |= (A >> k & 1) << (31 - k); D(x))
    if (base == "shf" && op.has("r") && op.has("wrap")) ONLY("b32", uint32_t, D(((uint64_t)B << 32 | A) >> (C & 31)))
    if (base == "shf" && op.has("l") && op.has("wrap")) ONLY("b32", uint32_t, D((((uint64_t)B << 32 | A) << (C & 31)) >> 32))
    if (base == "prmt") ONLY("b32", uint32_t, D(permuted(A, B, C)))
    /* so many bits of one number, put into another at a place */
#define AT (get<uint32_t>(f, i->o[3]) & 0xFF)
#define LENGTH (get<uint32_t>(f, i->o[4]) & 0xFF)
    if (base == "bfi")
        BITS(T mask = (T)((LENGTH < 8 * sizeof(T) ? ((T)1 << LENGTH) - 1 : (T)-1)); uint32_t at = AT;
             mask = at < 8 * sizeof(T) ? (T)(mask << at) : 0; D((B & ~mask) | ((at < 8 * sizeof(T) ? A << at : 0) & mask)))
#undef AT
#undef LENGTH
    return NULL;
}

template <enum space S, int N> static ptx_run access(const std::string &type, bool loads)
{
#define ACCESS(name, t) if (type == name) return loads ? load<t, S, N> : store<t, S, N>
    ACCESS("u8", uint8_t); ACCESS("b8", uint8_t); ACCESS("s8", int8_t);
    ACCESS("u16", uint16_t); ACCESS("b16", uint16_t); ACCESS("s16", int16_t);
    ACCESS("u32", uint32_t); ACCESS("b32", uint32_t); ACCESS("s32", int32_t); ACCESS("f32", uint32_t);
    ACCESS("u64", uint64_t); ACCESS("b64", uint64_t); ACCESS("s64", int64_t); ACCESS("f64", uint64_t);
#undef ACCESS
    return NULL;
}

template <enum space S> static ptx_run access_of(struct opcode &op, bool loads)
{
    if (op.has("v2")) return access<S, 2>(op.type, loads);
    if (op.has("v4")) return access<S, 4>(op.type, loads);
    return access<S, 1>(op.type, loads);
}

static enum space space_of(struct opcode &op)
{
    if (op.has("shared") || op.has("shared::cta")) return SHARED;
    return op.has("global") ? GLOBAL : op.has("local") ? LOCAL : op.has("param") ? PARAMETER : GENERIC;
}

static ptx_run memory(struct opcode &op)
{
    bool loads = op.part[0] == "ld";
    enum space space = space_of(op);
    op.has("nc"); /* by the cache for what is not written; nothing else shows here */
    op.has("volatile");
    switch (space) {
    case SHARED: return access_of<SHARED>(op, loads);
    case GLOBAL: return access_of<GLOBAL>(op, loads);
    case LOCAL: return access_of<LOCAL>(op, loads);
    case PARAMETER: return access_of<PARAMETER>(op, loads);
    default: return access_of<GENERIC>(op, loads);
    }
}

/* A change of a number in memory that no other thread comes between; `offset` is of the address. o: result, address, operands. */
static ptx_run atomic(struct opcode &op)
{
    op.has("relaxed"), op.has("gpu"), op.has("cta");
    bool reduces = op.part[0] == "red";
    if (reduces)
        return NULL; /* is made an `atom` without a result before it comes here */
#define CHANGE(S, ...) T *p = (T *)address_in(S, get<uint64_t>(f, i->o[1]) + (uint64_t)i->offset, sizeof(T)); T old = *p; T x = B; *p = __VA_ARGS__; D(old)
#define CHANGES(S)                                                                                                        \
    if (op.has("add")) { BITS(CHANGE(S, (T)(old + x))) FLOATS(CHANGE(S, old + x)) ONLY("s32", int32_t, CHANGE(S, (T)((uint32_t)old + (uint32_t)x))) } \
    if (op.has("max")) INTEGERS(CHANGE(S, old < x ? x : old))                                                             \
    if (op.has("min")) INTEGERS(CHANGE(S, x < old ? x : old))                                                             \
    if (op.has("exch")) BITS(CHANGE(S, x))                                                                                \
    if (op.has("or")) BITS(CHANGE(S, (T)(old | x)))                                                                       \
    if (op.has("and")) BITS(CHANGE(S, (T)(old & x)))                                                                      \
    if (op.has("cas")) BITS(CHANGE(S, old == x ? C : old))
    enum space space = space_of(op);
    if (space == SHARED) { CHANGES(SHARED) }
    if (space == GLOBAL) { CHANGES(GLOBAL) }
    if (space == GENERIC) { CHANGES(GENERIC) }
#undef CHANGES
#undef CHANGE
    return NULL;
}

/* ------------------------------------------------------------------------------------- what a block or a warp does together */

static void shuffle(struct ptx_frame *f, const struct ptx_instruction *i)
{
    uint32_t mine = get<uint32_t>(f, i->o[1]), step = get<uint32_t>(f, i->o[2]), clamp = get<uint32_t>(f, i->o[3]);
    int lane = lane_now(), from;
    char how = (char)i->offset;
    char (*all)[PAYLOAD] = together(get<uint32_t>(f, i->o[4]), &mine, sizeof mine);
    if (clamp != (how == 'u' ? 0 : 31))
        fault("a shuffle in parts of a warp, which the emulation does not know");
    from = how == 'b' ? lane ^ (int)step : how == 'd' ? lane + (int)step : how == 'u' ? lane - (int)step : (int)step & 31;
    bool inside = from >= 0 && from < LANES_OF_WARP;
    memcpy(&mine, all[inside ? from : lane], sizeof mine);
    put<uint32_t>(f, i->o[0], mine);
    put<uint8_t>(f, i->o[SECOND], inside);
}

/* Fragments of two matrices and of the sum, as they stand in braces: d, a, b, c. */
template <bool F16> static void warp_product(struct ptx_frame *f, const struct ptx_instruction *i)
{
    float d[4];
    uint32_t a[4], b[2];
    for (size_t k = 0; k < 4; k++) {
        d[k] = get<float>(f, i->list[10 + k]);
        a[k] = get<uint32_t>(f, i->list[4 + k]);
    }
    for (size_t k = 0; k < 2; k++)
        b[k] = get<uint32_t>(f, i->list[8 + k]);
    emulated_mma(d, a, b, F16 ? ptx_from_half : ptx_from_bf16);
    for (size_t k = 0; k < 4; k++)
        put<float>(f, i->list[k], d[k]);
}

template <bool TRANSPOSED> static void load_fragments(struct ptx_frame *f, const struct ptx_instruction *i)
{
    uint32_t r[4];
    emulated_load_matrices(r, (const uint16_t *)address_in(SHARED, f->r[i->o[0]] + (uint64_t)i->offset, 16), TRANSPOSED);
    for (size_t k = 0; k < 4; k++)
        put<uint32_t>(f, i->list[k], r[k]);
}

/* o: two operands' words, whether what was there is added to. */
template <bool F16> static void group_product(struct ptx_frame *f, const struct ptx_instruction *i)
{
    if (!get<uint8_t>(f, i->o[2]))
        fault("a product that is not added to what was there, which the emulation does not know");
    begin_product((float *)f->r, i->list.data(), 2 * (int)i->list.size(), f->r[i->o[0]], f->r[i->o[1]], F16 ? ptx_from_half : ptx_from_bf16);
}

static inline uint64_t *barrier_of(struct ptx_frame *f, const struct ptx_instruction *i, int place)
{
    return (uint64_t *)address_in(SHARED, get<uint32_t>(f, i->o[place]) + (uint64_t)i->offset, 8);
}

/* Instructions with names too long for parts to be asked one by one. */
static ptx_run whole(const std::string &text, struct ptx_instruction *made)
{
    static const struct {
        const char *name;
        ptx_run run;
    } known[] = {
        {"bar.sync", RUN { if (get<uint32_t>(f, i->o[0])) fault("a barrier other than number 0, which the emulation does not know"); __syncthreads(); }},
        {"bar.warp.sync", RUN { __syncwarp(get<uint32_t>(f, i->o[0])); }},
        {"vote.sync.any.pred", RUN { put<uint8_t>(f, i->o[0], __ballot_sync(get<uint32_t>(f, i->o[2]), get<uint8_t>(f, i->o[1]) & 1) != 0); }},
        {"vote.sync.all.pred", RUN { put<uint8_t>(f, i->o[0], __ballot_sync(get<uint32_t>(f, i->o[2]), get<uint8_t>(f, i->o[1]) & 1) == 0xFFFFFFFF); }},
        {"vote.sync.ballot.b32", RUN { put<uint32_t>(f, i->o[0], __ballot_sync(get<uint32_t>(f, i->o[2]), get<uint8_t>(f, i->o[1]) & 1)); }},
        {"dp4a.s32.s32", RUN { put<int32_t>(f, i->o[0], __dp4a(get<int32_t>(f, i->o[1]), get<int32_t>(f, i->o[2]), get<int32_t>(f, i->o[3]))); }},
        {"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", warp_product<true>},
        {"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", warp_product<false>},
        {"ldmatrix.sync.aligned.m8n8.x4.shared.b16", load_fragments<false>},
        {"ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16", load_fragments<true>},
        {"cp.async.cg.shared.global", RUN {
             if (get<uint32_t>(f, i->o[2]) != 16)
                 fault("a copy of other than 16 bytes, which the emulation does not know");
             emulated_copy_later(address_in(SHARED, get<uint32_t>(f, i->o[0]), 16), address_in(GLOBAL, get<uint64_t>(f, i->o[1]), 16)); }},
        {"cp.async.commit_group", RUN { (void)f, (void)i; emulated_close_group(); }},
        {"cp.async.wait_group", RUN { emulated_wait_for_groups(get<int32_t>(f, i->o[0])); }},
        {"cp.async.wait_all", RUN { (void)f, (void)i; emulated_wait_for_copies(); }},
        {"prefetch.global.L2", RUN { emulated_touch(address_in(GLOBAL, f->r[i->o[0]] + (uint64_t)i->offset, 1)); }},
        {"mbarrier.init.shared::cta.b64", RUN { emulated_barrier_init(barrier_of(f, i, 0), get<int32_t>(f, i->o[1])); }},
        {"mbarrier.arrive.shared::cta.b64", RUN { emulated_barrier_arrive(barrier_of(f, i, 1), 0); }},
        {"mbarrier.arrive.expect_tx.shared::cta.b64", RUN { emulated_barrier_arrive(barrier_of(f, i, 1), get<int32_t>(f, i->o[2])); }},
        {"mbarrier.try_wait.parity.shared::cta.b64", RUN {
             emulated_barrier_wait(barrier_of(f, i, 1), get<int32_t>(f, i->o[2])); /* it may wait as long as it likes */
             put<uint8_t>(f, i->o[0], 1); }},
        {"fence.mbarrier_init.release.cluster", RUN { (void)f, (void)i; }},
        {"fence.proxy.async.shared::cta", RUN { (void)f, (void)i; emulated_fence_async(); }},
        {"membar.gl", RUN { (void)f, (void)i; }},
        {"membar.cta", RUN { (void)f, (void)i; }},
        /* o: where to, the map, the barrier; in braces, where the box begins */
        {"cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes", RUN {
             int32_t at[4];
             for (size_t k = 0; k < 4; k++)
                 at[k] = get<int32_t>(f, i->list[k]);
             emulated_copy_box((const void *)f->r[i->o[1]], address_in(SHARED, get<uint32_t>(f, i->o[0]), 16),
                               (uint64_t *)address_in(SHARED, get<uint32_t>(f, i->o[2]), 8), at[0], at[1], at[2], at[3]); }},
        {"wgmma.fence.sync.aligned", RUN { (void)f, (void)i; __syncwarp(); emulated_wgmma_fence(); }},
        {"wgmma.commit_group.sync.aligned", RUN { (void)f, (void)i; emulated_wgmma_commit(); }},
        {"wgmma.wait_group.sync.aligned", RUN { emulated_wgmma_wait(get<int32_t>(f, i->o[0])); }},
        {"wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16", group_product<true>},
        {"wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16", group_product<true>},
        {"wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16", group_product<false>},
        {"wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16", group_product<false>},
        {"trap", RUN { (void)f, (void)i; fault("a trap"); }},
    };
    for (auto &each : known)
        if (text == each.name)
            return each.run;
    if (text.rfind("shfl.sync.", 0) == 0 && text.substr(text.rfind('.')) == ".b32") {
        made->offset = text[10]; /* bfly, down, up or idx */
        return shuffle;
    }
    return NULL;
}

static void leave(struct ptx_frame *f, const struct ptx_instruction *)
{
    struct ptx_frame *caller = f->caller;
    if (caller) {
        /* the call is the instruction before the next one: its list says where its results go */
        const struct ptx_instruction *call = caller->next - 1;
        size_t count = f->function->results.size();
        for (size_t k = 0; k < count; k++)
            memcpy(caller->memory + call->list[k], f->memory + f->function->results[k].first, (size_t)f->function->results[k].second);
    }
    ptx_now[emulated.current] = caller;
}

/* `list`: where results go in the caller's memory, then where parameters come from. */
static void call(struct ptx_frame *f, const struct ptx_instruction *i)
{
    struct ptx_frame *g = ptx_enter(i->callee, f, (uint8_t *)(((uintptr_t)(f->r + f->function->registers) + 63) / 64 * 64));
    size_t first = i->callee->results.size();
    for (size_t k = 0; k < i->callee->parameters.size(); k++)
        memcpy(g->memory + i->callee->parameters[k].first, f->memory + i->list[first + k], (size_t)i->callee->parameters[k].second);
    ptx_now[emulated.current] = g;
}

static ptx_run instruction(const std::string &text, struct ptx_instruction *made)
{
    if (ptx_run run = whole(text, made))
        return run;
    if (text == "bra" || text == "bra.uni")
        return RUN { f->next = &f->function->code[(size_t)i->offset]; };
    if (text == "ret" || text == "exit" || text == "ret.uni")
        return leave;
    if (text == "call" || text == "call.uni")
        return call;
    struct opcode op(text);
    std::string base = op.part[0];
    ptx_run run = NULL;
    if (base == "ld" || base == "st") {
        run = memory(op);
    } else if (base == "setp") {
        run = comparison(op);
    } else if (base == "cvt") {
        run = conversion(op, made);
    } else if (base == "atom") {
        run = atomic(op);
    } else if (base == "selp") {
        run = op.type == "b32" || op.type == "f32"   ? (ptx_run)RUN { put<uint32_t>(f, i->o[0], get<uint32_t>(f, i->o[get<uint8_t>(f, i->o[3]) & 1 ? 1 : 2])); }
              : op.type == "b64" || op.type == "f64" ? (ptx_run)RUN { put<uint64_t>(f, i->o[0], f->r[i->o[get<uint8_t>(f, i->o[3]) & 1 ? 1 : 2]]); }
                                                     : [&]() -> ptx_run { INTEGERS(D(get<uint8_t>(f, i->o[3]) & 1 ? A : B)) return NULL; }();
    } else if (base == "mov") {
        if (op.type == "f32") op.type = "b32";
        if (op.type == "f64") op.type = "b64";
        run = op.type == "pred" ? (ptx_run)RUN { put<uint8_t>(f, i->o[0], get<uint8_t>(f, i->o[1]) & 1); }
                                : [&]() -> ptx_run { INTEGERS(D(A)) return NULL; }();
    } else if (base == "cvta") {
        bool back = op.has("to");
        enum space space = space_of(op);
        if (space != SHARED)
            run = RUN { put<uint64_t>(f, i->o[0], f->r[i->o[1]]); };
        else if (back)
            run = RUN { put<uint64_t>(f, i->o[0], emulated_shared_address((const void *)f->r[i->o[1]])); };
        else
            run = RUN { put<uint64_t>(f, i->o[0], (uint64_t)address_in(SHARED, f->r[i->o[1]], 1)); };
        if (op.type != "u64")
            run = NULL;
    }
    if (!run)
        run = arithmetic(op);
    if (!run)
        run = bitwise(op);
    return run && op.is_known() ? run : NULL;
}

#undef A
#undef B
#undef C
#undef D
#include "ptx_text.h"
