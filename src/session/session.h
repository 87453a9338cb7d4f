/*
 * A session: one connection's way through the protocol, with the registry, the store and all the
 * rules that need to know more than one client. No sockets and no event loop: time is an argument,
 * and what has to happen to the connection goes out through struct session_ops.
 */
#ifndef SESSION_SESSION_H
#define SESSION_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/queue.h>

#include "base/address.h"
#include "base/clock.h"
#include "base/duration_histogram.h"
#include "cliser/server_fsm.h"
#include "registry/credential.h"
#include "registry/registry.h"
#include "session/keepalive.h"
#include "session/limits.h"
#include "session/order.h"
#include "store/store.h"

struct sessions;

enum duplicate_policy { DUPLICATE_PROBE, DUPLICATE_TAKEOVER, DUPLICATE_REJECT };

/* The names in the configuration, in the order of the enumerators, NULL-terminated. */
extern const char *const duplicate_policy_names[];
extern const char *const require_reply_names[];

/* How long a holder of an ID has to answer before a newcomer gets it. */
#define SESSION_PROBE_MS 2000

struct sessions_options {
    uint64_t interval_ms;          /* between two keep-alives of one client */
    uint64_t misses;               /* 1 to 255 */
    int require_reply;             /* enum server_fsm_require_reply */
    uint64_t handshake_timeout_ms; /* from accept to 140 */
    int duplicate_id;              /* enum duplicate_policy */
    uint64_t forget_after_ms;      /* UINT64_MAX: never */
    bool explain_refusals;
    struct limits_options limits;
};

/* Embedded in the connection that it is about, which owns it. Read and written in src/session only.
 */
struct session {
    struct server_fsm fsm;
    struct peer_address peer;
    struct sessions *all;
    struct registry_record *record; /* once it claims an ID, while it is not over */
    uint64_t serial;                /* never reused */
    uint64_t since_us; /* before 140: the accept; after: the oldest unanswered keep-alive, or 0 */
    union {
        TAILQ_ENTRY(session) pending;     /* before 140: in the order of accept */
        struct keepalive_entry keepalive; /* after */
    };
    struct credential_match login; /* what it came with, once the password was right */
    uint32_t counted_in;           /* door.c: the counting in which its source has it; 0: in none */
    uint8_t reason; /* enum reason: why it is being ended, for an end without a refusal */
};

/*
 * What a session asks of its connection. None may free the session, and none may call back into the
 * session but where it says so.
 */
struct session_ops {
    /* Sends a line, which is one of the table of codes and stays. May call session_end() when the
     * peer is gone or does not read. */
    void (*send)(struct session *session, const char *line, size_t len);

    /* Offer the held line again, with what came behind it, soon, but not from inside this call. */
    void (*resume)(struct session *session);

    /* Look once whether bytes wait in the kernel, and feed the lines in them by session_line(), or
     * call session_went_on(). The session may have ended when this returns. */
    void (*look)(struct session *session);

    /* Does what the connection has proved, as with a certificate, cover this ID? NULL: everything
     * does. */
    bool (*may_have_id)(struct session *session, const char *id, size_t len);

    /* The session is over and its memory may go once no session function is running. With said_why
     * a last line was sent, which the peer should have a chance to read. */
    void (*close)(struct session *session, bool said_why);
};

/* What happened since the start. */
struct sessions_counters {
    uint64_t started;
    uint64_t registered;
    uint64_t ended[REASON_COUNT];   /* sessions that were connected */
    uint64_t refused[REASON_COUNT]; /* those that were not yet, and newcomers that got no session */
    uint64_t turned_away;           /* of refused[REASON_RESOURCES]: newcomers, who were told 450 */
    uint64_t penalties;             /* that sources have earned by wrong passwords */
    uint64_t sources_evicted;       /* forgotten early, because too many were to be remembered */
    uint64_t keepalives_sent;
    uint64_t keepalives_answered;
    uint64_t keepalives_missed; /* regular ones without an answer when the next one was due */
    struct duration_histogram handshakes; /* from the accept to 140 */
    struct duration_histogram keepalives; /* from a 100 to its answer */
};

enum session_event_kind {
    SESSION_CONNECTED,
    SESSION_DISCONNECTED,
    SESSION_REFUSED, /* ended before 140, or got no session at all */
    SESSION_ORDER,   /* news of a shutdown order */
};

/* Something that an operator may want to see as it happens. */
struct session_event {
    enum session_event_kind kind;
    struct moment at;
    const char *cid; /* cid_len bytes; NULL when there is none */
    size_t cid_len;
    uint32_t sid; /* 0 unless it was connected */
    enum reason reason;
    uint16_t credential;             /* SESSION_CONNECTED: number of its name */
    const struct peer_address *peer; /* NULL for SESSION_ORDER */
    const struct order_news *order;  /* for SESSION_ORDER */
};

/* Called for each, from anywhere in src/session: it takes a note and calls nothing here. */
typedef void session_watch_fn(void *user, const struct session_event *event);

/*
 * All sessions of a server. credentials becomes owned; the registry and ops must outlive it. Not
 * usable before sessions_set_store(). Aborts when memory is out.
 */
struct sessions *sessions_new(const struct sessions_options *options, struct registry *registry,
                              struct credentials *credentials, const struct session_ops *ops,
                              struct moment now);

/* Who is told of events, from here on. */
void sessions_set_watch(struct sessions *all, session_watch_fn *watch, void *user);

