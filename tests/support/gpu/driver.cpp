/* A stand-in for NVIDIA's driver library, libcuda.so.1, on which the real pycuda runs, and with it backends/cuda/driver.py.

   cuda.h gives the prototypes, and what a call does and answers is taken from what is written there and in the CUDA Driver API's pages
   "API synchronization behavior" and "Stream synchronization behavior"; where they leave something open, the answer is the one that
   helps a caller least. Nothing is done on the sly: a function that is not written here answers CUDA_ERROR_NOT_SUPPORTED, and what the
   documentation calls undefined ends the process with a sentence on stderr, because a real driver may do anything then.

   Device memory is the process's own, each allocation before a page that can't be touched. A module's image is PTX, which ptx.h
   interprets. Work given to a stream is done as late as the documentation allows, at once, or in between:

       STANDIN_ORDER       late (nothing is done before somebody must wait for it), early (at once), or a number to draw from
       STANDIN_DEVICES     how many there are; 1
       STANDIN_CAPABILITY  compute capability times ten; 90
       STANDIN_MEMORY      bytes of each device; 2^32
       STANDIN_PROCESSORS  multiprocessors of each device; 4
       STANDIN_FAULT       what a kernel's fault makes useless: "context", or "process", as cuda.h says of CUDA_ERROR_ILLEGAL_ADDRESS
       STANDIN_STICKY      which calls answer with such a fault: "work", or "all", those too that only make a context current or not,
                           as "may also return error codes from previous, asynchronous launches" allows

   standin_set changes one of them, standin_count says what is alive, standin_fail makes the next call of a function fail. */
#pragma GCC visibility push(default)
#include <cuda.h>
#include <cudaProfiler.h>
#pragma GCC visibility pop

#include <sys/mman.h>

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

/* ptx.h, which is compiled apart: emulated.h makes words of its own of names that C++'s headers use. */
struct ptx_module;
struct ptx_kernel;
extern "C" {
struct ptx_module *ptx_load(const char *text, char *error, size_t room); /* NULL, and words in `error`, where it can't */
void ptx_unload(struct ptx_module *);
const struct ptx_kernel *ptx_find(const struct ptx_module *, const char *name);
size_t ptx_parameter_bytes(const struct ptx_kernel *);
/* NULL or what went wrong; order: as `kind` of emulated_launch. */
const char *ptx_launch(const struct ptx_kernel *, const unsigned grid[3], const unsigned block[3], int shared, const void *argument,
                       int order);
}

#define SEEN extern "C" __attribute__((visibility("default")))

