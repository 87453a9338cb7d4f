/* Which of many words a mistyped one was probably meant to be. Pure. */
#ifndef CTL_NEAREST_H
#define CTL_NEAREST_H

#include <stdbool.h>
#include <stddef.h>

#include "cliser/proto.h"

#define NEAREST_MAX 3

/* The few nearest words so far; zeroed, with word set, is ready. Words longer than an ID can be
 * are never near. */
struct nearest {
    const char *word;
    size_t count;
    struct {
        size_t distance;
        char word[PROTO_MAX_ID_BYTES + 1];
    } found[NEAREST_MAX]; /* nearest first; among equals the first that came */
};

/* Steps from one word to the other: a byte put in, left out, replaced, or swapped with the next.
 * Words of more than PROTO_MAX_ID_BYTES are too far from anything: SIZE_MAX. */
size_t nearest_distance(const char *a, const char *b);

/* From how many steps on a word is another word rather than a mistyped one. */
size_t nearest_limit(const char *word);

/* Keeps the candidate if it is among the nearest. One that was kept already is not kept twice. */
void nearest_offer(struct nearest *nearest, const char *candidate);

#endif
