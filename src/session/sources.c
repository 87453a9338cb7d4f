/*
 * One table for both: an entry lives as long as there is a connection to be counted or a wrong
 * password to be remembered. So it is bounded by the connections that there may be and by
 * SOURCES_MAX_FAILING, and nothing is done that takes longer the more sources there are.
 *
 * Penalties and windows all last equally long, so two lists in the order of their begin say which
 * is over first. Suspects are pushed out before the penalised: to lift one penalty, somebody with
 * very many addresses has to earn another one.
 */
#include "session/sources.h"

#include "base/hash.h"

#include <assert.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 64
/* Each wrong password can make one entry, and may take two away that are over. */
#define EXPIRE_BUDGET_FAILURE 2
/* Once a second: all that there can be within some seconds, a millisecond at most of each. */
#define EXPIRE_BUDGET_SECOND 16384

/* IPv4 addresses stand beside the prefixes of IPv6 where multicast has its place, from which no
 * connection comes. */
#define IPV4_SPACE UINT64_C(0xffffffff00000000)

struct source {
    uint64_t key;
    uint64_t since_us; /* of the first wrong password, or of the penalty */
    uint32_t connections;
    uint32_t failures : 31; /* wrong passwords; 0: in no list */
    uint32_t is_penalised : 1;
    uint32_t older; /* in the list of failures */
    uint32_t newer; /* the same, or the next free one */
};

static bool key_of(const struct peer_address *peer, uint64_t *key);
static struct source *at(const struct sources *sources, uint32_t number);
static uint32_t find(const struct sources *sources, uint64_t key);
static uint32_t find_or_add(struct sources *sources, uint64_t key);
static uint32_t find_or_add_failing(struct sources *sources, const struct limits_options *limits,
                                    uint64_t key, struct moment now);
static uint32_t take_number(struct sources *sources);
static void drop_if_unused(struct sources *sources, uint32_t number);
static void give_number_back(struct sources *sources, uint32_t number);
static struct source_list *list_of(struct sources *sources, const struct source *source);
static void append(struct sources *sources, uint32_t number);
static void unlink_failing(struct sources *sources, uint32_t number);
static void copy_failing(struct sources *sources, const struct source *from);
static void forget(struct sources *sources, uint32_t number);
static void evict_one(struct sources *sources);
static void expire(struct sources *sources, const struct limits_options *limits, struct moment now,
                   unsigned budget);
static bool is_over(const struct source *source, const struct limits_options *limits,
                    struct moment now);

void sources_clear(struct sources *sources)
{
    hash_index_clear(&sources->index);
    free(sources->slots);
    *sources = (struct sources){.slots = NULL};
}

bool sources_is_penalised(const struct sources *sources, const struct limits_options *limits,
                          const struct peer_address *peer, struct moment now)
{
    uint64_t key;

    if (sources->penalised.count == 0 || !key_of(peer, &key))
        return false;
    const uint32_t number = find(sources, key);
    if (number == 0)
        return false;
    const struct source *source = at(sources, number);
    return source->is_penalised && !is_over(source, limits, now);
}

bool sources_note_failure(struct sources *sources, const struct limits_options *limits,
                          const struct peer_address *peer, struct moment now)
{
    uint64_t key;

    if (limits->auth_failures == 0 || !key_of(peer, &key))
        return false;
    expire(sources, limits, now, EXPIRE_BUDGET_FAILURE);
    const uint32_t number = find_or_add_failing(sources, limits, key, now);
    if (number == 0)
        return false;

    struct source *source = at(sources, number);
    if (source->is_penalised)
        return false;
    source->failures++;
    if (source->failures < limits->auth_failures)
        return false;

    unlink_failing(sources, number);
    source->failures = 1;
    source->is_penalised = 1;
    source->since_us = now.mono_us;
    append(sources, number);
    return true;
}

void sources_expire(struct sources *sources, const struct limits_options *limits, struct moment now)
{
    expire(sources, limits, now, EXPIRE_BUDGET_SECOND);
}