namespace {

enum { PAGE = 4096, ALIGNMENT = 256, CANARY = 0xC5, FRESH = 0xA5, BLOCKING = 0, PARAMETER_ALIGNMENT = 128, MOST_BLOCK = 1024 };
enum { SHARED_WITHOUT_ASKING = 48 * 1024 };

[[noreturn]] void undefined(const char *format, ...) __attribute__((format(printf, 1, 2)));

[[noreturn]] void undefined(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("libcuda stand-in: undefined behaviour: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs("\n", stderr);
    va_end(arguments);
    abort();
}

/* ------------------------------------------------------------------------------------------------------------ settings */

std::map<std::string, std::string> changed;

std::string setting(const char *name, const char *otherwise)
{
    auto found = changed.find(name);
    if (found != changed.end())
        return found->second;
    const char *given = getenv((std::string("STANDIN_") + name).c_str());
    return given && *given ? given : otherwise;
}

long number(const char *name, const char *otherwise) { return strtol(setting(name, otherwise).c_str(), nullptr, 0); }

/* ------------------------------------------------------------------------------------------------------------- objects */

struct context;

struct module_loaded {
    context *of;
    ptx_module *code;
    std::map<std::string, struct function *> functions;
    bool alive = true;
};

struct function {
    module_loaded *of;
    const ptx_kernel *kernel;
    std::string name;
    unsigned most_shared = SHARED_WITHOUT_ASKING;
};

/* Some bytes that a piece of work reads or writes. */
struct range {
    uintptr_t begin, end;
    bool touches(const range &other) const { return begin < other.end && other.begin < end; }
};

struct stream;

struct work {
    std::function<CUresult()> run;
    std::vector<range> uses; /* what must not be freed before it is done */
    std::map<stream *, long> after; /* how much of other streams comes before it */
};

struct launch {
    function *of;
    unsigned grid[3], block[3], shared;
    std::vector<char> argument;
};

struct graph {
    std::vector<launch> launches;
    context *of;
};

struct executable {
    std::shared_ptr<graph> what;
};

enum capture_state { NONE, CAPTURING, INVALIDATED };

struct stream {
    context *of;
    bool is_blocking;
    std::deque<work> queue;
    long issued = 0, done = 0;
    capture_state capture = NONE;
    CUstreamCaptureMode mode;
    std::thread::id thread;
    graph *recorded = nullptr;
    bool alive = true;
};

struct allocation {
    context *of;
    char *mapped, *begin;
    size_t size, room, length; /* asked for; with its rounding; of the mapping */
};

struct pinned {
    context *of;
    size_t size, length; /* length: of the mapping; 0: the caller's own memory, registered */
};

struct context {
    int device;
    int usage = 1;
    bool alive = true;
    CUresult fault = CUDA_SUCCESS;
    std::string what; /* the fault in words */
    stream legacy; /* the NULL stream */
    std::set<stream *> streams;
    std::set<module_loaded *> modules;
    std::set<graph *> graphs;
    std::atomic<int> calls{0};
    std::atomic<bool> ending{false};
};

std::recursive_mutex everything;
bool initialised;
CUresult process_fault = CUDA_SUCCESS;
uint32_t drawn = 2463534242u;
std::set<context *> contexts;          /* all that were ever made: a handle that is stale must be told apart */
std::set<stream *> streams;
std::set<module_loaded *> modules;
std::set<function *> functions;
std::set<graph *> graphs;
std::map<executable *, context *> executables;
std::map<uintptr_t, allocation> allocations;
std::map<uintptr_t, pinned> pins;
std::map<std::string, CUresult> to_fail;
std::map<std::string, long> called;
thread_local std::vector<context *> current;

size_t live_bytes(int device)
{
    size_t sum = 0;
    for (auto &[_, a] : allocations)
        if (a.of->device == device)
            sum += a.room;
    return sum;
}

size_t most_bytes() { return (size_t)number("MEMORY", "0x100000000"); }
int capability() { return (int)number("CAPABILITY", "90"); }

unsigned most_shared()
{
    int which = capability();
    return 1024u * (which >= 90 ? 227 : which >= 86 ? 99 : which >= 80 ? 163 : 64);
}

bool answers_always() { return setting("STICKY", "work") == "all"; }

/* Whether an error is a fault of the context, by what cuda.h says of it: all later calls answer with it. */
bool stays(CUresult error)
{
    return error == CUDA_ERROR_ILLEGAL_ADDRESS || error == CUDA_ERROR_MISALIGNED_ADDRESS || error == CUDA_ERROR_LAUNCH_FAILED;
}

void fail(context *c, CUresult error, const std::string &what);

/* One call: what every function does first. `at` is the context that it uses, if it needs one. */
class call {
  public:
    CUresult error = CUDA_SUCCESS;
    context *at = nullptr;

    enum need { NOTHING, CONTEXT, CONTEXT_IN_ANY_STATE };

    call(const char *name, need needs) : lock(everything, std::defer_lock)
    {
        if (needs != NOTHING && !current.empty()) {
            at = current.back();
            if (at->ending)
                undefined("%s uses a context while it is destroyed", name);
            at->calls++;
        }
        lock.lock();
        called[name]++;
        auto planned = to_fail.find(name);
        if (!initialised) {
            error = CUDA_ERROR_NOT_INITIALIZED;
        } else if (planned != to_fail.end()) {
            error = planned->second;
            to_fail.erase(planned);
            if (at && at->alive && stays(error))
                fail(at, error, std::string(name) + " was told to fail");
        } else if (needs != NOTHING && !at) {
            error = CUDA_ERROR_INVALID_CONTEXT;
        } else if (needs != NOTHING && !at->alive) {
            error = CUDA_ERROR_CONTEXT_IS_DESTROYED;
        } else if (needs == CONTEXT && at->fault) {
            error = at->fault;
        } else if (needs == CONTEXT && process_fault) {
            error = process_fault;
        }
    }

    ~call()
    {
        if (at)
            at->calls--;
    }

  private:
    std::unique_lock<std::recursive_mutex> lock;
};

#define BEGIN(NEEDS)                                                                                                                     \
    call now(__func__, call::NEEDS);                                                                                                     \
    if (now.error)                                                                                                                       \
        return now.error

/* ---------------------------------------------------------------------------------------------------------------- work */

void fail(context *c, CUresult error, const std::string &what)
{
    if (c->fault)
        return;
    c->fault = error;
    c->what = what;
    if (setting("FAULT", "context") == "process")
        process_fault = error;
    if (getenv("STANDIN_VERBOSE"))
        fprintf(stderr, "libcuda stand-in: %s\n", what.c_str());
}

void run_until(stream *s, long count);

void run_first(stream *s)
{
    work first = std::move(s->queue.front());
    for (auto &[other, count] : first.after)
        run_until(other, count);
    s->queue.pop_front();
    if (!s->of->fault)
        if (CUresult error = first.run())
            fail(s->of, error, s->of->what);
    s->done++;
}

void run_until(stream *s, long count)
{
    while (s->done < count && !s->queue.empty())
        run_first(s);
}

void run_all(stream *s) { run_until(s, s->issued); }

void run_everything(context *c)
{
    run_all(&c->legacy);
    for (stream *s : c->streams)
        run_all(s);
}

uint32_t next_drawn()
{
    drawn ^= drawn << 13;
    drawn ^= drawn >> 17;
    return drawn ^= drawn << 5;
}

/* What a device may do beside the calls. */
void go_on(context *c)
{
    std::string order = setting("ORDER", "late");
    if (order == "late")
        return;
    if (order == "early") {
        run_everything(c);
        return;
    }
    std::vector<stream *> all(c->streams.begin(), c->streams.end());
    all.push_back(&c->legacy);
    for (unsigned n = next_drawn() % 4; n; n--) {
        stream *s = all[next_drawn() % all.size()];
        if (!s->queue.empty())
            run_first(s);
    }
}

/* The stream that a handle names; the documentation has CUDA_ERROR_INVALID_HANDLE for others. */
CUresult stream_of(call &now, CUstream handle, stream **found)
{
    if (!handle || handle == CU_STREAM_LEGACY) {
        *found = &now.at->legacy;
        return CUDA_SUCCESS;
    }
    stream *s = reinterpret_cast<stream *>(handle);
    if (!streams.count(s) || !s->alive)
        return CUDA_ERROR_INVALID_HANDLE;
    if (s->of != now.at)
        return CUDA_ERROR_INVALID_CONTEXT;
    *found = s;
    return CUDA_SUCCESS;
}

/* Refuse work of the NULL stream while a stream that it waits for is being recorded; the recording is lost then. */
CUresult disturb_captures(context *c)
{
    bool any = false;
    for (stream *s : c->streams)
        if (s->capture != NONE && s->is_blocking) {
            s->capture = INVALIDATED;
            any = true;
        }
    return any ? CUDA_ERROR_STREAM_CAPTURE_IMPLICIT : CUDA_SUCCESS;
}

/* Refuse what is "potentially unsafe" while something is recorded (cuThreadExchangeStreamCaptureMode). */
CUresult unsafe_call()
{
    for (stream *s : streams)
        if (s->alive && s->capture == CAPTURING) {
            bool mine = s->thread == std::this_thread::get_id() && s->mode != CU_STREAM_CAPTURE_MODE_RELAXED;
            if (mine || s->mode == CU_STREAM_CAPTURE_MODE_GLOBAL) {
                s->capture = INVALIDATED;
                return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
            }
        }
    return CUDA_SUCCESS;
}

CUresult issue(stream *s, work w)
{
    context *c = s->of;
    if (s == &c->legacy) {
        if (CUresult error = disturb_captures(c))
            return error;
        for (stream *other : c->streams)
            if (other->is_blocking)
                w.after[other] = other->issued;
    } else if (s->is_blocking) {
        w.after[&c->legacy] = c->legacy.issued;
    }
    if (s->capture != NONE) /* only kernels are recorded here */
        return s->capture = INVALIDATED, CUDA_ERROR_NOT_SUPPORTED;
    s->queue.push_back(std::move(w));
    s->issued++;
    go_on(c);
    return CUDA_SUCCESS;
}

/* -------------------------------------------------------------------------------------------------------------- memory */

const allocation *allocation_at(uintptr_t address, size_t size)
{
    auto after = allocations.upper_bound(address);
    if (after == allocations.begin())
        return nullptr;
    const allocation &a = std::prev(after)->second;
    uintptr_t begin = (uintptr_t)a.begin;
    return address - begin <= a.size && size <= a.size - (address - begin) ? &a : nullptr;
}

CUresult check_device(call &now, CUdeviceptr address, size_t size)
{
    const allocation *a = allocation_at(address, size);
    return a && a->of == now.at ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

bool is_pinned(const void *p, size_t size)
{
    auto after = pins.upper_bound((uintptr_t)p);
    if (after == pins.begin())
        return false;
    auto &[begin, pin] = *std::prev(after);
    return (uintptr_t)p + size <= begin + pin.size;
}

/* A real driver waits for work before it frees device memory, but nowhere promises it. */
void refuse_use(context *c, range freed, const char *what)
{
    std::vector<stream *> all(c->streams.begin(), c->streams.end());
    all.push_back(&c->legacy);
    for (stream *s : all)
        for (const work &w : s->queue)
            for (const range &r : w.uses)
                if (r.touches(freed))
                    undefined("%s that a copy which is under way uses", what);
}

void unmap(const allocation &a)
{
    for (char *p = a.mapped + PAGE; p < a.begin; p++)
        if ((unsigned char)*p != CANARY)
            undefined("bytes before an allocation of %zu were written", a.size);
    for (char *p = a.begin + a.size; p < a.begin + a.room; p++)
        if ((unsigned char)*p != CANARY)
            undefined("bytes behind an allocation of %zu were written", a.size);
    munmap(a.mapped, a.length);
}

range bytes_at(uintptr_t address, size_t size) { return {address, address + size}; }

void copy_bytes(uintptr_t to, uintptr_t from, size_t size) { memmove((void *)to, (const void *)from, size); }

/* From host memory; `waits`: the call without a stream. */
CUresult upload(call &now, CUdeviceptr to, const void *from, size_t size, stream *s, bool waits)
{
    if (CUresult error = check_device(now, to, size))
        return error;
    if (!from && size)
        return CUDA_ERROR_INVALID_VALUE;
    work w;
    w.uses.push_back(bytes_at(to, size));
    if (is_pinned(from, size)) {
        w.uses.push_back(bytes_at((uintptr_t)from, size));
        w.run = [=] { return copy_bytes(to, (uintptr_t)from, size), CUDA_SUCCESS; };
    } else {
        /* a call without a stream waits for what came before; then the bytes are taken along, and come to their place later */
        if (waits) {
            if (CUresult error = issue(s, {[] { return CUDA_SUCCESS; }, {}, {}}))
                return error;
            run_all(s);
        }
        auto staged = std::make_shared<std::vector<char>>((const char *)from, (const char *)from + size);
        w.run = [=] { return copy_bytes(to, (uintptr_t)staged->data(), size), CUDA_SUCCESS; };
    }
    if (CUresult error = issue(s, std::move(w)))
        return error;
    if (waits && is_pinned(from, size))
        run_all(s);
    return now.at->fault;
}

CUresult download(call &now, void *to, CUdeviceptr from, size_t size, stream *s, bool waits)
{
    if (CUresult error = check_device(now, from, size))
        return error;
    if (!to && size)
        return CUDA_ERROR_INVALID_VALUE;
    work w;
    w.uses = {bytes_at(from, size), bytes_at((uintptr_t)to, size)};
    w.run = [=] { return copy_bytes((uintptr_t)to, from, size), CUDA_SUCCESS; };
    if (CUresult error = issue(s, std::move(w)))
        return error;
    if (waits || !is_pinned(to, size))
        run_all(s);
    return now.at->fault;
}

CUresult copy_within(call &now, CUdeviceptr to, CUdeviceptr from, size_t size, stream *s)
{
    CUresult error = check_device(now, to, size);
    if (!error)
        error = check_device(now, from, size);
    if (error)
        return error;
    if (bytes_at(to, size).touches(bytes_at(from, size)))
        undefined("a copy of %zu bytes within a device over themselves", size);
    return issue(s, {[=] { return copy_bytes(to, from, size), CUDA_SUCCESS; }, {bytes_at(to, size), bytes_at(from, size)}, {}});
}

CUresult set_bytes(call &now, CUdeviceptr to, unsigned char value, size_t size, stream *s)
{
    if (CUresult error = check_device(now, to, size))
        return error;
    return issue(s, {[=] { return memset((void *)to, value, size), CUDA_SUCCESS; }, {bytes_at(to, size)}, {}});
}

/* ------------------------------------------------------------------------------------------------------------- kernels */

CUresult run_launch(context *c, const launch &l)
{
    if (!functions.count(l.of) || !l.of->of->alive)
        undefined("a kernel runs whose module is unloaded");
    /* as tensor maps are aligned, which lie in it */
    std::vector<char> room(l.argument.size() + PARAMETER_ALIGNMENT);
    char *argument = room.data() + (-(uintptr_t)room.data() & (PARAMETER_ALIGNMENT - 1));
    memcpy(argument, l.argument.data(), l.argument.size());
    std::string order = setting("THREADS", "0");
    const char *wrong = ptx_launch(l.of->kernel, l.grid, l.block, (int)l.shared, argument, (int)strtol(order.c_str(), nullptr, 0));
    if (!wrong)
        return CUDA_SUCCESS;
    c->what = l.of->name + ": " + wrong;
    if (strstr(wrong, "misaligned"))
        return CUDA_ERROR_MISALIGNED_ADDRESS;
    if (strstr(wrong, "address"))
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    return CUDA_ERROR_LAUNCH_FAILED;
}

/* Bytes of parameters, by one of the two ways. */
CUresult parameters(function *f, void **each, void **extra, std::vector<char> *found)
{
    size_t wanted = ptx_parameter_bytes(f->kernel);
    if (each && extra)
        return CUDA_ERROR_INVALID_VALUE;
    if (each)
        return CUDA_ERROR_NOT_SUPPORTED;
    const char *buffer = nullptr;
    size_t size = 0;
    for (; extra && *extra != CU_LAUNCH_PARAM_END; extra += 2)
        if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER)
            buffer = (const char *)extra[1];
        else if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE)
            size = *(size_t *)extra[1];
        else
            return CUDA_ERROR_INVALID_VALUE;
    if (size != wanted || (size && !buffer))
        return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES; /* so cuda.h says of arguments of the wrong size */
    found->assign(buffer, buffer + size);
    return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------------------------------------------------ contexts */

void end_context(context *c)
{
    for (stream *s : c->streams) {
        s->alive = false;
        s->queue.clear();
    }
    c->streams.clear();
    c->legacy.queue.clear();
    for (module_loaded *m : c->modules) {
        m->alive = false;
        ptx_unload(m->code);
    }
    c->modules.clear();
    for (auto it = executables.begin(); it != executables.end();)
        it = it->second == c ? executables.erase(it) : std::next(it);
    for (auto it = allocations.begin(); it != allocations.end();)
        if (it->second.of == c) {
            unmap(it->second);
            it = allocations.erase(it);
        } else {
            ++it;
        }
    for (auto it = pins.begin(); it != pins.end();)
        if (it->second.of == c) {
            if (it->second.length)
                munmap((void *)it->first, it->second.length);
            it = pins.erase(it);
        } else {
            ++it;
        }
    c->alive = false;
}

CUresult destroy(context *c, int calls_of_its_own)
{
    c->ending = true;
    if (c->calls > calls_of_its_own)
        undefined("a context is destroyed while a call uses it");
    end_context(c);
    c->ending = false;
    if (!current.empty() && current.back() == c)
        current.pop_back();
    return CUDA_SUCCESS;
}

struct error_text {
    CUresult code;
    const char *name, *text;
};

#define ERROR(NAME, TEXT) {CUDA_##NAME, "CUDA_" #NAME, TEXT}
const error_text texts[] = {
    ERROR(SUCCESS, "no error"),
    ERROR(ERROR_INVALID_VALUE, "invalid argument"),
    ERROR(ERROR_OUT_OF_MEMORY, "out of memory"),
    ERROR(ERROR_NOT_INITIALIZED, "initialization error"),
    ERROR(ERROR_NO_DEVICE, "no CUDA-capable device is detected"),
    ERROR(ERROR_INVALID_DEVICE, "invalid device ordinal"),
    ERROR(ERROR_INVALID_IMAGE, "device kernel image is invalid"),
    ERROR(ERROR_INVALID_CONTEXT, "invalid device context"),
    ERROR(ERROR_NO_BINARY_FOR_GPU, "no kernel image is available for execution on the device"),
    ERROR(ERROR_ECC_UNCORRECTABLE, "uncorrectable ECC error encountered"),
    ERROR(ERROR_INVALID_PTX, "a PTX JIT compilation failed"),
    ERROR(ERROR_INVALID_HANDLE, "invalid resource handle"),
    ERROR(ERROR_ILLEGAL_STATE, "the operation cannot be performed in the present state"),
    ERROR(ERROR_NOT_FOUND, "named symbol not found"),
    ERROR(ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered"),
    ERROR(ERROR_LAUNCH_OUT_OF_RESOURCES, "too many resources requested for launch"),
    ERROR(ERROR_CONTEXT_IS_DESTROYED, "context is destroyed"),
    ERROR(ERROR_HOST_MEMORY_ALREADY_REGISTERED, "part or all of the requested memory range is already mapped"),
    ERROR(ERROR_HOST_MEMORY_NOT_REGISTERED, "pointer does not correspond to a registered memory region"),
    ERROR(ERROR_MISALIGNED_ADDRESS, "misaligned address"),
    ERROR(ERROR_LAUNCH_FAILED, "unspecified launch failure"),
    ERROR(ERROR_NOT_SUPPORTED, "operation not supported"),
    ERROR(ERROR_STREAM_CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing"),
    ERROR(ERROR_STREAM_CAPTURE_INVALIDATED, "operation failed due to a previous error during capture"),
    ERROR(ERROR_STREAM_CAPTURE_IMPLICIT, "operation would make the legacy stream depend on a capturing blocking stream"),
    ERROR(ERROR_STREAM_CAPTURE_WRONG_THREAD, "attempt to terminate a thread-local capture sequence from another thread"),
    ERROR(ERROR_UNKNOWN, "unknown error"),
};

const error_text *text_of(CUresult code)
{
    for (const error_text &t : texts)
        if (t.code == code)
            return &t;
    return nullptr;
}

CUresult push(context *c)
{
    if (!contexts.count(c))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!c->alive)
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    if (answers_always() && c->fault)
        return c->fault;
    current.push_back(c);
    return CUDA_SUCCESS;
}

} // namespace

/* ------------------------------------------------------------------------------------------------ for the tests alone */

SEEN void standin_set(const char *name, const char *value)
{
    std::lock_guard<std::recursive_mutex> lock(everything);
    if (value)
        changed[name] = value;
    else
        changed.erase(name);
    process_fault = CUDA_SUCCESS; /* as if the process had been started again */
}

/* How many there are of something, or how often a function was called. */
SEEN long standin_count(const char *what)
{
    std::lock_guard<std::recursive_mutex> lock(everything);
    std::string name = what;
    long found = 0;
    if (name == "contexts") {
        for (context *c : contexts)
            found += c->alive;
        return found;
    }
    if (name == "streams") {
        for (stream *s : streams)
            found += s->alive;
        return found;
    }
    if (name == "modules") {
        for (module_loaded *m : modules)
            found += m->alive;
        return found;
    }
    if (name == "current")
        return (long)current.size();
    return name == "allocations" ? (long)allocations.size() : name == "pinned" ? (long)pins.size()
         : name == "graphs" ? (long)graphs.size() : name == "executables" ? (long)executables.size() : called[name];
}

/* The next call of a function answers this. */
SEEN void standin_fail(const char *name, int error)
{
    std::lock_guard<std::recursive_mutex> lock(everything);
    to_fail[name] = (CUresult)error;
}

/* ---------------------------------------------------------------------------------------------------- driver, devices */

CUresult CUDAAPI cuInit(unsigned flags)
{
    std::lock_guard<std::recursive_mutex> lock(everything);
    if (flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (number("DEVICES", "1") < 1)
        return CUDA_ERROR_NO_DEVICE;
    initialised = true;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDriverGetVersion(int *version)
{
    *version = CUDA_VERSION;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGetErrorName(CUresult error, const char **text)
{
    const error_text *found = text_of(error);
    *text = found ? found->name : nullptr;
    return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult CUDAAPI cuGetErrorString(CUresult error, const char **text)
{
    const error_text *found = text_of(error);
    *text = found ? found->text : nullptr;
    return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult check_index(int index) { return index < 0 || index >= number("DEVICES", "1") ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS; }

CUresult CUDAAPI cuDeviceGetCount(int *count)
{
    BEGIN(NOTHING);
    *count = (int)number("DEVICES", "1");
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGet(CUdevice *device, int index)
{
    BEGIN(NOTHING);
    *device = index;
    return check_index(index);
}

CUresult CUDAAPI cuDeviceGetName(char *name, int size, CUdevice device)
{
    BEGIN(NOTHING);
    snprintf(name, (size_t)size, "a stand-in for a GPU");
    return check_index(device);
}

CUresult CUDAAPI cuDeviceComputeCapability(int *major, int *minor, CUdevice device)
{
    BEGIN(NOTHING);
    *major = capability() / 10;
    *minor = capability() % 10;
    return check_index(device);
}

CUresult CUDAAPI cuDeviceTotalMem(size_t *bytes, CUdevice device)
{
    BEGIN(NOTHING);
    *bytes = most_bytes();
    return check_index(device);
}

CUresult CUDAAPI cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
    BEGIN(NOTHING);
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = (int)number("PROCESSORS", "4"); break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = capability() / 10; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = capability() % 10; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = (int)most_shared(); break;
    default: return CUDA_ERROR_NOT_SUPPORTED;
    }
    return check_index(device);
}

/* ------------------------------------------------------------------------------------------------------------ contexts */

CUresult CUDAAPI cuCtxCreate(CUcontext *made, CUctxCreateParams *parameters, unsigned flags, CUdevice device)
{
    BEGIN(NOTHING);
    if (CUresult error = check_index(device))
        return error;
    if (process_fault)
        return process_fault;
    if (parameters || flags & ~(unsigned)CU_CTX_FLAGS_MASK)
        return CUDA_ERROR_INVALID_VALUE;
    context *c = new context;
    c->device = device;
    c->legacy.of = c;
    c->legacy.is_blocking = true;
    contexts.insert(c);
    current.push_back(c);
    *made = reinterpret_cast<CUcontext>(c);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxDestroy(CUcontext handle)
{
    BEGIN(NOTHING);
    context *c = reinterpret_cast<context *>(handle);
    if (!contexts.count(c))
        return CUDA_ERROR_INVALID_CONTEXT;
    return c->alive ? destroy(c, 0) : CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

CUresult CUDAAPI cuCtxDetach(CUcontext handle)
{
    BEGIN(CONTEXT_IN_ANY_STATE);
    context *c = reinterpret_cast<context *>(handle);
    if (c != now.at)
        return CUDA_ERROR_INVALID_CONTEXT;
    CUresult fault = answers_always() ? c->fault : CUDA_SUCCESS;
    if (!--c->usage)
        destroy(c, 1);
    return fault;
}

CUresult CUDAAPI cuCtxPushCurrent(CUcontext handle)
{
    BEGIN(NOTHING);
    return push(reinterpret_cast<context *>(handle));
}

CUresult CUDAAPI cuCtxPopCurrent(CUcontext *handle)
{
    BEGIN(NOTHING);
    if (current.empty())
        return CUDA_ERROR_INVALID_CONTEXT;
    context *c = current.back();
    if (answers_always() && c->alive && c->fault)
        return c->fault;
    current.pop_back();
    if (handle)
        *handle = reinterpret_cast<CUcontext>(c);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxSynchronize(void)
{
    BEGIN(CONTEXT);
    bool any = false;
    for (stream *s : now.at->streams)
        if (s->capture != NONE) {
            s->capture = INVALIDATED;
            any = true;
        }
    if (any)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    run_everything(now.at);
    return now.at->fault;
}

/* -------------------------------------------------------------------------------------------------------------- memory */

CUresult CUDAAPI cuMemGetInfo(size_t *free, size_t *total)
{
    BEGIN(CONTEXT);
    *total = most_bytes();
    *free = *total - live_bytes(now.at->device);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemAlloc(CUdeviceptr *address, size_t size)
{
    BEGIN(CONTEXT);
    if (CUresult error = unsafe_call())
        return error;
    if (!size)
        return CUDA_ERROR_INVALID_VALUE;
    size_t room = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT, pages = (room + PAGE - 1) / PAGE * PAGE;
    if (room < size || room > most_bytes() - live_bytes(now.at->device))
        return CUDA_ERROR_OUT_OF_MEMORY;
    /* the end lies before a page that can't be touched, as near as the alignment allows */
    char *mapped = (char *)mmap(nullptr, pages + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    mprotect(mapped + PAGE, pages, PROT_READ | PROT_WRITE);
    char *begin = mapped + PAGE + pages - room;
    memset(mapped + PAGE, CANARY, (size_t)(begin - mapped - PAGE));
    memset(begin, FRESH, size);
    memset(begin + size, CANARY, room - size);
    allocations[(uintptr_t)begin] = {now.at, mapped, begin, size, room, pages + 2 * PAGE};
    *address = (CUdeviceptr)begin;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemFree(CUdeviceptr address)
{
    BEGIN(CONTEXT);
    if (CUresult error = unsafe_call())
        return error;
    if (!address)
        return CUDA_SUCCESS;
    auto found = allocations.find(address);
    if (found == allocations.end() || found->second.of != now.at)
        return CUDA_ERROR_INVALID_VALUE;
    refuse_use(now.at, bytes_at(address, found->second.size), "device memory is freed");
    /* kernels do not say what they use: those that were launched run first, as a real driver has it */
    run_everything(now.at);
    unmap(found->second);
    allocations.erase(found);
    return now.at->fault;
}

CUresult CUDAAPI cuMemHostAlloc(void **p, size_t size, unsigned flags)
{
    BEGIN(CONTEXT);
    if (CUresult error = unsafe_call())
        return error;
    if (flags & ~7u || !size)
        return CUDA_ERROR_INVALID_VALUE;
    size_t length = (size + PAGE - 1) / PAGE * PAGE;
    void *made = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memset(made, FRESH, size);
    pins[(uintptr_t)made] = {now.at, size, length};
    *p = made;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemFreeHost(void *p)
{
    BEGIN(CONTEXT);
    if (CUresult error = unsafe_call())
        return error;
    auto found = pins.find((uintptr_t)p);
    if (found == pins.end() || !found->second.length)
        return CUDA_ERROR_INVALID_VALUE;
    for (context *c : contexts)
        refuse_use(c, bytes_at((uintptr_t)p, found->second.size), "pinned memory is freed");
    munmap(p, found->second.length);
    pins.erase(found);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemHostRegister(void *p, size_t size, unsigned flags)
{
    BEGIN(CONTEXT);
    if (CUresult error = unsafe_call())
        return error;
    if (!p || !size || flags & ~(unsigned)CU_MEMHOSTREGISTER_PORTABLE)
        return CUDA_ERROR_INVALID_VALUE;
    range whole = bytes_at((uintptr_t)p, size);
    for (auto &[begin, pin] : pins)
        if (whole.touches(bytes_at(begin, pin.size)))
            return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    pins[(uintptr_t)p] = {now.at, size, 0};
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemHostUnregister(void *p)
{
    BEGIN(CONTEXT);
    if (CUresult error = unsafe_call())
        return error;
    auto found = pins.find((uintptr_t)p);
    if (found == pins.end() || found->second.length)
        return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
    for (context *c : contexts)
        refuse_use(c, bytes_at((uintptr_t)p, found->second.size), "memory is unregistered");
    pins.erase(found);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t size)
{
    BEGIN(CONTEXT);
    return upload(now, to, from, size, &now.at->legacy, true);
}

CUresult CUDAAPI cuMemcpyDtoH(void *to, CUdeviceptr from, size_t size)
{
    BEGIN(CONTEXT);
    return download(now, to, from, size, &now.at->legacy, true);
}

CUresult CUDAAPI cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, size_t size)
{
    BEGIN(CONTEXT);
    return copy_within(now, to, from, size, &now.at->legacy);
}

#define ON_STREAM(HANDLE)                                                                                                                \
    BEGIN(CONTEXT);                                                                                                                      \
    stream *s = nullptr;                                                                                                                 \
    if (CUresult error = stream_of(now, HANDLE, &s))                                                                                     \
        return error

CUresult CUDAAPI cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t size, CUstream handle)
{
    ON_STREAM(handle);
    return upload(now, to, from, size, s, false);
}

CUresult CUDAAPI cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t size, CUstream handle)
{
    ON_STREAM(handle);
    return download(now, to, from, size, s, false);
}

CUresult CUDAAPI cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream handle)
{
    ON_STREAM(handle);
    return copy_within(now, to, from, size, s);
}

CUresult CUDAAPI cuMemsetD8(CUdeviceptr to, unsigned char value, size_t size)
{
    BEGIN(CONTEXT);
    return set_bytes(now, to, value, size, &now.at->legacy);
}

CUresult CUDAAPI cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t size, CUstream handle)
{
    ON_STREAM(handle);
    return set_bytes(now, to, value, size, s);
}

/* ------------------------------------------------------------------------------------------------------------- streams */

CUresult CUDAAPI cuStreamCreate(CUstream *made, unsigned flags)
{
    BEGIN(CONTEXT);
    if (flags & ~(unsigned)CU_STREAM_NON_BLOCKING)
        return CUDA_ERROR_INVALID_VALUE;
    stream *s = new stream;
    s->of = now.at;
    s->is_blocking = !(flags & CU_STREAM_NON_BLOCKING);
    streams.insert(s);
    now.at->streams.insert(s);
    *made = reinterpret_cast<CUstream>(s);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamDestroy(CUstream handle)
{
    ON_STREAM(handle);
    if (s == &now.at->legacy)
        return CUDA_ERROR_INVALID_VALUE;
    run_all(s); /* its work is done all the same, and at any time */
    delete s->recorded;
    s->alive = false;
    now.at->streams.erase(s);
    return now.at->fault;
}

CUresult CUDAAPI cuStreamSynchronize(CUstream handle)
{
    ON_STREAM(handle);
    if (s->capture != NONE)
        return s->capture = INVALIDATED, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (s == &now.at->legacy) {
        if (CUresult error = issue(s, {[] { return CUDA_SUCCESS; }, {}, {}}))
            return error;
    }
    run_all(s);
    return now.at->fault;
}

CUresult CUDAAPI cuStreamQuery(CUstream handle)
{
    ON_STREAM(handle);
    if (s->capture != NONE)
        return s->capture = INVALIDATED, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    go_on(now.at);
    return now.at->fault ? now.at->fault : s->queue.empty() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

/* -------------------------------------------------------------------------------------------------------------- graphs */

CUresult CUDAAPI cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode mode)
{
    ON_STREAM(handle);
    if (s == &now.at->legacy)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (s->capture != NONE || mode > CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_ERROR_INVALID_VALUE;
    s->capture = CAPTURING;
    s->mode = mode;
    s->thread = std::this_thread::get_id();
    s->recorded = new graph;
    s->recorded->of = now.at;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamEndCapture(CUstream handle, CUgraph *made)
{
    ON_STREAM(handle);
    *made = nullptr;
    if (s->capture == NONE)
        return CUDA_ERROR_ILLEGAL_STATE;
    if (s->mode != CU_STREAM_CAPTURE_MODE_RELAXED && s->thread != std::this_thread::get_id())
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    bool good = s->capture == CAPTURING;
    graph *g = s->recorded;
    s->capture = NONE;
    s->recorded = nullptr;
    if (!good) {
        delete g;
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    graphs.insert(g);
    *made = reinterpret_cast<CUgraph>(g);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphInstantiateWithFlags(CUgraphExec *made, CUgraph handle, unsigned long long flags)
{
    BEGIN(CONTEXT);
    graph *g = reinterpret_cast<graph *>(handle);
    if (!graphs.count(g) || flags)
        return CUDA_ERROR_INVALID_VALUE;
    for (const launch &l : g->launches)
        if (l.shared > l.of->most_shared) /* as it is told to have by now */
            return CUDA_ERROR_INVALID_VALUE;
    executable *e = new executable{std::make_shared<graph>(*g)};
    executables[e] = now.at;
    *made = reinterpret_cast<CUgraphExec>(e);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphDestroy(CUgraph handle)
{
    BEGIN(NOTHING);
    graph *g = reinterpret_cast<graph *>(handle);
    if (!graphs.erase(g))
        return CUDA_ERROR_INVALID_VALUE;
    delete g;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphExecDestroy(CUgraphExec handle)
{
    BEGIN(CONTEXT);
    executable *e = reinterpret_cast<executable *>(handle);
    if (!executables.erase(e))
        return CUDA_ERROR_INVALID_VALUE;
    delete e;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphLaunch(CUgraphExec handle, CUstream to)
{
    ON_STREAM(to);
    auto found = executables.find(reinterpret_cast<executable *>(handle));
    if (found == executables.end() || found->second != now.at)
        return CUDA_ERROR_INVALID_VALUE;
    std::shared_ptr<graph> what = found->first->what;
    context *c = now.at;
    work w;
    w.run = [=] {
        for (const launch &l : what->launches)
            if (CUresult error = run_launch(c, l))
                return error;
        return CUDA_SUCCESS;
    };
    return issue(s, std::move(w));
}

/* ------------------------------------------------------------------------------------------------------------- modules */

static void say(char *buffer, void **size, const char *text)
{
    if (buffer && size)
        *size = (void *)(size_t)snprintf(buffer, (size_t)*size, "%s", text);
}

/* "sm_90a" runs on compute capability 9.0 alone, "sm_80" on 8.0 and all later ones. */
static bool is_for_this(const char *image)
{
    const char *target = strstr(image, ".target sm_");
    if (!target)
        return false;
    char *end;
    long which = strtol(target + strlen(".target sm_"), &end, 10);
    return *end == 'a' ? which == capability() : which <= capability();
}

CUresult CUDAAPI cuModuleLoadDataEx(CUmodule *made, const void *image, unsigned count, CUjit_option *options, void **values)
{
    BEGIN(CONTEXT);
    if (CUresult error = unsafe_call())
        return error;
    char *log[2] = {nullptr, nullptr}, error[512] = "";
    void **size[2] = {nullptr, nullptr};
    for (unsigned i = 0; i < count; i++)
        switch (options[i]) {
        case CU_JIT_INFO_LOG_BUFFER: log[0] = (char *)values[i]; break;
        case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES: size[0] = &values[i]; break;
        case CU_JIT_ERROR_LOG_BUFFER: log[1] = (char *)values[i]; break;
        case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES: size[1] = &values[i]; break;
        default: return CUDA_ERROR_NOT_SUPPORTED;
        }
    say(log[0], size[0], "");
    CUresult answer = CUDA_SUCCESS;
    ptx_module *code = nullptr;
    if (!image || !memcmp(image, "\x7f" "ELF", 4)) {
        snprintf(error, sizeof error, "an image that is not PTX");
        answer = CUDA_ERROR_INVALID_IMAGE;
    } else if (!is_for_this((const char *)image)) {
        snprintf(error, sizeof error, "an image for another compute capability");
        answer = CUDA_ERROR_NO_BINARY_FOR_GPU;
    } else if (!(code = ptx_load((const char *)image, error, sizeof error))) {
        answer = CUDA_ERROR_INVALID_PTX;
    }
    say(log[1], size[1], error);
    if (answer)
        return answer;
    module_loaded *m = new module_loaded{now.at, code, {}, true};
    modules.insert(m);
    now.at->modules.insert(m);
    *made = reinterpret_cast<CUmodule>(m);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleUnload(CUmodule handle)
{
    BEGIN(CONTEXT);
    module_loaded *m = reinterpret_cast<module_loaded *>(handle);
    if (!modules.count(m) || !m->alive)
        return CUDA_ERROR_INVALID_VALUE;
    if (m->of != now.at)
        return CUDA_ERROR_INVALID_CONTEXT;
    m->alive = false;
    now.at->modules.erase(m);
    ptx_unload(m->code);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleGetFunction(CUfunction *made, CUmodule handle, const char *name)
{
    BEGIN(CONTEXT);
    module_loaded *m = reinterpret_cast<module_loaded *>(handle);
    if (!modules.count(m) || !m->alive || m->of != now.at)
        return CUDA_ERROR_INVALID_HANDLE;
    function *&f = m->functions[name];
    if (!f) {
        const ptx_kernel *kernel = ptx_find(m->code, name);
        if (!kernel) {
            m->functions.erase(name);
            return CUDA_ERROR_NOT_FOUND;
        }
        f = new function{m, kernel, name};
        functions.insert(f);
    }
    *made = reinterpret_cast<CUfunction>(f);
    return CUDA_SUCCESS;
}

static CUresult function_of(call &now, CUfunction handle, function **found)
{
    function *f = reinterpret_cast<function *>(handle);
    if (!functions.count(f) || !f->of->alive)
        return CUDA_ERROR_INVALID_HANDLE;
    if (f->of->of != now.at)
        return CUDA_ERROR_INVALID_CONTEXT;
    *found = f;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuFuncSetAttribute(CUfunction handle, CUfunction_attribute attribute, int value)
{
    BEGIN(CONTEXT);
    function *f;
    if (CUresult error = function_of(now, handle, &f))
        return error;
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (value < 0 || (unsigned)value > most_shared())
        return CUDA_ERROR_INVALID_VALUE;
    f->most_shared = (unsigned)value;
    return CUDA_SUCCESS;
}

static CUresult check_launch(call &now, CUfunction handle, launch *l, void **each, void **extra)
{
    const unsigned most_grid[3] = {0x7FFFFFFF, 65535, 65535}, most_block[3] = {1024, 1024, 64};
    if (CUresult error = function_of(now, handle, &l->of))
        return error;
    for (int i = 0; i < 3; i++)
        if (!l->grid[i] || l->grid[i] > most_grid[i] || !l->block[i] || l->block[i] > most_block[i])
            return CUDA_ERROR_INVALID_VALUE;
    if ((uint64_t)l->block[0] * l->block[1] * l->block[2] > MOST_BLOCK || l->shared > l->of->most_shared)
        return CUDA_ERROR_INVALID_VALUE;
    return parameters(l->of, each, extra, &l->argument);
}

CUresult CUDAAPI cuLaunchKernel(CUfunction handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                                unsigned shared, CUstream to, void **each, void **extra)
{
    ON_STREAM(to);
    launch l = {nullptr, {gx, gy, gz}, {bx, by, bz}, shared, {}};
    CUresult error = check_launch(now, handle, &l, each, extra);
    if (s->capture == INVALIDATED)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (error) {
        if (s->capture != NONE)
            s->capture = INVALIDATED; /* nothing promises that a recording goes on after an error */
        return error;
    }
    if (s->capture != NONE) {
        s->recorded->launches.push_back(std::move(l));
        return CUDA_SUCCESS;
    }
    context *c = now.at;
    return issue(s, {[=] { return run_launch(c, l); }, {}, {}});
}

/* --------------------------------------------------------------------------------------------------------- tensor maps */

CUresult CUDAAPI cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *address,
                                        const cuuint64_t *lengths, const cuuint64_t *strides, const cuuint32_t *box,
                                        const cuuint32_t *steps, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                        CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill)
{
    BEGIN(NOTHING);
    if (capability() < 90)
        return CUDA_ERROR_NOT_SUPPORTED;
    const unsigned size = 2, spans[] = {0, 32, 64, 128};
    if ((uintptr_t)map % 64 || !rank || rank > 5 || !address || (uintptr_t)address % 16)
        return CUDA_ERROR_INVALID_VALUE;
    if (promotion < 0 || promotion > CU_TENSOR_MAP_L2_PROMOTION_L2_256B || fill < 0 || fill > 1)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < rank; i++)
        if (!lengths[i] || lengths[i] > (1ull << 32) || !box[i] || box[i] > 256 || !steps[i] || steps[i] > 8)
            return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i + 1 < rank; i++)
        if (strides[i] % 16 || strides[i] >= 1ull << 40)
            return CUDA_ERROR_INVALID_VALUE;
    /* what comes from here on is all that ptx.h and hopper.h know */
    if (type != CU_TENSOR_MAP_DATA_TYPE_FLOAT16 && type != CU_TENSOR_MAP_DATA_TYPE_BFLOAT16)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (rank != 4 || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE || fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (swizzle < CU_TENSOR_MAP_SWIZZLE_32B || swizzle > CU_TENSOR_MAP_SWIZZLE_128B)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (box[0] * size % 16 || box[0] * size > spans[swizzle])
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < rank; i++)
        if (steps[i] != 1)
            return CUDA_ERROR_NOT_SUPPORTED;
    /* `struct emulated_map` of hopper.h */
    struct {
        uint64_t address, length[4], stride[3];
        uint32_t box[4], swizzle, size;
        uint64_t mark;
    } made = {(uint64_t)address, {}, {}, {}, spans[swizzle], size, 0x70616D};
    memcpy(made.length, lengths, sizeof made.length);
    memcpy(made.stride, strides, sizeof made.stride);
    memcpy(made.box, box, sizeof made.box);
    memset(map, 0, sizeof *map);
    memcpy(map, &made, sizeof made);
    return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------------------------------- what pycuda's module links */

SEEN __attribute__((used)) int standin_not_supported() { return CUDA_ERROR_NOT_SUPPORTED; }

#define LACKS(NAME) __asm__(".globl " #NAME "\n.type " #NAME ",@function\n" #NAME ":\njmp standin_not_supported@PLT\n");
LACKS(cuArray3DCreate_v2)
LACKS(cuArray3DGetDescriptor_v2)
LACKS(cuArrayCreate_v2)
LACKS(cuArrayDestroy)
LACKS(cuArrayGetDescriptor_v2)
LACKS(cuCtxAttach)
LACKS(cuCtxDisablePeerAccess)
LACKS(cuCtxEnablePeerAccess)
LACKS(cuCtxGetApiVersion)
LACKS(cuCtxGetCacheConfig)
LACKS(cuCtxGetDevice)
LACKS(cuCtxGetLimit)
LACKS(cuCtxGetSharedMemConfig)
LACKS(cuCtxSetCacheConfig)
LACKS(cuCtxSetLimit)
LACKS(cuCtxSetSharedMemConfig)
LACKS(cuDeviceCanAccessPeer)
LACKS(cuDeviceGetByPCIBusId)
LACKS(cuDeviceGetPCIBusId)
LACKS(cuDevicePrimaryCtxRelease_v2)
LACKS(cuDevicePrimaryCtxRetain)
LACKS(cuEventCreate)
LACKS(cuEventDestroy_v2)
LACKS(cuEventElapsedTime_v2)
LACKS(cuEventQuery)
LACKS(cuEventRecord)
LACKS(cuEventSynchronize)
LACKS(cuFuncGetAttribute)
LACKS(cuFuncSetBlockShape)
LACKS(cuFuncSetCacheConfig)
LACKS(cuFuncSetSharedSize)
LACKS(cuIpcCloseMemHandle)
LACKS(cuIpcGetEventHandle)
LACKS(cuIpcGetMemHandle)
LACKS(cuIpcOpenEventHandle)
LACKS(cuIpcOpenMemHandle_v2)
LACKS(cuLaunch)
LACKS(cuLaunchGrid)
LACKS(cuLaunchGridAsync)
LACKS(cuLinkAddData_v2)
LACKS(cuLinkAddFile_v2)
LACKS(cuLinkComplete)
LACKS(cuLinkCreate_v2)
LACKS(cuLinkDestroy)
LACKS(cuMemAllocManaged)
LACKS(cuMemAllocPitch_v2)
LACKS(cuMemGetAddressRange_v2)
LACKS(cuMemHostGetDevicePointer_v2)
LACKS(cuMemHostGetFlags)
LACKS(cuMemcpy2DAsync_v2)
LACKS(cuMemcpy2DUnaligned_v2)
LACKS(cuMemcpy2D_v2)
LACKS(cuMemcpy3DAsync_v2)
LACKS(cuMemcpy3DPeer)
LACKS(cuMemcpy3DPeerAsync)
LACKS(cuMemcpy3D_v2)
LACKS(cuMemcpyAtoA_v2)
LACKS(cuMemcpyAtoD_v2)
LACKS(cuMemcpyAtoH_v2)
LACKS(cuMemcpyDtoA_v2)
LACKS(cuMemcpyHtoA_v2)
LACKS(cuMemcpyPeer)
LACKS(cuMemcpyPeerAsync)
LACKS(cuMemsetD16Async)
LACKS(cuMemsetD16_v2)
LACKS(cuMemsetD2D16Async)
LACKS(cuMemsetD2D16_v2)
LACKS(cuMemsetD2D32Async)
LACKS(cuMemsetD2D32_v2)
LACKS(cuMemsetD2D8Async)
LACKS(cuMemsetD2D8_v2)
LACKS(cuMemsetD32Async)
LACKS(cuMemsetD32_v2)
LACKS(cuModuleGetGlobal_v2)
LACKS(cuModuleGetSurfRef)
LACKS(cuModuleGetTexRef)
LACKS(cuModuleLoad)
LACKS(cuModuleLoadData)
LACKS(cuParamSetSize)
LACKS(cuParamSetTexRef)
LACKS(cuParamSetf)
LACKS(cuParamSeti)
LACKS(cuParamSetv)
LACKS(cuProfilerInitialize)
LACKS(cuProfilerStart)
LACKS(cuProfilerStop)
LACKS(cuStreamAttachMemAsync)
LACKS(cuStreamWaitEvent)
LACKS(cuSurfRefGetArray)
LACKS(cuSurfRefSetArray)
LACKS(cuTexRefCreate)
LACKS(cuTexRefDestroy)
LACKS(cuTexRefGetAddressMode)
LACKS(cuTexRefGetAddress_v2)
LACKS(cuTexRefGetArray)
LACKS(cuTexRefGetFilterMode)
LACKS(cuTexRefGetFlags)
LACKS(cuTexRefGetFormat)
LACKS(cuTexRefSetAddress2D_v3)
LACKS(cuTexRefSetAddressMode)
LACKS(cuTexRefSetAddress_v2)
LACKS(cuTexRefSetArray)
LACKS(cuTexRefSetFilterMode)
LACKS(cuTexRefSetFlags)
LACKS(cuTexRefSetFormat)
