/*
 * Patterns for IDs: the input is lines, first an ID, then patterns. A pattern that is taken matches
 * as fnmatch(3) says, what has no pattern in it only itself, and nothing without its prefix; a set
 * matches when one of it does; waves are tried in their order.
 */
#include "cliser/proto.h"
#include "registry/glob.h"
#include "session/order_waves.h"

#include "fuzz.h"

#include <fnmatch.h>

#define MAX_GLOBS 16

static bool check_glob(const char *glob, const char *cid);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct order_waves waves = {.count = 0};
    char joined[2048] = "";
    char message[256];
    bool any_matches = false;
    bool all_are_good = true;
    unsigned expected = 0;
    size_t count = 0;

    if (size > 1024)
        return -1;
    char *text = fuzz_string(data, size);
    char *rest = text;
    const char *cid = strsep(&rest, "\n");
    char *glob = NULL;

    if (!proto_id_valid(cid, strlen(cid)))
        cid = "web-1";
    while (count < MAX_GLOBS && (glob = strsep(&rest, "\n")) != NULL) {
        (void)strcat(joined, count > 0 ? "," : "");
        (void)strcat(joined, glob);
        count++;
        if (glob_check(glob, message, sizeof(message)) != 0) {
            fuzz_require(message[0] != '\0' && !strchr(message, '\n'));
            all_are_good = false;
            continue;
        }
        fuzz_require(order_waves_add(&waves, glob, message, sizeof(message)) == 0);
        const bool matches = check_glob(glob, cid);
        any_matches |= matches;
        if (matches && expected == 0)
            expected = (unsigned)waves.count;
    }
    fuzz_require(order_waves_match(&waves, cid, 0) == expected);
    order_waves_clear(&waves);

    struct glob_set *set = glob_set_new(joined);
    /* A comma in a pattern makes two of it. */
    if (!all_are_good || count == 0)
        fuzz_require(count == 0 || !set || strchr(text, ',') || memchr(data, ',', size));
    else
        fuzz_require(set && glob_set_matches(set, cid) == any_matches);
    glob_set_free(set);
    free(text);
    return 0;
}

static bool check_glob(const char *glob, const char *cid)
{
    const bool matches = glob_matches(glob, cid);
    const size_t prefix = glob_prefix_len(glob);

    fuzz_require(strlen(glob) <= GLOB_MAX_BYTES && prefix <= strlen(glob));
    fuzz_require(matches == (fnmatch(glob, cid, 0) == 0));
    fuzz_require(!matches || strncmp(glob, cid, prefix) == 0);
    if (glob_is_plain(glob))
        fuzz_require(matches == (strcmp(glob, cid) == 0) && proto_id_valid(glob, strlen(glob)));
    return matches;
}
