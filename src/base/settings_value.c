/*
 * What each type of setting takes, and what is said to a text that it does not take. Knows nothing
 * of files.
 */
#include "base/settings_value.h"

#include "base/units.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int set_fn(const struct setting *row, void *value, const char *text, unsigned line,
                   char *message, size_t message_size);

static set_fn set_bool, set_number, set_duration, set_choice, set_text, set_list, set_lines;

static set_fn *const setters[] = {
    [SETTING_BOOL] = set_bool,     [SETTING_NUMBER] = set_number, [SETTING_DURATION] = set_duration,
    [SETTING_CHOICE] = set_choice, [SETTING_TEXT] = set_text,     [SETTING_LIST] = set_list,
    [SETTING_LINES] = set_lines,
};

static int list_add(struct settings_list *list, const char *text, size_t len, unsigned line);
static int out_of_memory(char *message, size_t message_size);

int settings_value_set(const struct setting *row, void *place, const char *text, unsigned line,
                       char *message, size_t message_size)
{
    return setters[row->type](row, place, text, line, message, message_size);
}

bool settings_is_list(const struct setting *row)
{
    return row->type == SETTING_LIST || row->type == SETTING_LINES;
}

bool settings_equal(const struct setting *row, const void *left, const void *right)
{
    const void *a = (const char *)left + row->offset;
    const void *b = (const char *)right + row->offset;

    switch (row->type) {
    case SETTING_BOOL:
        return *(const bool *)a == *(const bool *)b;
    case SETTING_NUMBER:
    case SETTING_DURATION:
        return *(const uint64_t *)a == *(const uint64_t *)b;
    case SETTING_CHOICE:
        return *(const int *)a == *(const int *)b;
    case SETTING_TEXT: {
        const char *s = *(char *const *)a;
        const char *t = *(char *const *)b;
        return s && t ? strcmp(s, t) == 0 : s == t;
    }
    case SETTING_LIST:
    case SETTING_LINES:
        break;
    }

    const struct settings_list *l = a;
    const struct settings_list *r = b;
    if (l->count != r->count)
        return false;
    for (size_t i = 0; i < l->count; i++) {
        if (strcmp(l->items[i], r->items[i]) != 0)
            return false;
    }
    return true;
}

int settings_list_add(struct settings_list *list, const char *item, unsigned line)
{
    return list_add(list, item, strlen(item), line);
}

void settings_list_clear(struct settings_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        settings_free_secret(list->items[i]);
    free(list->items);
    free(list->lines);
    *list = (struct settings_list){.items = NULL};
}

static int set_bool(const struct setting *row, void *value, const char *text, unsigned line,
                    char *message, size_t message_size)
{
    (void)row;
    (void)line;
    if (strcmp(text, "yes") == 0) {
        *(bool *)value = true;
    } else if (strcmp(text, "no") == 0) {
        *(bool *)value = false;
    } else {
        snprintf(message, message_size, "\"%s\" should be yes or no", text);
        return -1;
    }
    return 0;
}

static int set_number(const struct setting *row, void *value, const char *text, unsigned line,
                      char *message, size_t message_size)
{
    uint64_t number = 0;

    (void)line;
    if (units_parse_number(text, &number) != 0 || number < row->minimum || number > row->maximum) {
        snprintf(message, message_size,
                 "\"%s\" should be a whole number from %" PRIu64 " to %" PRIu64, text, row->minimum,
                 row->maximum);
        return -1;
    }
    *(uint64_t *)value = number;
    return 0;
}

static int set_duration(const struct setting *row, void *value, const char *text, unsigned line,
                        char *message, size_t message_size)
{
    char low[UNITS_TEXT_BYTES];
    char high[UNITS_TEXT_BYTES];
    uint64_t ms = 0;

    (void)line;
    if (row->word && strcmp(text, row->word) == 0) {
        *(uint64_t *)value = SETTING_NEVER;
        return 0;
    }
    if (units_parse_duration(text, &ms) != 0 || ms < row->minimum || ms > row->maximum) {
        snprintf(
            message, message_size,
            "\"%s\" should be a whole number with ms, s, m, h or d behind it, from %s to %s%s%s",
            text, units_format_duration(row->minimum, low),
            units_format_duration(row->maximum, high), row->word ? ", or " : "",
            row->word ? row->word : "");
        return -1;
    }
    *(uint64_t *)value = ms;
    return 0;
}

static int set_choice(const struct setting *row, void *value, const char *text, unsigned line,
                      char *message, size_t message_size)
{
    size_t len;

    (void)line;
    for (int i = 0; row->choices[i]; i++) {
        if (strcmp(row->choices[i], text) == 0) {
            *(int *)value = i;
            return 0;
        }
    }
    len = (size_t)snprintf(message, message_size, "\"%s\" should be one of", text);
    for (int i = 0; row->choices[i] && len < message_size; i++)
        len += (size_t)snprintf(message + len, message_size - len, "%s %s", i > 0 ? "," : "",
                                row->choices[i]);
    return -1;
}

static int set_text(const struct setting *row, void *value, const char *text, unsigned line,
                    char *message, size_t message_size)
{
    (void)row;
    (void)line;
    if (text[0] == '\0') {
        snprintf(message, message_size, "is empty; leave the line out to have the default");
        return -1;
    }
    char *copy = strdup(text);
    if (!copy)
        return out_of_memory(message, message_size);
    settings_free_secret(*(char **)value);
    *(char **)value = copy;
    return 0;
}

static int set_list(const struct setting *row, void *value, const char *text, unsigned line,
                    char *message, size_t message_size)
{
    const char *rest = text;

    (void)row;
    for (;;) {
        rest += strspn(rest, " \t");
        size_t len = strcspn(rest, ",");
        const char *next = rest + len;

        while (len > 0 && strchr(" \t", rest[len - 1]))
            len--;
        if (len > 0) {
            if (list_add(value, rest, len, line) != 0)
                return out_of_memory(message, message_size);
        } else if (*next == ',' || rest == text) {
            snprintf(message, message_size, "\"%s\" has an empty item between its commas", text);
            return -1;
        }
        if (*next != ',')
            return 0;
        rest = next + 1;
    }
}

static int set_lines(const struct setting *row, void *value, const char *text, unsigned line,
                     char *message, size_t message_size)
{
    (void)row;
    if (text[0] == '\0') {
        snprintf(message, message_size, "is empty");
        return -1;
    }
    return list_add(value, text, strlen(text), line) == 0 ? 0
                                                          : out_of_memory(message, message_size);
}

static int list_add(struct settings_list *list, const char *text, size_t len, unsigned line)
{
    if (list->is_default)
        settings_list_clear(list);

    char **items = realloc(list->items, (list->count + 1) * sizeof(*items));
    if (items)
        list->items = items;
    unsigned *lines = realloc(list->lines, (list->count + 1) * sizeof(*lines));
    if (lines)
        list->lines = lines;
    char *item = strndup(text, len);
    if (!items || !lines || !item) {
        free(item);
        return -1;
    }
    items[list->count] = item;
    lines[list->count] = line;
    list->count++;
    return 0;
}

static int out_of_memory(char *message, size_t message_size)
{
    snprintf(message, message_size, "out of memory");
    return -1;
}
