/* Checks of what is written by the control API, by other means than it was written. */
#include "http_text.h"

#include "fuzz.h"

#include <jansson.h>

static const char *check_name(const char *at, const char *more);
static void check_sample(const char *line);

void http_text_check_json(const char *text, size_t len)
{
    json_error_t error;
    json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);

    fuzz_require(json && json_is_object(json));
    json_decref(json);
}

void http_text_check_metrics(const char *text, size_t len)
{
    char *copy = fuzz_string(text, len);
    char *rest = copy;
    char *line = NULL;
    size_t samples = 0;

    fuzz_require(strlen(copy) == len && len > 0 && copy[len - 1] == '\n');
    while ((line = strsep(&rest, "\n")) != NULL && rest) {
        if (strncmp(line, "# HELP ", 7) == 0 || strncmp(line, "# TYPE ", 7) == 0) {
            fuzz_require(*check_name(line + 7, "") == ' ');
            continue;
        }
        check_sample(line);
        samples++;
    }
    fuzz_require(samples > 20);
    free(copy);
}

static const char *check_name(const char *at, const char *more)
{
    const char *begin = at;

    while ((*at >= 'a' && *at <= 'z') || (*at >= '0' && *at <= '9') || *at == '_' ||
           (*at != '\0' && strchr(more, *at)))
        at++;
    fuzz_require(at > begin);
    return at;
}

static void check_sample(const char *line)
{
    const char *at = check_name(line, "");
    char *end = NULL;

    if (*at == '{') {
        do {
            at = check_name(at + 1, "");
            fuzz_require(at[0] == '=' && at[1] == '"');
            at = check_name(at + 2, "+.ABCDEFGHIJKLMNOPQRSTUVWXYZ");
            fuzz_require(*at == '"');
            at++;
        } while (*at == ',');
        fuzz_require(*at == '}');
        at++;
    }
    fuzz_require(*at == ' ');
    (void)strtod(at + 1, &end);
    fuzz_require(end > at + 1 && *end == '\0');
}