/* store_open() wants sessions_on_answer() and this very struct as its user, so the store comes
 * second; it must outlive all. An answer may end the session it is for, or bring it to 140. */
/* Takes up the shutdown order that the store knows, as well. */
void sessions_set_store(struct sessions *all, struct store *store, struct moment now);
void sessions_on_answer(void *all, const struct store_answer *answer, struct moment now);

/* No session function may be called any more. NULL is allowed. */
void sessions_free(struct sessions *all);

/* Other options and credentials (owned again) from now on; nobody is disconnected. */
void sessions_reload(struct sessions *all, const struct sessions_options *options,
                     struct credentials *credentials, struct moment now);

/*
 * May a connection that was just accepted become a session, as far as the limits go? REASON_NONE if
 * it may; else why not: REASON_TOO_MANY from its source, or REASON_FULL. Allocates nothing.
 */
enum reason sessions_admit(struct sessions *all, const struct peer_address *peer,
                           struct moment now);

/* The same of one that will begin with a TLS handshake, for that alone: so many are under way. */
enum reason sessions_admit_tls(struct sessions *all, size_t pending);

/*
 * Counts and logs a newcomer that gets no session: what sessions_admit() said, REASON_FULL, or
 * REASON_RESOURCES for want of memory or epoll watches. Returns the refusal that is to be sent, or
 * 0 if none is; want of resources is told as 450.
 */
int sessions_turn_away(struct sessions *all, const struct peer_address *peer, enum reason reason,
                       struct moment now);

/* Sources (session/sources.h) that are under a penalty, give or take those whose penalty has ended
 * within the last second; and those of which anything is kept. */
size_t sessions_penalised_sources(const struct sessions *all);
size_t sessions_known_sources(const struct sessions *all);

/* The next time sessions_tick() has something to do; UINT64_MAX if nobody waits for anything. */
uint64_t sessions_next_us(const struct sessions *all);

/*
 * Does what is due: handshake deadlines, probes, keep-alives, forgetting. Bounded: when more is due
 * than one turn should do, sessions_next_us() says that it is due still.
 */
void sessions_tick(struct sessions *all, struct moment now);

/*
 * Looks at what the newest of those that are on their way have sent (session_ops.look). For a turn
 * in which very many clients were heard: epoll hands over in the order in which they spoke, and
 * when a million vanish at once, who comes then would wait behind all of them at every step.
 */
void sessions_look_at_pending(struct sessions *all, struct moment now);

/* Those that hold now. */
const struct sessions_options *sessions_options(const struct sessions *all);

const struct sessions_counters *sessions_counters(const struct sessions *all);

/* Valid until the next reload. */
const struct credentials *sessions_credentials(const struct sessions *all);

/* Sessions that are connected, and those on their way there. */
size_t sessions_connected(const struct sessions *all);
size_t sessions_pending(const struct sessions *all);

/* Those of the connected that were told to shut down and are not gone yet. */
size_t sessions_leaving(const struct sessions *all);

/* The shutdown orders of this server, to be looked at. */
struct orders *sessions_orders(const struct sessions *all);

/* The server ends: no order goes on, and who leaves from here on has not left for one. */
void sessions_freeze_orders(struct sessions *all);

/* As orders_start() and orders_cancel(). */
enum order_result sessions_give_order(struct sessions *all, struct order_request *request,
                                      struct moment now);
enum order_result sessions_cancel_order(struct sessions *all, const char *by, struct moment now);

/* Ends the session of a connected client with 430. It may end other sessions too; the record may be
 * gone afterwards. */
void sessions_disconnect(struct sessions *all, struct registry_record *record, struct moment now);

/* May this record go? Not while somebody has its ID or an order that is under way counts on it. */
bool sessions_may_forget(const struct sessions *all, const struct registry_record *record);

/* Removes a record that may go, from the store as well. */
void sessions_forget(struct sessions *all, struct registry_record *record, struct moment now);

/* How long a client that vanished can still look connected, in milliseconds. */
uint64_t sessions_dead_client_max_ms(const struct sessions_options *options);

/* Starts a session on a new connection: sends 110. The struct need not be initialised; it may be
 * over when this returns. */
void session_start(struct session *session, struct sessions *all, const struct peer_address *peer,
                   struct moment now);

/*
 * A line came. Returns false when it has to be offered again after session_ops.resume. The session
 * may be over afterwards.
 */
bool session_line(struct session *session, const char *line, size_t len, struct moment now);

/*
 * The peer has sent something that is no line yet, such as the next part of a TLS handshake: if it
 * was read after the deadline because we were late, it is given the time again. Only before 140.
 */
void session_went_on(struct session *session, struct moment now);

/*
 * Bytes came that can never be a line, for this enum proto_error: ends the session with 400. Like a
 * line they wait for 140, or how they were cut into segments would decide whether there is one:
 * returns false when they have to be offered again.
 */
bool session_bad_line(struct session *session, int error, struct moment now);

/*
 * Ends a session that is not over, for this reason; the refusal that belongs to the reason is sent.
 * On one that is over does nothing. Like session_line() and sessions_tick(), it may end other
 * sessions too and register a newcomer in one's place: walk no list across it.
 */
void session_end(struct session *session, enum reason reason, struct moment now);

/* Is it over? Then only its memory is left. */
bool session_is_over(const struct session *session);

#endif
