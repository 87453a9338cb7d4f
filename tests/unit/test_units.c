/* Numbers, durations and sizes: what is taken, what is refused, and the way back. */
#include "base/units.h"

#include "unit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef int parse_fn(const char *text, uint64_t *value);

struct sample {
    const char *text;
    uint64_t value;
};

static void assert_takes(parse_fn *parse, const struct sample *samples, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t value = 12345;

        assert_int_equal(parse(samples[i].text, &value), 0);
        assert_true(value == samples[i].value);
    }
}

static void assert_refuses(parse_fn *parse, const char *const *texts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t value = 12345;

        if (parse(texts[i], &value) == 0)
            fail_msg("\"%s\" was taken as %" PRIu64, texts[i], value);
        assert_int_equal(value, 12345);
    }
}

static const char *const never_a_number[] = {
    "",
    " ",
    "-1",
    "+1",
    " 1",
    "1 ",
    "1x",
    "x1",
    "0x10",
    "1.5",
    "1,000",
    "1e3",
    "ten",
    "\t1",
    "1\n",
    "--1",
    "18446744073709551616",
    "99999999999999999999999999",
    "\xd9\xa1",
};

static void number_is_digits_only(void **state)
{
    static const struct sample good[] = {
        {"0", 0}, {"1", 1}, {"007", 7}, {"4096", 4096}, {"18446744073709551615", UINT64_MAX},
    };
    static const char *const bad[] = {"1K", "1s", "10ms"};

    (void)state;
    assert_takes(units_parse_number, good, COUNT(good));
    assert_refuses(units_parse_number, never_a_number, COUNT(never_a_number));
    assert_refuses(units_parse_number, bad, COUNT(bad));
}

static void duration_is_a_whole_number_with_its_unit(void **state)
{
    static const struct sample good[] = {
        {"0ms", 0},
        {"1ms", 1},
        {"250ms", 250},
        {"1s", 1000},
        {"10s", 10000},
        {"1m", 60000},
        {"1h", 3600000},
        {"1d", 86400000},
        {"0s", 0},
        {"90s", 90000},
        {"7d", 604800000},
        {"18446744073709551615ms", UINT64_MAX},
        {"213503982334d", UINT64_C(213503982334) * 86400000},
    };
    static const char *const bad[] = {
        "0",
        "10",
        "s",
        "ms",
        "10 s",
        "10S",
        "10M",
        "10sec",
        "10mss",
        "1h30m",
        "1.5s",
        "-1s",
        "10s ",
        "1w",
        "18446744073709551616ms",
        "18446744073709552s",
        "213503982335d",
    };

    (void)state;
    assert_takes(units_parse_duration, good, COUNT(good));
    assert_refuses(units_parse_duration, never_a_number, COUNT(never_a_number));
    assert_refuses(units_parse_duration, bad, COUNT(bad));
}

static void size_is_a_whole_number_alone_or_with_its_unit(void **state)
{
    static const struct sample good[] = {
        {"0", 0},
        {"512", 512},
        {"1K", 1024},
        {"64K", 65536},
        {"1M", 1048576},
        {"1G", 1073741824},
        {"17179869183G", UINT64_C(17179869183) << 30},
        {"18446744073709551615", UINT64_MAX},
    };
    static const char *const bad[] = {"K", "1k", "1KB", "1KiB", "1T", "1 K", "17179869184G"};

    (void)state;
    assert_takes(units_parse_size, good, COUNT(good));
    assert_refuses(units_parse_size, never_a_number, COUNT(never_a_number));
    assert_refuses(units_parse_size, bad, COUNT(bad));
}

static void duration_is_written_in_the_largest_exact_unit(void **state)
{
    static const struct sample samples[] = {
        {"0s", 0},
        {"1ms", 1},
        {"999ms", 999},
        {"1s", 1000},
        {"1500ms", 1500},
        {"59s", 59000},
        {"1m", 60000},
        {"90s", 90000},
        {"1h", 3600000},
        {"61m", 3660000},
        {"1d", 86400000},
        {"25h", 90000000},
        {"18446744073709551615ms", UINT64_MAX},
    };
    char text[UNITS_TEXT_BYTES];

    (void)state;
    for (size_t i = 0; i < COUNT(samples); i++) {
        assert_ptr_equal(units_format_duration(samples[i].value, text), text);
        assert_string_equal(text, samples[i].text);
    }
}

static void duration_that_was_written_is_read_back_the_same(void **state)
{
    uint64_t ms = 1;

    (void)state;
    for (int i = 0; i < 20000; i++) {
        char text[UNITS_TEXT_BYTES];
        uint64_t back = 0;

        assert_int_equal(units_parse_duration(units_format_duration(ms, text), &back), 0);
        assert_true(back == ms);
        ms = i % 3 == 0 ? ms * 6364136223846793005U + 1442695040888963407U : ms % 100000 * 1000;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(number_is_digits_only),
        cmocka_unit_test(duration_is_a_whole_number_with_its_unit),
        cmocka_unit_test(size_is_a_whole_number_alone_or_with_its_unit),
        cmocka_unit_test(duration_is_written_in_the_largest_exact_unit),
        cmocka_unit_test(duration_that_was_written_is_read_back_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
