/* The account of a load test: nobody is lost or counted twice, and failures are what they should
 * be; and the report that is made of it: it fits its page and is valid JSON, whatever happened. */
#include "tally.h"

#include "options.h"
#include "report.h"
#include "text.h"
#include "unit.h"

#include <jansson.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct tally *made(void)
{
    struct tally *tally = calloc(1, sizeof(*tally));

    assert_non_null(tally);
    return tally;
}

static void every_count_is_in_the_sum_once(void **state)
{
    struct tally *tally = made();
    uint64_t expected = 0;

    (void)state;
    for (int outcome = 0; outcome < TALLY_OUTCOME_COUNT; outcome++) {
        tally_count(tally, (enum tally_outcome)outcome, 0, (uint64_t)outcome + 1);
        tally_count(tally, (enum tally_outcome)outcome, 450, 10);
        expected += (uint64_t)outcome + 11;
        assert_int_equal(tally_outcome(tally, (enum tally_outcome)outcome), outcome + 11);
        assert_int_equal(tally_sum(tally), expected);
    }
    free(tally);
}

/* Written out a second time, by hand: which endings are the fault of nobody. */
static void failures_are_those_that_should_have_stayed(void **state)
{
    static const enum tally_outcome fine[] = {TALLY_UP, TALLY_SILENT_DROPPED, TALLY_INTERRUPTED,
                                              TALLY_NOT_STARTED};
    static const enum tally_outcome failed[] = {
        TALLY_CONNECT_FAILED, TALLY_TLS_FAILED, TALLY_REFUSED, TALLY_LOST_EARLY,
        TALLY_TIMED_OUT,      TALLY_DROPPED,    TALLY_LOST,    TALLY_VIOLATED};
    struct tally *tally = made();

    (void)state;
    assert_int_equal(COUNT(fine) + COUNT(failed), TALLY_OUTCOME_COUNT);
    for (size_t i = 0; i < COUNT(fine); i++)
        tally_count(tally, fine[i], 0, 1);
    assert_int_equal(tally_failures(tally), 0);
    for (size_t i = 0; i < COUNT(failed); i++) {
        tally_count(tally, failed[i], 0, 1);
        assert_int_equal(tally_failures(tally), i + 1);
    }
    free(tally);
}

static void details_out_of_range_are_not_lost(void **state)
{
    struct tally *tally = made();

    (void)state;
    tally_count(tally, TALLY_LOST, -5, 1);
    tally_count(tally, TALLY_LOST, 1 << 20, 1);
    tally_count(tally, TALLY_LOST, TALLY_DETAILS, 1);
    assert_int_equal(tally_outcome(tally, TALLY_LOST), 3);
    assert_int_equal(tally_sum(tally), 3);
    free(tally);
}

static void rows_list_outcome_and_detail_apart(void **state)
{
    struct tally *tally = made();
    struct tally_row rows[8];

    (void)state;
    tally_count(tally, TALLY_REFUSED, 451, 2);
    tally_count(tally, TALLY_UP, 0, 7);
    tally_count(tally, TALLY_REFUSED, 450, 3);
    tally_count(tally, TALLY_DROPPED, 450, 4);
    assert_int_equal(tally_rows(tally, rows, COUNT(rows)), 4);
    assert_int_equal(rows[0].outcome, TALLY_UP);
    assert_int_equal(rows[1].outcome, TALLY_REFUSED);
    assert_int_equal(rows[1].detail, 450);
    assert_int_equal(rows[1].clients, 3);
    assert_int_equal(rows[2].detail, 451);
    assert_int_equal(rows[3].outcome, TALLY_DROPPED);
    assert_int_equal(rows[3].clients, 4);

    /* Told how many there are, also when they do not fit. */
    memset(rows, 0, sizeof(rows));
    assert_int_equal(tally_rows(tally, rows, 1), 4);
    assert_int_equal(rows[1].clients, 0);
    free(tally);
}

static void merge_adds_everything(void **state)
{
    struct tally *left = made();
    struct tally *right = made();

    (void)state;
    tally_count(left, TALLY_UP, 0, 5);
    tally_count(right, TALLY_UP, 0, 6);
    tally_count(right, TALLY_LOST, ECONNRESET, 1);
    histogram_record(&left->phases[TALLY_LOGIN], 10);
    histogram_record(&right->phases[TALLY_LOGIN], 30);
    histogram_record(&right->phases[TALLY_HANDSHAKE], 50);
    histogram_record(&right->keepalive_gap, 70);
    right->keepalives = 3;
    right->keepalives_answered = 2;
    right->shutdowns = 1;
    right->bytes.in = 100;
    right->bytes.out = 50;
    tally_merge(left, right);

    assert_int_equal(tally_outcome(left, TALLY_UP), 11);
    assert_int_equal(tally_sum(left), 12);
    assert_int_equal(tally_failures(left), 1);
    assert_int_equal(tally_welcomed(left), 1);
    assert_int_equal(histogram_count(&left->phases[TALLY_LOGIN]), 2);
    assert_int_equal(histogram_max(&left->phases[TALLY_LOGIN]), 30);
    assert_int_equal(histogram_max(&left->keepalive_gap), 70);
    assert_int_equal(left->keepalives, 3);
    assert_int_equal(left->keepalives_answered, 2);
    assert_int_equal(left->shutdowns, 1);
    assert_int_equal(left->bytes.in, 100);
    assert_int_equal(left->bytes.out, 50);
    free(left);
    free(right);
}

/* A run in which everything that can happen has happened, with numbers as wide as they get. */
struct worst {
    struct stress_options options;
    struct fleet_progress progress;
    struct tally *tally;
    struct report report;
};

