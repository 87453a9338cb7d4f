/* Server-sent events: the same events come out however the bytes were cut. */
#include "event_stream.h"

#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What came out, as "type|data;" one after the other. */
struct record {
    struct event_stream stream;
    char text[512];
};

static void take_event(void *arg, const char *type, const char *data)
{
    struct record *record = arg;
    const size_t used = strlen(record->text);

    snprintf(record->text + used, sizeof(record->text) - used, "%s|%s;", type, data);
}

static void begin(struct record *record)
{
    *record = (struct record){.stream = {.event = take_event}};
    record->stream.arg = record;
}

static void assert_events(const char *bytes, size_t len, size_t cut, const char *expected,
                          const char *last_id)
{
    struct record record;

    begin(&record);
    event_stream_take(&record.stream, bytes, cut);
    event_stream_take(&record.stream, bytes + cut, len - cut);
    assert_string_equal(record.text, expected);
    assert_string_equal(record.stream.last_id, last_id);
    event_stream_clear(&record.stream);
}

static void assert_in_every_split(const char *bytes, const char *expected, const char *last_id)
{
    const size_t len = strlen(bytes);
    struct record record;

    for (size_t cut = 0; cut <= len; cut++)
        assert_events(bytes, len, cut, expected, last_id);

    begin(&record);
    for (size_t i = 0; i < len; i++)
        event_stream_take(&record.stream, bytes + i, 1);
    assert_string_equal(record.text, expected);
    event_stream_clear(&record.stream);
}

static void events_come_out_in_every_split(void **state)
{
    static const char *const line_ends[] = {"\n", "\r\n", "\r"};

    (void)state;
    for (size_t i = 0; i < COUNT(line_ends); i++) {
        const char *end = line_ends[i];
        char bytes[256];

        snprintf(bytes, sizeof(bytes),
                 ": hello%s%sid: 7%sevent: connected%sdata: {\"cid\": \"a:b\"}%s%s:%s"
                 "id:8%sevent:missed%sdata:{}%s%s",
                 end, end, end, end, end, end, end, end, end, end, end);
        assert_in_every_split(bytes, "connected|{\"cid\": \"a:b\"};missed|{};", "8");
    }
}

static void several_data_lines_are_joined(void **state)
{
    (void)state;
    assert_in_every_split("data: a\ndata\ndata:  b\n\n", "message|a\n\n b;", "");
}

static void event_without_data_is_none_but_its_id_counts(void **state)
{
    (void)state;
    assert_in_every_split("id: 5\nevent: x\n\ndata: y\n\n", "message|y;", "5");
}

static void unknown_fields_are_ignored(void **state)
{
    (void)state;
    assert_in_every_split("retry: 10\nfoo: bar\nevent\ndatax: 1\ndata: z\n\n", "message|z;", "");
}

static void half_an_event_counts_for_nothing(void **state)
{
    (void)state;
    assert_in_every_split("id: 1\ndata: a\n\nid: 2\ndata: b\n", "message|a;", "1");
}

/* Else the next stream would begin with the end of this one. */
static void restart_forgets_the_half_and_keeps_the_last_id(void **state)
{
    static const char first[] = "id: 1\ndata: a\n\nid: 2\nevent: x\ndata: b\nda";
    static const char second[] = "data: c\n\n";
    struct record record;

    (void)state;
    begin(&record);
    event_stream_take(&record.stream, first, strlen(first));
    event_stream_restart(&record.stream);
    event_stream_take(&record.stream, second, strlen(second));
    assert_string_equal(record.text, "message|a;message|c;");
    assert_string_equal(record.stream.last_id, "1");
    event_stream_clear(&record.stream);
}

static void take_many(struct record *record, char byte, size_t count)
{
    for (size_t i = 0; i < count; i++)
        event_stream_take(&record->stream, &byte, 1);
}

static void endless_line_is_left_out(void **state)
{
    static const char begins[] = "data: a\ndata: ";
    static const char ends[] = "\n\ndata: b\n\n";
    struct record record;

    (void)state;
    begin(&record);
    event_stream_take(&record.stream, begins, strlen(begins));
    take_many(&record, 'x', 3 * EVENT_STREAM_MAX_BYTES);
    event_stream_take(&record.stream, ends, strlen(ends));
    assert_string_equal(record.text, "message|b;");
    event_stream_clear(&record.stream);
}

static void endless_data_in_many_lines_is_left_out(void **state)
{
    struct record record;

    (void)state;
    begin(&record);
    for (size_t i = 0; i < EVENT_STREAM_MAX_BYTES; i++)
        event_stream_take(&record.stream, "data: x\n", 8);
    event_stream_take(&record.stream, "\ndata: b\n\n", 10);
    assert_string_equal(record.text, "message|b;");
    event_stream_clear(&record.stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_come_out_in_every_split),
        cmocka_unit_test(several_data_lines_are_joined),
        cmocka_unit_test(event_without_data_is_none_but_its_id_counts),
        cmocka_unit_test(unknown_fields_are_ignored),
        cmocka_unit_test(half_an_event_counts_for_nothing),
        cmocka_unit_test(restart_forgets_the_half_and_keeps_the_last_id),
        cmocka_unit_test(endless_line_is_left_out),
        cmocka_unit_test(endless_data_in_many_lines_is_left_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
