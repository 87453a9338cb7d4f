/*
 * Patterns for IDs, as a shell knows them (fnmatch(3)): * ? [a-c] [!a-c]. And sets of them, in
 * which IDs without a pattern in them are looked up, so that thousands may be listed one by one.
 */
#ifndef REGISTRY_GLOB_H
#define REGISTRY_GLOB_H

#include <stdbool.h>
#include <stddef.h>

#define GLOB_MAX_BYTES 128

struct glob_set;

/* Can this match an ID? Returns 0, or -1 with what would be right in message. */
int glob_check(const char *glob, char *message, size_t message_size);

/* Is there nothing in it but the characters of an ID? */
bool glob_is_plain(const char *glob);

/* Has every [ in it a ]? One that has not stands for itself, and so matches no ID. */
bool glob_is_closed(const char *glob);

bool glob_matches(const char *glob, const char *cid);

/* What comparing an ID with it may cost at most, in comparisons with a short one. */
size_t glob_weight(const char *glob);

/* How many bytes at its begin every ID has that it matches. */
size_t glob_prefix_len(const char *glob);

/* Makes a set of globs that stand separated by commas, each of which glob_check() takes. Returns
 * NULL when memory is out, or when one is none. */
struct glob_set *glob_set_new(const char *text);

/* NULL is allowed. */
void glob_set_free(struct glob_set *set);

/* Does any of them match? */
bool glob_set_matches(const struct glob_set *set, const char *cid);

/* How many of them have a pattern in them: each is tried on each ID. */
size_t glob_set_patterns(const struct glob_set *set);

/* The sum of the weights of these. */
size_t glob_set_weight(const struct glob_set *set);

#endif
