/* What is known, as JSON (docs/control.md has each field). Everything returned is the caller's;
 * NULL when memory is out. */
#ifndef ADMIN_JSON_H
#define ADMIN_JSON_H

#include <jansson.h>

#include "admin/admin.h"

/* How everything is written: without blanks, and with the digits that a double really has. */
#define JSON_STYLE (JSON_COMPACT | JSON_REAL_PRECISION(13))

json_t *json_of_record(const struct admin *admin, const struct registry_record *record);

json_t *json_of_status(const struct admin *admin, struct moment now);

/* The order under way, or the last one. */
json_t *json_of_order(const struct admin *admin);

/* Globs separated by commas, as an array: the first 100 of them. */
json_t *json_of_match(const char *match);

/* As json_dumps(), which may leave out a key that finds no memory. To be freed. */
char *json_text(const json_t *json, size_t *len);

/* Did reading fail for want of memory, and not for what there was to read? */
bool json_lacked_memory(const json_error_t *error);

#endif
