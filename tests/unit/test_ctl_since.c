/* Ages, spans and times of day as cliserctl shows them. */
#include "since.h"

#include "unit.h"

#include <stdlib.h>
#include <time.h>

#define NOW INT64_C(1795431702) /* 2026-11-23 11:01:42 UTC */
#define DAY INT64_C(86400)

static int set_utc(void **state)
{
    (void)state;
    setenv("TZ", "UTC0", 1);
    tzset();
    return 0;
}

static void age_is_one_unit_or_a_date(void **state)
{
    static const struct {
        int64_t ago;
        const char *text;
    } samples[] = {
        {0, "now"},          {-5, "now"},       {1, "1s"},           {59, "59s"},
        {60, "1m"},          {3599, "59m"},     {3600, "1h"},        {DAY - 1, "23h"},
        {DAY, "1d"},         {99 * DAY, "99d"}, {100 * DAY, "100d"}, {100 * DAY + 1, "2026-08-15"},
        {NOW, "1970-01-01"},
    };
    char text[SINCE_BYTES];

    (void)state;
    for (size_t i = 0; i < COUNT(samples); i++)
        assert_string_equal(since_age(NOW - samples[i].ago, NOW, text), samples[i].text);
}

static void span_has_two_units_at_most(void **state)
{
    static const struct {
        uint64_t seconds;
        const char *text;
    } samples[] = {
        {0, "0s"},        {45, "45s"},
        {60, "1m"},       {190, "3m 10s"},
        {3600, "1h"},     {3659, "1h"},
        {3900, "1h 5m"},  {86400, "1d"},
        {90000, "1d 1h"}, {12 * 86400 + 3 * 3600 + 59, "12d 3h"},
    };
    char text[SINCE_BYTES];

    (void)state;
    for (size_t i = 0; i < COUNT(samples); i++)
        assert_string_equal(since_span(samples[i].seconds, text), samples[i].text);
}

static void clock_has_a_date_on_another_day_only(void **state)
{
    char text[SINCE_BYTES];

    (void)state;
    assert_string_equal(since_clock(NOW, NOW, text), "11:01:42");
    assert_string_equal(since_clock(NOW - DAY, NOW, text), "2026-11-22 11:01:42");
    assert_string_equal(since_clock(NOW - 365 * DAY, NOW, text), "2025-11-23 11:01:42");
    assert_string_equal(since_date(NOW, text), "2026-11-23 11:01:42");
}

/* A server may send anything; nothing may overflow, neither numbers nor buffers. */
static void moments_out_of_any_calendar_are_shown_somehow(void **state)
{
    static const int64_t moments[] = {INT64_MIN, INT64_MAX, INT64_C(1) << 53, -1};
    char text[SINCE_BYTES];

    (void)state;
    for (size_t i = 0; i < COUNT(moments); i++) {
        assert_true(since_age(moments[i], NOW, text)[0] != '\0');
        assert_true(since_clock(moments[i], NOW, text)[0] != '\0');
        assert_true(since_date(moments[i], text)[0] != '\0');
        since_span((uint64_t)moments[i], text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(age_is_one_unit_or_a_date),
        cmocka_unit_test(span_has_two_units_at_most),
        cmocka_unit_test(clock_has_a_date_on_another_day_only),
        cmocka_unit_test(moments_out_of_any_calendar_are_shown_somehow),
    };

    return cmocka_run_group_tests(tests, set_utc, NULL);
}
