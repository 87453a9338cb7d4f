/* From text to values: one setter for each type of setting. Private to the reader of settings. */
#ifndef BASE_SETTINGS_VALUE_H
#define BASE_SETTINGS_VALUE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/settings.h"

/*
 * Sets the value of this row at place from text; a list gets one or more items more, which remember
 * the line. Returns 0, or -1 with what would be right in message; a list may have got some of the
 * items then.
 */
int settings_value_set(const struct setting *row, void *place, const char *text, unsigned line,
                       char *message, size_t message_size);

/* May the key stand in a file more than once? */
bool settings_is_list(const struct setting *row);

#endif