static void make_worst(struct worst *worst)
{
    const uint64_t huge = 999999999;

    worst->tally = made();
    for (int outcome = 0; outcome < TALLY_OUTCOME_COUNT; outcome++) {
        for (int detail = 0; detail < TALLY_DETAILS; detail += 7)
            tally_count(worst->tally, (enum tally_outcome)outcome, detail, huge);
    }
    for (int phase = 0; phase < TALLY_PHASE_COUNT; phase++)
        histogram_record(&worst->tally->phases[phase], huge * 1000);
    histogram_record(&worst->tally->keepalive_gap, huge * 1000);
    worst->tally->keepalives = worst->tally->keepalives_answered = huge * 100;
    worst->tally->shutdowns = huge;
    worst->tally->bytes.in = worst->tally->bytes.out = huge * 1000;

    worst->options = (struct stress_options){
        .server = "",
        .clients = huge,
        .rate = 10000000,
        .inflight = huge,
        .hold_ms = 86400000,
        .timeout_ms = 1,
        .silent = 12345,
        .id_prefix = "p",
        .tls = true,
        .insecure = true,
    };
    worst->progress = (struct fleet_progress){
        .interrupted = true,
        .elapsed_us = huge * 1000,
        .connecting_us = huge * 1000,
        .held_us = huge * 1000,
        .welcoming_us = 1000000,
        .welcomed = huge,
        .up_most = huge,
        .tls_version = "TLSv1.3",
    };
    worst->report = (struct report){
        .options = &worst->options,
        .server = "[1234:1234:1234:1234:1234:1234:1234:1234]:65535",
        .sources = "127.100.100.100-127.200.200.200",
        .progress = &worst->progress,
        .tally = worst->tally,
        .usage = {.pid = 4194304,
                  .held = true,
                  .before = {.cpu_us = 1, .rss_bytes = huge},
                  .while_held = {.cpu_us = huge * 500, .rss_bytes = huge * 1000},
                  .after = {.cpu_us = huge * 1000, .rss_bytes = huge * 1000}},
        .own_cpu_us = huge * 1000,
        .own_rss_bytes = huge * 1000,
    };
}

static void table_fits_its_page_whatever_happened(void **state)
{
    struct worst worst;
    char *text = NULL;
    size_t size = 0;
    size_t lines = 0;

    (void)state;
    make_worst(&worst);
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    report_print(&worst.report, out, false);
    fclose(out);

    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        if (strlen(line) > 80)
            fail_msg("%zu columns: %s", strlen(line), line);
    }
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n' || text[i] == '\0';
    assert_true(lines < 40);
    free(text);
    free(worst.tally);
}

static void json_is_valid_and_adds_up_whatever_happened(void **state)
{
    struct worst worst;
    char *text = NULL;
    size_t size = 0;
    const char *name = NULL;
    json_t *value = NULL;
    json_int_t sum = 0;

    (void)state;
    make_worst(&worst);
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    assert_int_equal(report_write_json(&worst.report, out), 0);
    fclose(out);

    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    assert_int_equal(json_integer_value(json_object_get(root, "schema")), REPORT_SCHEMA);
    json_t *clients = json_object_get(root, "clients");
    json_object_foreach(clients, name, value)
    {
        const char *detail = NULL;
        json_t *part = NULL;

        if (strcmp(name, "attempted") == 0 || strcmp(name, "failed") == 0)
            continue;
        if (json_is_integer(value))
            sum += json_integer_value(value);
        json_object_foreach(value, detail, part) sum += json_integer_value(part);
    }
    assert_int_equal(sum, tally_sum(worst.tally));
    assert_int_equal(json_integer_value(json_object_get(clients, "attempted")), sum);
    json_decref(root);
    free(text);
    free(worst.tally);
}

static void numbers_read_well(void **state)
{
    char n[TEXT_BYTES];

    (void)state;
    assert_string_equal(text_count(0, n), "0");
    assert_string_equal(text_count(999, n), "999");
    assert_string_equal(text_count(1000, n), "1,000");
    assert_string_equal(text_count(1234567, n), "1,234,567");
    assert_string_equal(text_ms(0, n), "0.000");
    assert_string_equal(text_ms(412, n), "0.412");
    assert_string_equal(text_ms(1250, n), "1.25");
    assert_string_equal(text_ms(12340, n), "12.3");
    assert_string_equal(text_ms(999400, n), "999");
    assert_string_equal(text_ms(999900, n), "1,000");
    assert_string_equal(text_ms(1234000, n), "1,234");
    assert_string_equal(text_ms(1234000000, n), "1234s");
    assert_string_equal(text_ms(UINT64_C(432000000000), n), "5d");
    assert_string_equal(text_time(412, n), "412us");
    assert_string_equal(text_time(12300, n), "12.3ms");
    assert_string_equal(text_time(9870000, n), "9.87s");
    assert_string_equal(text_time(63000000, n), "63.0s");
    assert_string_equal(text_bytes(512, n), "512 B");
    assert_string_equal(text_bytes(1382, n), "1.35 KiB");
    assert_string_equal(text_bytes(UINT64_C(29674700), n), "28.3 MiB");
    assert_string_equal(text_share(12500, n), "12.5%");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_count_is_in_the_sum_once),
        cmocka_unit_test(failures_are_those_that_should_have_stayed),
        cmocka_unit_test(details_out_of_range_are_not_lost),
        cmocka_unit_test(rows_list_outcome_and_detail_apart),
        cmocka_unit_test(merge_adds_everything),
        cmocka_unit_test(table_fits_its_page_whatever_happened),
        cmocka_unit_test(json_is_valid_and_adds_up_whatever_happened),
        cmocka_unit_test(numbers_read_well),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
