/*
 * The line codec: the input is what a peer sends. Checked against a second implementation, which
 * goes byte by byte, and against itself with the same bytes cut otherwise.
 */
#include "cliser/proto.h"

#include "fuzz.h"

#define MAX_ITEMS 4096

/* One line, or how it ended. */
struct item {
    size_t begin; /* of the text, in the input */
    size_t len;
    int error; /* 0 for a line */
};

struct items {
    struct item list[MAX_ITEMS];
    size_t count;
};

static struct items expected;
static struct items found;

static void note(struct items *items, struct item item);
static void read_naively(const uint8_t *data, size_t size);
static void read_in_segments(const uint8_t *data, size_t size, enum fuzz_cut cut);
static void check_line(const char *line, size_t len);
static int naive_code(const char *line, size_t len);
static bool naive_id_valid(const char *id, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > MAX_ITEMS)
        return -1;
    read_naively(data, size);
    for (int cut = 0; cut < FUZZ_CUT_COUNT; cut++) {
        read_in_segments(data, size, (enum fuzz_cut)cut);
        fuzz_require(found.count == expected.count);
        for (size_t i = 0; i < found.count; i++) {
            const struct item *left = &found.list[i];
            const struct item *right = &expected.list[i];
            fuzz_require(left->error == right->error);
            fuzz_require(left->error || (left->begin == right->begin && left->len == right->len));
        }
    }
    for (size_t i = 0; i < expected.count; i++) {
        if (expected.list[i].error)
            fuzz_require(strcmp(proto_strerror(expected.list[i].error), proto_strerror(0)) != 0);
        else
            check_line((const char *)data + expected.list[i].begin, expected.list[i].len);
    }
    check_line((const char *)data, size);
    return 0;
}

static void note(struct items *items, struct item item)
{
    fuzz_require(items->count < MAX_ITEMS);
    items->list[items->count++] = item;
}

/* docs/protocol.md, "Lines", as one would write it down first. */
static void read_naively(const uint8_t *data, size_t size)
{
    size_t begin = 0;

    expected.count = 0;
    for (size_t i = 0; i < size; i++) {
        if (data[i] == '\0') {
            note(&expected, (struct item){.error = PROTO_ERR_NUL});
            return;
        }
        if (data[i] == '\n') {
            const size_t len = i - begin;
            const bool has_cr = len > 0 && data[i - 1] == '\r';
            note(&expected, (struct item){.begin = begin, .len = has_cr ? len - 1 : len});
            begin = i + 1;
        } else if (i - begin + 1 == 256) {
            note(&expected, (struct item){.error = PROTO_ERR_TOO_LONG});
            return;
        }
    }
}

/* As a connection does it: what has come so far and is not taken yet stands in a buffer of just
 * this size. */
static void read_in_segments(const uint8_t *data, size_t size, enum fuzz_cut cut)
{
    uint64_t state = size;
    size_t come = 0;
    size_t taken = 0;

    found.count = 0;
    while (come < size) {
        come += fuzz_segment(cut, size - come, &state);
        char *buf = fuzz_copy(data + taken, come - taken);
        const size_t have = come - taken;
        size_t used = 0;
        int got = 0;

        do {
            const char *line = NULL;
            size_t len = 0;
            got = proto_take_line(buf + used, have - used, &line, &len);
            fuzz_require(got <= PROTO_MAX_LINE_BYTES);
            if (got > 0) {
                fuzz_require(line == buf + used && len < (size_t)got);
                note(&found, (struct item){.begin = taken + used, .len = len});
                used += (size_t)got;
            }
        } while (got > 0);
        free(buf);
        taken += used;
        if (got < 0) {
            note(&found, (struct item){.error = got});
            return;
        }
        fuzz_require(come - taken < PROTO_MAX_LINE_BYTES); /* so much has to be kept at most */
    }
}

static void check_line(const char *line, size_t len)
{
    char *copy = fuzz_copy(line, len);
    const int code = proto_parse_code(copy, len);
    const struct proto_code_info *info = proto_code_info(code);
    bool has_bad_byte = false;

    fuzz_require(code == naive_code(copy, len));
    fuzz_require(!info || (int)info->code == code);
    for (size_t i = 0; proto_code_at(i); i++)
        fuzz_require(((int)proto_code_at(i)->code == code) == (proto_code_at(i) == info));
    fuzz_require(proto_id_valid(copy, len) == naive_id_valid(copy, len));
    for (size_t i = 0; i < len; i++)
        has_bad_byte |= copy[i] == '\r' || copy[i] == '\n' || copy[i] == '\0';
    fuzz_require(proto_password_valid(copy, len) == (len >= 1 && len <= 128 && !has_bad_byte));
    free(copy);
}

static int naive_code(const char *line, size_t len)
{
    char digits[4] = "";
    int code = 0;
    char end = '\0';

    if (len < 3 || line[0] < '0' || line[0] > '9' || line[1] < '0' || line[1] > '9' ||
        line[2] < '0' || line[2] > '9')
        return -1;
    memcpy(digits, line, 3);
    return sscanf(digits, "%3d%c", &code, &end) == 1 ? code : -1;
}

static bool naive_id_valid(const char *id, size_t len)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                  "0123456789._:@-";
    char text[65] = "";

    if (len < 1 || len > 64)
        return false;
    memcpy(text, id, len);
    return strlen(text) == len && strspn(text, allowed) == len;
}
