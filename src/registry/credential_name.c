/* One table for the whole process, which only grows: an operator writes these names by hand. */
#include "registry/credential_name.h"

#include "base/hash.h"
#include "base/hash_index.h"
#include "cliser/proto.h"

#include <stdlib.h>
#include <string.h>

static struct {
    char **names; /* number n is at n - 1 */
    size_t count;
    size_t capacity;
    struct hash_index index;
} table;

static int add(const char *name, uint32_t hash);
static int make_room(void);

bool credential_name_valid(const char *name, size_t len)
{
    return len <= CREDENTIAL_NAME_MAX_BYTES && proto_id_valid(name, len);
}

uint16_t credential_name_number(const char *name)
{
    const uint32_t hash = (uint32_t)hash_bytes(name, strlen(name));
    size_t cursor = 0;
    uint32_t number;

    while ((number = hash_index_next(&table.index, hash, &cursor)) != 0) {
        if (strcmp(table.names[number - 1], name) == 0)
            return (uint16_t)number;
    }
    return add(name, hash) == 0 ? (uint16_t)table.count : 0;
}

const char *credential_name(uint16_t number)
{
    return number > 0 && number <= table.count ? table.names[number - 1] : "";
}

static int add(const char *name, uint32_t hash)
{
    char *copy = NULL;

    if (table.count == UINT16_MAX || make_room() != 0)
        return -1;
    copy = strdup(name);
    if (!copy || hash_index_add(&table.index, hash, (uint32_t)table.count + 1) != 0) {
        free(copy);
        return -1;
    }
    table.names[table.count++] = copy;
    return 0;
}

static int make_room(void)
{
    const size_t capacity = table.capacity ? table.capacity * 2 : 16;

    if (table.count < table.capacity)
        return 0;
    char **names = realloc(table.names, capacity * sizeof(*names));
    if (!names)
        return -1;
    table.names = names;
    table.capacity = capacity;
    return 0;
}
