/* Answers requests that a connection has answered before, without the interpreter: waits for bytes, and as long as a request that
   has come whole is one of those that Python has put down, does what is written there. Everything else is Python's: the first of
   its bytes that is not answered here is where Python goes on, as if it had received them itself.

   What is put down for a request holds for as long as Python leaves it here; nothing is decided in this file but whether bytes are
   equal, those that matter. It knows one thing of the format: a request begins with a command (u8) and the size of its payload (u64). */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include "again.h"

#ifndef MSG_NOSIGNAL /* Python ignores SIGPIPE in any case */
#define MSG_NOSIGNAL 0
#endif

#define HEAD 9
#define PATIENCE 0.005 /* seconds for the rest of a request: stock clients send command, size and payload one by one */
#define MARKED 256 /* bytes of a request that its mark depends on, beside its last eight */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static uint64_t word(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* A number by which most other requests are told from this one; of a length of HEAD at least. */
uint64_t mark_of(const uint8_t *request, int64_t length)
{
    uint64_t mark = (uint64_t)length ^ word(request + length - 8);
    int64_t most = length < MARKED ? length : MARKED;
    for (int64_t at = 0; at + 8 <= most; at += 8)
        mark = (mark ^ word(request + at)) * 0x9E3779B97F4A7C15ull;
    return mark;
}

enum { UNKNOWN = -1, INCOMPLETE = -2 };

/* Which request the bytes begin with. INCOMPLETE: more of them may say so. Of a request that carries data these need not be there. */
static int find(struct answers *all)
{
    const uint8_t *bytes = all->room + all->at;
    int64_t there = all->end - all->at;
    if (there < HEAD)
        return INCOMPLETE;
    int64_t fixed = all->fixed[bytes[0]];
    uint64_t payload = word(bytes + 1);
    if (!fixed && payload > (uint64_t)(all->capacity - HEAD))
        return UNKNOWN;
    int64_t length = fixed ? fixed : HEAD + (int64_t)payload;
    if (length > there)
        return INCOMPLETE;
    if (all->masked[bytes[0]] == length) {
        const uint8_t *mask = all->mask[bytes[0]];
        for (int64_t i = 0; i < length; i++)
            all->key[i] = bytes[i] & mask[i];
        bytes = all->key;
    }
    uint64_t mark = mark_of(bytes, length);
    for (int i = 0; i < all->count; i++) {
        const struct answer *one = all->answer + i;
        if (all->mark[i] == mark && one->length == length && !memcmp(one->request, bytes, length))
            return i;
    }
    return UNKNOWN;
}

/* Receive more of a request that is incomplete, which the next bytes mostly follow at once; 0: Python waits for them, since only
   there it is known how long a peer may take. */
static int64_t receive_more(struct answers *all, int fd, double until)
{
    memmove(all->room, all->room + all->at, all->end - all->at);
    all->end -= all->at;
    all->at = 0;
    for (;;) {
        ssize_t got = recv(fd, all->room + all->end, all->capacity - all->end, MSG_DONTWAIT);
        if (got > 0) {
            all->received += got;
            all->end += got;
            return got;
        }
        if (!got || (errno != EAGAIN && errno != EINTR))
            return got;
        double left = until - now();
        struct pollfd one = {.fd = fd, .events = POLLIN};
        if (left <= 0 || poll(&one, 1, 1 + (int)(left * 1e3)) == 0)
            return 0;
    }
}

/* Send a reply and the data after it in one call; what is left of them stays in `answers`. */
static int reply(struct answers *all, const struct answer *one, int fd)
{
    struct iovec parts[2] = {{(void *)one->reply, one->reply_size}, {(void *)one->source, one->source_size}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = one->source_size ? 2 : 1};
    ssize_t gone;
    do
        gone = one->source_size ? sendmsg(fd, &message, MSG_NOSIGNAL) : send(fd, one->reply, one->reply_size, MSG_NOSIGNAL);
    while (gone < 0 && errno == EINTR);
    if (gone < 0 && errno != EAGAIN) {
        all->error = errno;
        return FAILED;
    }
    all->gone = gone < 0 ? 0 : gone;
    all->sent += all->gone;
    return all->gone == one->reply_size + one->source_size ? ANSWERED : UNSENT;
}

static int answer(struct answers *all, int which, int fd)
{
    const struct answer *one = all->answer + which;
    all->which = which;
    if (one->run) {
        double begun = now();
        int outcome = one->run(one->of);
        if (outcome < 0) /* it has not begun */
            return OTHER_BYTES;
        all->at += one->length;
        all->messages++;
        all->graphs++;
        all->computing += now() - begun;
        if (outcome > 0) {
            all->error = outcome;
            return RUNNING;
        }
    } else {
        int64_t there = all->end - all->at - one->length;
        int64_t count = there < one->destination_size ? there : one->destination_size;
        if (count)
            memcpy(one->destination, all->room + all->at + one->length, count);
        all->at += one->length + count;
        all->messages++;
        if (count < one->destination_size) {
            all->gone = count;
            return TAKING;
        }
    }
    return one->reply_size ? reply(all, one, fd) : ANSWERED;
}

/* Answer what is known; return why that has come to an end. */
int answer_all(struct answers *all, int fd)
{
    for (;;) {
        while (all->at == all->end) {
            if (all->idle_since == 0)
                all->idle_since = now();
            ssize_t got = recv(fd, all->room, all->capacity, 0);
            if (got < 0) {
                if (errno == EINTR)
                    continue;
                all->error = errno;
                return errno == EAGAIN ? WAITED : FAILED;
            }
            if (!got)
                return ENDED;
            all->idle_since = 0;
            all->received += got;
            all->at = 0;
            all->end = got;
        }
        int which = find(all);
        if (which == INCOMPLETE) {
            double until = now() + PATIENCE;
            int64_t got = 1;
            while (which == INCOMPLETE && got > 0 && now() < until) {
                got = receive_more(all, fd, until);
                which = find(all);
            }
            if (got < 0) {
                all->error = errno;
                return FAILED;
            }
        }
        if (which < 0)
            return OTHER_BYTES;
        int outcome = answer(all, which, fd);
        if (outcome != ANSWERED)
            return outcome;
    }
}