void sources_forgive(struct sources *sources)
{
    while (sources->suspects.count > 0)
        forget(sources, sources->suspects.oldest);
    while (sources->penalised.count > 0)
        forget(sources, sources->penalised.oldest);
}

bool sources_enter(struct sources *sources, const struct peer_address *peer)
{
    uint64_t key;

    if (!key_of(peer, &key))
        return false;
    const uint32_t number = find_or_add(sources, key);
    if (number == 0)
        return false;
    at(sources, number)->connections++;
    return true;
}

void sources_leave(struct sources *sources, const struct peer_address *peer)
{
    uint64_t key;

    if (!key_of(peer, &key))
        return;
    const uint32_t number = find(sources, key);
    assert(number != 0 && at(sources, number)->connections > 0);
    at(sources, number)->connections--;
    drop_if_unused(sources, number);
}

uint32_t sources_connections(const struct sources *sources, const struct peer_address *peer)
{
    uint64_t key;

    if (!key_of(peer, &key))
        return 0;
    const uint32_t number = find(sources, key);
    return number != 0 ? at(sources, number)->connections : 0;
}

void sources_stop_counting(struct sources *sources)
{
    const struct source_list *const lists[] = {&sources->suspects, &sources->penalised};
    struct sources kept = {.evicted = sources->evicted};

    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        uint32_t number = lists[i]->oldest;
        for (; number != 0; number = at(sources, number)->newer)
            copy_failing(&kept, at(sources, number));
    }
    sources_clear(sources);
    *sources = kept;
}

size_t sources_count(const struct sources *sources)
{
    return sources->index.count;
}

const char *source_format(const struct peer_address *peer, char *buf)
{
    struct peer_address source = *peer;
    uint64_t key;

    if (peer->family == AF_INET6 && key_of(peer, &key)) {
        if ((key & IPV4_SPACE) == IPV4_SPACE) {
            memcpy(source.ip, peer->ip + 12, 4);
            source.family = AF_INET;
        } else {
            memset(source.ip + 8, 0, 8);
        }
    }
    peer_address_format(&source, buf);
    if (source.family == AF_INET6)
        snprintf(buf + strlen(buf), SOURCE_TEXT_BYTES - strlen(buf), "/64");
    return buf;
}

/* Returns false for what is no source. */
static bool key_of(const struct peer_address *peer, uint64_t *key)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    const bool is_mapped =
        peer->family == AF_INET6 && memcmp(peer->ip, mapped, sizeof(mapped)) == 0;

    if (peer->family == AF_INET || is_mapped) {
        uint32_t ip;
        memcpy(&ip, peer->ip + (is_mapped ? sizeof(mapped) : 0), sizeof(ip));
        *key = IPV4_SPACE | ntohl(ip);
        return true;
    }
    if (peer->family == AF_INET6) {
        uint32_t prefix[2];
        memcpy(prefix, peer->ip, sizeof(prefix));
        *key = (uint64_t)ntohl(prefix[0]) << 32 | ntohl(prefix[1]);
        return true;
    }
    return false;
}

static struct source *at(const struct sources *sources, uint32_t number)
{
    return &sources->slots[number - 1];
}

/* The number of a source, or 0. */
static uint32_t find(const struct sources *sources, uint64_t key)
{
    const uint32_t hash = (uint32_t)hash_number(key);
    size_t cursor = 0;
    uint32_t number;

    while ((number = hash_index_next(&sources->index, hash, &cursor)) != 0) {
        if (at(sources, number)->key == key)
            return number;
    }
    return 0;
}

/* Returns 0 when memory is out. */
static uint32_t find_or_add(struct sources *sources, uint64_t key)
{
    uint32_t number = find(sources, key);

    if (number != 0)
        return number;
    number = take_number(sources);
    if (number == 0)
        return 0;
    *at(sources, number) = (struct source){.key = key};
    if (hash_index_add(&sources->index, (uint32_t)hash_number(key), number) != 0) {
        give_number_back(sources, number);
        return 0;
    }
    return number;
}

/*
 * The same for one that has given a wrong password, in the list of suspects if it was in none. Room
 * is made before anything is added, so that there is never one too many.
 */
