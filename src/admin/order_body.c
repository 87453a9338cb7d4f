/* From JSON to an order, with a word for everything that is wrong with it. Gives no order. */
#include "admin/order_body.h"

#include "admin/json.h"
#include "base/text.h"
#include "base/units.h"
#include "registry/glob.h"

#include <jansson.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where what is wrong is said. */
struct reader {
    struct order_request *order;
    bool *dry_run;
    char *message;
    size_t message_size;
};

static int read_field(struct reader *reader, const char *name, const json_t *value);
static int read_waves(struct reader *reader, const json_t *array);
static int read_wave(struct reader *reader, const json_t *wave, size_t index);
static int join_globs(struct reader *reader, const json_t *wave, size_t index, struct text *joined);
static int read_duration(struct reader *reader, const char *name, const json_t *value,
                         uint64_t maximum, uint64_t *ms);
static int out_of_memory(struct reader *reader);
static int wrong(struct reader *reader, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

int order_body_read(const char *body, size_t len, struct order_request *order, bool *dry_run,
                    char *message, size_t message_size)
{
    struct reader reader = {order, dry_run, message, message_size};
    json_error_t error;
    const char *name = NULL;
    json_t *value = NULL;
    int result = 0;

    *order = (struct order_request){.grace_ms = ORDER_GRACE_MS};
    *dry_run = false;
    json_t *object = json_loadb(body ? body : "", len, JSON_REJECT_DUPLICATES, &error);
    if (!object && json_lacked_memory(&error))
        return out_of_memory(&reader);
    if (!object)
        return wrong(&reader, "the body is not JSON: %s, in line %d, column %d", error.text,
                     error.line, error.column);
    if (!json_is_object(object))
        result = wrong(&reader, "the body should be an object, such as {\"waves\":[[\"web-*\"]]}");
    json_object_foreach(object, name, value)
    {
        if (result == 0)
            result = read_field(&reader, name, value);
    }
    if (result == 0)
        result = read_waves(&reader, json_object_get(object, "waves"));
    if (result != 0)
        order_waves_clear(&order->waves);
    json_decref(object);
    return result;
}

/* All but the waves, which are read last: they are the part that takes memory. */
static int read_field(struct reader *reader, const char *name, const json_t *value)
{
    if (strcmp(name, "waves") == 0)
        return 0;
    if (strcmp(name, "grace") == 0)
        return read_duration(reader, name, value, ORDER_MAX_GRACE_MS, &reader->order->grace_ms);
    if (strcmp(name, "hold") == 0)
        return read_duration(reader, name, value, ORDER_MAX_HOLD_MS, &reader->order->hold_ms);
    if (strcmp(name, "dry_run") != 0)
        return wrong(
            reader, "\"%s\" is no field of an order; there are: waves, grace, hold, dry_run", name);
    if (!json_is_boolean(value))
        return wrong(reader, "dry_run: should be true or false");
    *reader->dry_run = json_is_true(value);
    return 0;
}

static int read_waves(struct reader *reader, const json_t *array)
{
    if (!json_is_array(array) || json_array_size(array) == 0)
        return wrong(reader, "waves: should be a list of lists of IDs and patterns, such as "
                             "[[\"web-*\"], [\"db-*\", \"nas\"]]");
    for (size_t i = 0; i < json_array_size(array); i++) {
        const int result = read_wave(reader, json_array_get(array, i), i);
        if (result != 0)
            return result;
    }
    return 0;
}

static int read_wave(struct reader *reader, const json_t *wave, size_t index)
{
    char message[256];
    struct text joined = {.bytes = NULL};
    size_t len = 0;

    if (!json_is_array(wave) || json_array_size(wave) == 0)
        return wrong(reader, "waves[%zu]: should be a list of IDs and patterns", index);
    const int joining = join_globs(reader, wave, index, &joined);
    char *match = text_take(&joined, &len);
    if (joining != 0) {
        free(match);
        return joining;
    }
    const int result =
        match ? order_waves_add(&reader->order->waves, match, message, sizeof(message)) : -2;
    free(match);
    if (result == -2)
        return out_of_memory(reader);
    return result == 0 ? 0 : wrong(reader, "waves[%zu]: %s", index, message);
}

static int join_globs(struct reader *reader, const json_t *wave, size_t index, struct text *joined)
{
    char message[256];

    for (size_t i = 0; i < json_array_size(wave); i++) {
        const char *glob = json_string_value(json_array_get(wave, i));

        if (!glob)
            return wrong(reader, "waves[%zu][%zu]: should be a text", index, i);
        if (glob_check(glob, message, sizeof(message)) != 0)
            return wrong(reader, "waves[%zu][%zu]: %s", index, i, message);
        text_add(joined, "%s%s", i > 0 ? "," : "", glob);
    }
    return 0;
}

/* null stands for the default. */
static int read_duration(struct reader *reader, const char *name, const json_t *value,
                         uint64_t maximum, uint64_t *ms)
{
    char most[UNITS_TEXT_BYTES];
    uint64_t given = 0;

    if (json_is_null(value))
        return 0;
    if (!json_is_string(value) || units_parse_duration(json_string_value(value), &given) != 0 ||
        given > maximum)
        return wrong(reader, "%s: should be a text such as \"60s\" or \"15m\", up to \"%s\"", name,
                     units_format_duration(maximum, most));
    *ms = given;
    return 0;
}

/* Returns -2 always. */
static int out_of_memory(struct reader *reader)
{
    (void)wrong(reader, "out of memory");
    return -2;
}

/* Returns -1 always. */
static int wrong(struct reader *reader, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(reader->message, reader->message_size, format, args);
    va_end(args);
    return -1;
}
