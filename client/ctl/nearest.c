/* Edit distance with swaps (optimal string alignment), over words as short as IDs are. */
#include "nearest.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define ROW (PROTO_MAX_ID_BYTES + 1)

static size_t least(size_t a, size_t b);
static bool is_known(const struct nearest *nearest, const char *candidate);

size_t nearest_distance(const char *a, const char *b)
{
    const size_t a_len = strlen(a);
    const size_t b_len = strlen(b);
    size_t rows[3][ROW] = {{0}}; /* two before, one before, this one */

    if (a_len > PROTO_MAX_ID_BYTES || b_len > PROTO_MAX_ID_BYTES)
        return SIZE_MAX;
    for (size_t j = 0; j <= b_len; j++)
        rows[1][j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        rows[2][0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            const size_t replaced = rows[1][j - 1] + (a[i - 1] != b[j - 1]);

            rows[2][j] = least(replaced, least(rows[1][j], rows[2][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                rows[2][j] = least(rows[2][j], rows[0][j - 2] + 1);
        }
        memmove(rows[0], rows[1], 2 * sizeof(rows[0]));
    }
    return rows[1][b_len];
}

/* A third of the word may be wrong; of a short one, one or two bytes. */
size_t nearest_limit(const char *word)
{
    const size_t third = strlen(word) / 3;

    return third > 2 ? third : (strlen(word) > 2 ? 2 : 1);
}

void nearest_offer(struct nearest *nearest, const char *candidate)
{
    const size_t distance = nearest_distance(nearest->word, candidate);
    size_t at = nearest->count;

    if (distance > nearest_limit(nearest->word) || is_known(nearest, candidate))
        return;
    while (at > 0 && nearest->found[at - 1].distance > distance)
        at--;
    if (at == NEAREST_MAX)
        return;
    if (nearest->count < NEAREST_MAX)
        nearest->count++;
    memmove(&nearest->found[at + 1], &nearest->found[at],
            (nearest->count - 1 - at) * sizeof(nearest->found[0]));
    nearest->found[at].distance = distance;
    snprintf(nearest->found[at].word, sizeof(nearest->found[at].word), "%s", candidate);
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static bool is_known(const struct nearest *nearest, const char *candidate)
{
    for (size_t i = 0; i < nearest->count; i++) {
        if (strcmp(nearest->found[i].word, candidate) == 0)
            return true;
    }
    return false;
}
