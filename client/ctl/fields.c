/* Thin: jansson with the answer that a command wants when a field is missing. */
#include "fields.h"

#include "say.h"

/* As many digits as a double keeps of any decimal number: 1.25 stays 1.25, and a time in Unix
 * seconds keeps its microseconds. */
#define LINE_FLAGS (JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15))

const char *field_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

int64_t field_int(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    if (json_is_real(value)) {
        const double real = json_real_value(value);

        return real > -1e15 && real < 1e15 ? (int64_t)real : 0;
    }
    return json_integer_value(value);
}

uint64_t field_count(const json_t *object, const char *key)
{
    const int64_t value = field_int(object, key);

    return value > 0 ? (uint64_t)value : 0;
}

bool field_true(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

bool field_given(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    return value && !json_is_null(value);
}

void field_print_line(const json_t *value, FILE *out)
{
    /* A stream that cannot be written shows in ferror(), which main() looks at. */
    (void)json_dumpf(value, out, LINE_FLAGS);
    fputc('\n', out);
}
