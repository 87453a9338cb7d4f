/* Asks the server for IDs that begin, or end, as the mistyped one does, from narrow to wide, and
 * stops after a few pages: of a million IDs one wants a hint, not all of them. */
#include "suggest.h"

#include "api.h"
#include "fields.h"
#include "nearest.h"
#include "say.h"
#include "uri.h"

#include <stdlib.h>
#include <string.h>

#define PAGE 1000

static int offer_page(struct api *api, struct nearest *nearest, const char *pattern);

void suggest_ids(struct api *api, const char *id)
{
    struct nearest nearest = {.word = id};
    const int len = (int)strlen(id);
    /* The whole, all but the end, a half, the other half, anything. An ID has nothing in it that
     * means something in a pattern. */
    char *patterns[] = {
        say_format("%s*", id),
        say_format("%.*s*", len > 2 ? len - 2 : 1, id),
        say_format("%.*s*", (len + 1) / 2, id),
        say_format("*%s", id + len / 2),
        say_format("*"),
    };
    const size_t count = sizeof(patterns) / sizeof(patterns[0]);

    for (size_t i = 0; i < count; i++) {
        if (nearest.count < NEAREST_MAX && offer_page(api, &nearest, patterns[i]) < 0)
            break;
    }
    for (size_t i = 0; i < count; i++)
        free(patterns[i]);
    if (nearest.count == 0) {
        say_error("no client %s; 'list' shows all there are", id);
        return;
    }
    say_error("no client %s; nearest: %s%s%s%s%s", id, nearest.found[0].word,
              nearest.count > 1 ? ", " : "", nearest.found[1].word, nearest.count > 2 ? ", " : "",
              nearest.found[2].word);
}

/* A server that cannot be asked has been complained about already, or will be. */
static int offer_page(struct api *api, struct nearest *nearest, const char *pattern)
{
    struct api_reply reply;
    char *escaped = uri_escape(pattern);
    char *path = say_format("/v1/clients?limit=%d&match=%s", PAGE, escaped);
    const json_t *record;
    size_t i;

    const bool done = api_call(api, "GET", path, NULL, &reply) == API_DONE;
    json_array_foreach (json_object_get(reply.body, "clients"), i, record) {
        nearest_offer(nearest, field_text(record, "cid"));
    }
    api_reply_clear(&reply);
    free(escaped);
    free(path);
    return done ? 0 : -1;
}
