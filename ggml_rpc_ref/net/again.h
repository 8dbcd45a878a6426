/* A request that has been answered, and how it is answered again. */
struct answer {
    const uint8_t *request;  /* its bytes, those of its data apart; 0 where they don't matter */
    int64_t length;
    uint8_t *destination;    /* where its data belong */
    int64_t destination_size;
    const uint8_t *reply;    /* what is sent first; none where the request has no reply */
    int64_t reply_size;
    const uint8_t *source;   /* data that are sent after it */
    int64_t source_size;
    int (*run)(void *of);    /* computes; 0: all has been, below: nothing has been, above: Python goes on */
    void *of;
};

/* What one connection has answered. */
struct answers {
    uint8_t *room;           /* where bytes are received; those from `at` to `end` have not been answered */
    int64_t capacity, at, end;
    int32_t fixed[256];      /* by command, where it carries data: bytes of its head and of its fields before them */
    const uint8_t *mask[256];/* by command: 255 where a byte of a request matters, else 0; none: all do */
    int32_t masked[256];     /* bytes of these */
    uint8_t *key;            /* room for the longest */
    struct answer *answer;
    uint64_t *mark;          /* `mark_of` each request */
    int32_t count;
    int32_t which;           /* the one that was answered last */
    int32_t error;           /* errno; after RUNNING what `run` has returned */
    int64_t gone;            /* bytes that have gone: after UNSENT of the reply, after TAKING of the data to their destination */
    int64_t messages, received, sent, graphs; /* since the connection began */
    double computing;        /* seconds of all `run` */
    double idle_since;       /* the clock when it began to wait for a request; 0: it does not */
};

enum ending { ANSWERED, OTHER_BYTES, ENDED, WAITED, FAILED, UNSENT, RUNNING, TAKING };

uint64_t mark_of(const uint8_t *request, int64_t length);
int answer_all(struct answers *all, int fd);
