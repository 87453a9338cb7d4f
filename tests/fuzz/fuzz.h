/*
 * What all fuzz targets share: how one says that something is wrong, and how it reads its input.
 * tests/fuzz/README.md has what each of them checks.
 */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The entry point, called by libFuzzer and by replay.c. Returns 0, or -1 for an input that is not
 * worth keeping. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Must hold whatever the input is, in every build. */
#define fuzz_require(condition)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);         \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* An input that is read from its begin to its end. What is not there reads as 0. */
struct fuzz_input {
    const uint8_t *at;
    size_t left;
};

static inline struct fuzz_input fuzz_input_of(const uint8_t *data, size_t size)
{
    return (struct fuzz_input){.at = data, .left = size};
}

static inline uint8_t fuzz_byte(struct fuzz_input *input)
{
    if (input->left == 0)
        return 0;
    input->left--;
    return *input->at++;
}

/* Up to wanted bytes, which stay where they are; *len is how many there were. */
static inline const char *fuzz_bytes(struct fuzz_input *input, size_t wanted, size_t *len)
{
    const char *bytes = (const char *)input->at;

    *len = wanted < input->left ? wanted : input->left;
    input->at += *len;
    input->left -= *len;
    return bytes;
}

/* A heap copy of exactly so many bytes, so that a sanitizer sees each step beyond. */
static inline char *fuzz_copy(const void *bytes, size_t len)
{
    char *copy = calloc(len > 0 ? len : 1, 1);

    fuzz_require(copy);
    if (len > 0)
        memcpy(copy, bytes, len);
    return copy;
}

/* The same as a string: up to the first NUL. */
static inline char *fuzz_string(const void *bytes, size_t len)
{
    const size_t text_len = len > 0 ? strnlen(bytes, len) : 0;
    char *copy = malloc(text_len + 1);

    fuzz_require(copy);
    if (text_len > 0)
        memcpy(copy, bytes, text_len);
    copy[text_len] = '\0';
    return copy;
}

/* Where the same bytes are cut into segments must not matter: ways to cut them. */
enum fuzz_cut { FUZZ_CUT_NOWHERE, FUZZ_CUT_EVERYWHERE, FUZZ_CUT_SOMEWHERE, FUZZ_CUT_COUNT };

/* The length of the next segment of left bytes, 1 or more. *state is any number at first; the same
 * number gives the same cuts. */
static inline size_t fuzz_segment(enum fuzz_cut cut, size_t left, uint64_t *state)
{
    size_t segment = left;

    if (cut == FUZZ_CUT_EVERYWHERE)
        segment = 1;
    if (cut == FUZZ_CUT_SOMEWHERE) {
        *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        segment = 1 + (size_t)(*state >> 33) % 40;
    }
    return segment < left ? segment : left;
}

#endif