static uint32_t find_or_add_failing(struct sources *sources, const struct limits_options *limits,
                                    uint64_t key, struct moment now)
{
    uint32_t number = find(sources, key);

    if (number != 0 && at(sources, number)->failures > 0) {
        if (!is_over(at(sources, number), limits, now))
            return number;
        forget(sources, number);
    }
    if (sources->suspects.count + sources->penalised.count >= SOURCES_MAX_FAILING)
        evict_one(sources);
    number = find_or_add(sources, key);
    if (number == 0)
        return 0;
    at(sources, number)->since_us = now.mono_us;
    append(sources, number);
    return number;
}

static uint32_t take_number(struct sources *sources)
{
    const uint32_t number = sources->free;

    if (number != 0) {
        sources->free = at(sources, number)->newer;
        return number;
    }
    if (sources->used == sources->capacity) {
        const uint32_t capacity = sources->capacity > 0 ? sources->capacity * 2 : FIRST_CAPACITY;
        struct source *slots = realloc(sources->slots, capacity * sizeof(*slots));
        if (!slots)
            return 0;
        sources->slots = slots;
        sources->capacity = capacity;
    }
    return ++sources->used;
}

static void drop_if_unused(struct sources *sources, uint32_t number)
{
    const struct source *source = at(sources, number);

    if (source->connections > 0 || source->failures > 0)
        return;
    hash_index_remove(&sources->index, (uint32_t)hash_number(source->key), number);
    give_number_back(sources, number);
}

static void give_number_back(struct sources *sources, uint32_t number)
{
    *at(sources, number) = (struct source){.newer = sources->free};
    sources->free = number;
}

static struct source_list *list_of(struct sources *sources, const struct source *source)
{
    return source->is_penalised ? &sources->penalised : &sources->suspects;
}

static void append(struct sources *sources, uint32_t number)
{
    struct source *source = at(sources, number);
    struct source_list *list = list_of(sources, source);

    source->older = list->newest;
    source->newer = 0;
    if (list->newest != 0)
        at(sources, list->newest)->newer = number;
    else
        list->oldest = number;
    list->newest = number;
    list->count++;
}

/* It is in a list, and then has no wrong passwords any more. */
static void unlink_failing(struct sources *sources, uint32_t number)
{
    struct source *source = at(sources, number);
    struct source_list *list = list_of(sources, source);

    if (source->older != 0)
        at(sources, source->older)->newer = source->newer;
    else
        list->oldest = source->newer;
    if (source->newer != 0)
        at(sources, source->newer)->older = source->older;
    else
        list->newest = source->older;
    list->count--;
    source->failures = 0;
    source->is_penalised = 0;
}

/* Without memory for it, it is forgiven. */
static void copy_failing(struct sources *sources, const struct source *from)
{
    const uint32_t number = find_or_add(sources, from->key);

    if (number == 0)
        return;
    *at(sources, number) = (struct source){.key = from->key,
                                           .since_us = from->since_us,
                                           .failures = from->failures,
                                           .is_penalised = from->is_penalised};
    append(sources, number);
}

static void forget(struct sources *sources, uint32_t number)
{
    unlink_failing(sources, number);
    drop_if_unused(sources, number);
}

static void evict_one(struct sources *sources)
{
    const struct source_list *list =
        sources->suspects.count > 0 ? &sources->suspects : &sources->penalised;

    forget(sources, list->oldest);
    sources->evicted++;
}

static void expire(struct sources *sources, const struct limits_options *limits, struct moment now,
                   unsigned budget)
{
    const struct source_list *const lists[] = {&sources->suspects, &sources->penalised};

    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        for (; budget > 0 && lists[i]->count > 0; budget--) {
            if (!is_over(at(sources, lists[i]->oldest), limits, now))
                break;
            forget(sources, lists[i]->oldest);
        }
    }
}

static bool is_over(const struct source *source, const struct limits_options *limits,
                    struct moment now)
{
    return now.mono_us - source->since_us >= limits->auth_penalty_ms * CLOCK_US_PER_MS;
}
