/*
 * Pieces of the ordinary heap that are kept for when it has no more: whoever gets one frees it as
 * any other. Knows nothing of what they are for.
 */
#include "tls/spare.h"

#include <event2/event.h>

#include <stddef.h>
#include <stdlib.h>

static void *pieces[SPARE_PIECES];
static bool is_installed;
static bool is_open;

static void *allocate(size_t size);

void spare_install(void)
{
    event_set_mem_functions(allocate, realloc, free);
    is_installed = true;
}

bool spare_begin(void)
{
    for (size_t i = 0; is_installed && i < SPARE_PIECES; i++) {
        if (!pieces[i] && !(pieces[i] = malloc(SPARE_BYTES)))
            return false;
    }
    is_open = true;
    return true;
}

void spare_end(void)
{
    is_open = false;
}

static void *allocate(size_t size)
{
    void *memory = malloc(size);

    for (size_t i = 0; !memory && is_open && size <= SPARE_BYTES && i < SPARE_PIECES; i++) {
        memory = pieces[i];
        pieces[i] = NULL;
    }
    return memory;
}
