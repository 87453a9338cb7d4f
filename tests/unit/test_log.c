/*
 * The log: what a line looks like, how bytes are escaped, and that no reader, however slow, dead or
 * restarted, makes a log call wait or lose a line without saying so.
 */
#include "base/log.h"

#include "unit.h"

#include <jansson.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define TIME_BYTES    24 /* 2026-01-31T12:00:00.000Z */
#define STUCK_SECONDS 20 /* a log call that takes so long waits for somebody */

/* stderr is a pipe that this test reads. */
struct fixture {
    int real_stderr;
    int reader;
    char dir[64];
    char syslog_path[80];
    char text[1 << 20]; /* what was read last */
};

static void capture(struct fixture *fixture)
{
    int ends[2];

    assert_int_equal(pipe(ends), 0);
    assert_true(fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
    assert_true(dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
    close(ends[1]);
    fixture->reader = ends[0];
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));

    if (!fixture)
        return -1;
    *state = fixture;
    strcpy(fixture->dir, "/tmp/cliser-log-XXXXXX");
    if (!mkdtemp(fixture->dir))
        return -1;
    snprintf(fixture->syslog_path, sizeof(fixture->syslog_path), "%s/log", fixture->dir);
    fixture->real_stderr = dup(STDERR_FILENO);
    capture(fixture);
    signal(SIGPIPE, SIG_IGN); /* as every program that logs does */
    alarm(STUCK_SECONDS);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    alarm(0);
    /* Losses are counted for the whole process: report what this test left behind. */
    log_close();
    close(fixture->reader);
    dup2(fixture->real_stderr, STDERR_FILENO);
    close(fixture->real_stderr);
    const int null = open("/dev/null", O_WRONLY);
    const int kept = dup(STDERR_FILENO);
    dup2(null, STDERR_FILENO);
    (void)log_report_lost();
    dup2(kept, STDERR_FILENO);
    close(kept);
    close(null);
    unlink(fixture->syslog_path);
    rmdir(fixture->dir);
    free(fixture);
    return 0;
}

static void open_log(int level, int target, int format, const char *syslog_path)
{
    const struct log_options options = {
        .program = "tester",
        .level = level,
        .target = target,
        .format = format,
        .syslog_path = syslog_path,
    };

    (void)log_open(&options);
}

/* Everything that is in the pipe now, as text. */
static const char *read_all(struct fixture *fixture)
{
    size_t len = 0;
    ssize_t got;

    while ((got = read(fixture->reader, fixture->text + len, sizeof(fixture->text) - 1 - len)) > 0)
        len += (size_t)got;
    fixture->text[len] = '\0';
    return fixture->text;
}

static void assert_time(const char *text)
{
    static const char shape[] = "dddd-dd-ddTdd:dd:dd.dddZ";

    assert_int_equal(sizeof(shape) - 1, TIME_BYTES);
    for (size_t i = 0; i < TIME_BYTES; i++) {
        if (shape[i] == 'd')
            assert_in_range(text[i], '0', '9');
        else
            assert_int_equal(text[i], shape[i]);
    }
}

/* The pipe holds exactly this one line, after the time. */
static void assert_line(struct fixture *fixture, const char *expected)
{
    const char *text = read_all(fixture);
    const size_t len = strlen(expected);

    assert_true(strlen(text) > TIME_BYTES);
    assert_time(text);
    assert_int_equal(text[TIME_BYTES], ' ');
    if (strlen(text) != TIME_BYTES + 1 + len + 1 || text[TIME_BYTES + 1 + len] != '\n')
        assert_string_equal(text + TIME_BYTES + 1, expected);
    assert_memory_equal(text + TIME_BYTES + 1, expected, len);
}

/* The pipe holds one line of JSON: the object is the caller's. */
static json_t *read_json(struct fixture *fixture)
{
    const char *text = read_all(fixture);
    const size_t len = strlen(text);
    json_error_t error;

    assert_true(len > 0);
    assert_ptr_equal(strchr(text, '\n'), text + len - 1);
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!object)
        fail_msg("%s: %s", error.text, text);
    return object;
}

static size_t count_lines(const char *text)
{
    size_t lines = 0;

    for (; *text; text++)
        lines += *text == '\n';
    return lines;
}

/* How many lines the log_lost events in the text speak of. */
static size_t count_lost(const char *text)
{
    size_t lost = 0;

    while ((text = strstr(text, " warn log_lost lines="))) {
        text += strlen(" warn log_lost lines=");
        lost += strtoul(text, NULL, 10);
    }
    return lost;
}

/* Every line is whole: begins with a time, ends with the text of "filler". */
static void assert_no_torn_lines(const char *text)
{
    while (*text) {
        const size_t len = strcspn(text, "\n");

        assert_true(len > TIME_BYTES);
        assert_time(text);
        assert_int_equal(text[len], '\n');
        if (!strstr(text, " warn log_lost") || strstr(text, " warn log_lost") > text + len)
            assert_memory_equal(text + len - 4, "tail", 4);
        text += len + 1;
    }
}

static void fill(int lines)
{
    for (int i = 0; i < lines; i++)
        log_event(LOG_LEVEL_INFO, "filler", LOG_NUM("n", i), LOG_STR("end", "tail"));
}

static void text_line_has_time_level_event_and_fields(void **state)
{
    open_log(LOG_LEVEL_INFO, LOG_TARGET_STDERR, LOG_FORMAT_TEXT, NULL);
    log_event(LOG_LEVEL_INFO, "connected", LOG_NUM("serial", 1), LOG_STR("cid", "web-1"),
              LOG_BYTES("cip", "127.0.0.1, and more", 9), LOG_REAL("rtt_ms", 1.25));
    assert_line(*state, "info connected serial=1 cid=web-1 cip=127.0.0.1 rtt_ms=1.250");
    log_event(LOG_LEVEL_ERROR, "stopped", LOG_NOTHING);
    assert_line(*state, "error stopped");
    log_event(LOG_LEVEL_WARN, "numbers", LOG_NUM("low", INT64_MIN), LOG_NUM("high", INT64_MAX));
    assert_line(*state, "warn numbers low=-9223372036854775808 high=9223372036854775807");
    log_event(LOG_LEVEL_INFO, "empty", LOG_STR("a", ""), LOG_BYTES("b", NULL, 0),
              LOG_STR("c", NULL));
    assert_line(*state, "info empty a=\"\" b=\"\" c=\"\"");
}

static void text_escapes_each_of_256_bytes(void **state)
{
    open_log(LOG_LEVEL_INFO, LOG_TARGET_STDERR, LOG_FORMAT_TEXT, NULL);
    for (int byte = 0; byte < 256; byte++) {
        const char value[3] = {'a', (char)byte, 'z'};
        char expected[64];

        if (byte < 32 || byte > 126)
            snprintf(expected, sizeof(expected), "info event key=\"a\\x%02xz\"", (unsigned)byte);
        else if (byte == '"' || byte == '\\')
            snprintf(expected, sizeof(expected), "info event key=\"a\\%cz\"", byte);
        else if (byte == ' ' || byte == '=')
            snprintf(expected, sizeof(expected), "info event key=\"a%cz\"", byte);
        else
            snprintf(expected, sizeof(expected), "info event key=a%cz", byte);
        log_event(LOG_LEVEL_INFO, "event", LOG_BYTES("key", value, 3));
        assert_line(*state, expected);
    }
}

static void json_line_has_the_same_as_an_object(void **state)
{
    static const char start[] = "{\"time\":\"";

    open_log(LOG_LEVEL_INFO, LOG_TARGET_STDERR, LOG_FORMAT_JSON, NULL);
    log_event(LOG_LEVEL_WARN, "connected", LOG_NUM("serial", INT64_MAX), LOG_STR("cid", "web-1"),
              LOG_REAL("rtt_ms", 1.25));
    json_t *object = read_json(*state);
    assert_memory_equal(((struct fixture *)*state)->text, start, sizeof(start) - 1);
    assert_int_equal(json_object_size(object), 6);
    assert_time(json_string_value(json_object_get(object, "time")));
    assert_string_equal(json_string_value(json_object_get(object, "level")), "warn");
    assert_string_equal(json_string_value(json_object_get(object, "event")), "connected");
    assert_true(json_integer_value(json_object_get(object, "serial")) == INT64_MAX);
    assert_string_equal(json_string_value(json_object_get(object, "cid")), "web-1");
    assert_true(json_real_value(json_object_get(object, "rtt_ms")) == 1.25);
    json_decref(object);
}

/* Pure ASCII goes out, and what a byte was can be told from it. */
static void json_escapes_each_of_256_bytes(void **state)
{
    open_log(LOG_LEVEL_INFO, LOG_TARGET_STDERR, LOG_FORMAT_JSON, NULL);
    for (int byte = 0; byte < 256; byte++) {
        const char value[3] = {'a', (char)byte, 'z'};
        char expected[64];

        if (byte < 32 || byte > 126)
            snprintf(expected, sizeof(expected), "a\\x%02xz", (unsigned)byte);
        else if (byte == '\\')
            snprintf(expected, sizeof(expected), "a\\\\z");
        else
            snprintf(expected, sizeof(expected), "a%cz", byte);
        log_event(LOG_LEVEL_INFO, "event", LOG_BYTES("key", value, 3));
        json_t *object = read_json(*state);
        assert_string_equal(json_string_value(json_object_get(object, "key")), expected);
        for (const char *c = ((struct fixture *)*state)->text; c[1]; c++)
            assert_in_range(*c, 32, 126);
        json_decref(object);
    }
}

static void level_decides_which_events_are_written(void **state)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};

    for (int wanted = LOG_LEVEL_ERROR; wanted <= LOG_LEVEL_DEBUG; wanted++) {
        open_log(wanted, LOG_TARGET_STDERR, LOG_FORMAT_TEXT, NULL);
        for (int level = LOG_LEVEL_ERROR; level <= LOG_LEVEL_DEBUG; level++) {
            int evaluated = 0;
            char expected[64];

            assert_int_equal(log_enabled((enum log_level)level), level <= wanted);
            log_event((enum log_level)level, "event", LOG_NUM("n", ++evaluated));
            assert_int_equal(evaluated, level <= wanted);
            snprintf(expected, sizeof(expected), "%s event n=1", names[level]);
            if (level <= wanted)
                assert_line(*state, expected);
            else
                assert_string_equal(read_all(*state), "");
        }
    }
}

static void closed_log_is_text_of_level_info_on_stderr(void **state)
{
    open_log(LOG_LEVEL_DEBUG, LOG_TARGET_SYSLOG, LOG_FORMAT_JSON, "/nonexistent/log");
    log_close();
    assert_true(log_enabled(LOG_LEVEL_INFO));
    assert_false(log_enabled(LOG_LEVEL_DEBUG));
    log_event(LOG_LEVEL_INFO, "event", LOG_NUM("n", 1));
    assert_line(*state, "info event n=1");
}

static void limit_lets_five_at_once_and_two_a_second_through_and_counts_the_rest(void **state)
{
    struct log_limit limit = {0};
    const uint64_t second = 1000000;
    uint64_t written = 0;

    (void)state;
    open_log(LOG_LEVEL_INFO, LOG_TARGET_STDERR, LOG_FORMAT_TEXT, NULL);
    for (uint64_t i = 0; i < 1000; i++)
        assert_int_equal(log_limit_allows(&limit, 100 * second), i < 5);
    assert_int_equal(limit.suppressed, 995);

    for (uint64_t now = 100 * second + 1000; now <= 110 * second; now += 1000)
        written += log_limit_allows(&limit, now);
    assert_int_equal(written, 20);
    assert_int_equal(limit.suppressed, 995 + 10000 - 20);

    /* Half of the burst is there again after half of its time, all of it after all. */
    for (int i = 0; i < 10; i++)
        assert_int_equal(log_limit_allows(&limit, 111 * second), i < 2);
    for (int i = 0; i < 10; i++)
        assert_int_equal(log_limit_allows(&limit, 200 * second), i < 5);
}

static void limit_lets_everything_through_when_debugging(void **state)
{
    struct log_limit limit = {0};

    (void)state;
    open_log(LOG_LEVEL_DEBUG, LOG_TARGET_STDERR, LOG_FORMAT_TEXT, NULL);
    for (int i = 0; i < 1000; i++)
        assert_true(log_limit_allows(&limit, 1));
    assert_int_equal(limit.suppressed, 0);

    /* What was written then does not count against what comes afterwards. */
    open_log(LOG_LEVEL_INFO, LOG_TARGET_STDERR, LOG_FORMAT_TEXT, NULL);
    assert_true(log_limit_allows(&limit, 1));
}

static void limit_works_in_the_first_second_of_the_clock(void **state)
{
    struct log_limit limit = {0};

    (void)state;
    open_log(LOG_LEVEL_INFO, LOG_TARGET_STDERR, LOG_FORMAT_TEXT, NULL);
    for (int i = 0; i < 10; i++)
        assert_int_equal(log_limit_allows(&limit, 0), i < 5);
}

/* A line must fit what a pipe takes whole (4096 bytes), however much a client sends. */
static void long_fields_are_cut_and_the_line_stays_one(void **state)
{
    static char big[10000];
    struct log_field fields[40];
    struct fixture *fixture = *state;

    for (int byte = 0; byte < 256; byte += 51) {
        memset(big, byte, sizeof(big));
        for (size_t i = 0; i < COUNT(fields); i++)
            fields[i] = (struct log_field)LOG_BYTES("key", big, sizeof(big));
        for (size_t count = 1; count < COUNT(fields); count++) {
            fields[count] = (struct log_field){.type = LOG_FIELD_END};
            open_log(LOG_LEVEL_INFO, LOG_TARGET_STDERR, LOG_FORMAT_TEXT, NULL);
            log_write(LOG_LEVEL_INFO, "event", fields);
            const char *text = read_all(fixture);
            assert_true(strlen(text) <= 4096);
            assert_int_equal(count_lines(text), 1);
            assert_int_equal(text[strlen(text) - 1], '\n');
            fields[count] = (struct log_field)LOG_BYTES("key", big, sizeof(big));
        }
    }
}

static void json_with_too_much_in_it_is_still_one_object(void **state)
{
    static char big[10000];
    static const char *const keys[] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"};
    struct log_field fields[COUNT(keys) + 1];

    open_log(LOG_LEVEL_INFO, LOG_TARGET_STDERR, LOG_FORMAT_JSON, NULL);
    memset(big, '"', sizeof(big));
    for (size_t count = 1; count <= COUNT(keys); count++) {
        for (size_t i = 0; i < count; i++)
            fields[i] = (struct log_field)LOG_BYTES(keys[i], big, sizeof(big));
        fields[count] = (struct log_field){.type = LOG_FIELD_END};
        log_write(LOG_LEVEL_INFO, "event", fields);
        json_t *object = read_json(*state);
        assert_string_equal(json_string_value(json_object_get(object, "event")), "event");
        assert_true(strlen(((struct fixture *)*state)->text) <= 4096);
        json_decref(object);
    }
}

static void full_pipe_loses_lines_and_says_later_how_many(void **state)
{
    struct fixture *fixture = *state;

    open_log(LOG_LEVEL_INFO, LOG_TARGET_STDERR, LOG_FORMAT_TEXT, NULL);
    const uint64_t lost_before = log_report_lost();
    read_all(fixture);
    fill(100000);
    const uint64_t lost = log_report_lost() - lost_before;
    const char *text = read_all(fixture);
    assert_no_torn_lines(text);
    assert_int_equal(count_lost(text), 0);
    assert_true(lost > 0);
    assert_int_equal(count_lines(text) + lost, 100000);

    log_event(LOG_LEVEL_INFO, "filler", LOG_STR("end", "tail"));
    text = read_all(fixture);
    assert_no_torn_lines(text);
    assert_int_equal(count_lines(text), 2);
    assert_int_equal(count_lost(text), lost);

    /* Said once. */
    assert_int_equal(log_report_lost() - lost_before, lost);
    fill(1);
    assert_int_equal(count_lost(read_all(fixture)), 0);
}

static void loss_at_the_end_of_a_burst_is_reported_without_another_event(void **state)
{
    struct fixture *fixture = *state;

    open_log(LOG_LEVEL_ERROR, LOG_TARGET_STDERR, LOG_FORMAT_TEXT, NULL);
    for (int i = 0; i < 10000; i++)
        log_event(LOG_LEVEL_ERROR, "filler", LOG_STR("end", "tail"));
    const size_t arrived = count_lines(read_all(fixture));
    log_report_lost();
    assert_int_equal(count_lost(read_all(fixture)), 10000 - arrived);
    log_report_lost();
    assert_string_equal(read_all(fixture), "");
}

/* The other end of the pipe belongs to others as well: their flags are not ours to change. */
static void pipe_keeps_blocking_for_everyone_else(void **state)
{
    (void)state;
    open_log(LOG_LEVEL_INFO, LOG_TARGET_STDERR, LOG_FORMAT_TEXT, NULL);
    fill(10000);
    assert_int_equal(fcntl(STDERR_FILENO, F_GETFL) & O_NONBLOCK, 0);
}

static void pipe_without_a_reader_loses_lines_and_nothing_else(void **state)
{
    struct fixture *fixture = *state;

    open_log(LOG_LEVEL_INFO, LOG_TARGET_STDERR, LOG_FORMAT_TEXT, NULL);
    const uint64_t lost_before = log_report_lost();
    close(fixture->reader);
    fixture->reader = -1;
    fill(10);
    assert_int_equal(log_lines_lost() - lost_before, 10);
    assert_int_equal(log_report_lost() - lost_before, 10);
}

/* After dropping privileges nobody can open root's pipe anew; even so nothing may wait. */
static void full_pipe_of_somebody_else_never_blocks(void **state)
{
    struct fixture *fixture = *state;
    int status = 0;

    if (geteuid() != 0)
        skip();
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(STUCK_SECONDS);
        if (setuid(65534) != 0)
            _exit(2);
        open_log(LOG_LEVEL_INFO, LOG_TARGET_STDERR, LOG_FORMAT_TEXT, NULL);
        fill(10000);
        _exit(log_report_lost() > 0 ? 0 : 3);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_no_torn_lines(read_all(fixture));
}

static void socket_that_nobody_reads_never_blocks(void **state)
{
    struct fixture *fixture = *state;
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_true(dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
    close(ends[1]);
    close(fixture->reader);
    fixture->reader = ends[0];
    open_log(LOG_LEVEL_INFO, LOG_TARGET_STDERR, LOG_FORMAT_TEXT, NULL);
    const uint64_t lost_before = log_report_lost();
    fill(100000);
    const uint64_t lost = log_report_lost() - lost_before;
    assert_true(lost > 0);
    assert_int_equal(fcntl(fixture->reader, F_SETFL, O_NONBLOCK), 0);
    const char *text = read_all(fixture);
    assert_no_torn_lines(text);
    assert_int_equal(count_lines(text) + lost, 100000);
}

static void file_takes_every_line(void **state)
{
    struct fixture *fixture = *state;
    const int file = open(fixture->dir, O_TMPFILE | O_RDWR, 0600);

    assert_true(file >= 0);
    assert_true(dup2(file, STDERR_FILENO) == STDERR_FILENO);
    open_log(LOG_LEVEL_INFO, LOG_TARGET_STDERR, LOG_FORMAT_TEXT, NULL);
    const uint64_t lost_before = log_report_lost();
    fill(5000);
    assert_int_equal(log_report_lost(), lost_before);

    const ssize_t len = pread(file, fixture->text, sizeof(fixture->text) - 1, 0);
    assert_true(len > 0);
    fixture->text[len] = '\0';
    assert_no_torn_lines(fixture->text);
    assert_int_equal(count_lines(fixture->text), 5000);
    close(file);
}

/* A syslogd of our own: binds the path anew. */
static int start_syslogd(const struct fixture *fixture)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    strcpy(address.sun_path, fixture->syslog_path);
    unlink(fixture->syslog_path);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* The next datagram, or "" when none waits. */
static const char *receive(struct fixture *fixture, int fd)
{
    const ssize_t len = recv(fd, fixture->text, sizeof(fixture->text) - 1, 0);

    fixture->text[len > 0 ? len : 0] = '\0';
    return fixture->text;
}

static void assert_syslog(struct fixture *fixture, int fd, int priority, const char *text)
{
    char expected[512];

    snprintf(expected, sizeof(expected), "<%d>tester[%d]: %s", priority, (int)getpid(), text);
    assert_string_equal(receive(fixture, fd), expected);
}

static void syslog_line_has_priority_program_and_process(void **state)
{
    struct fixture *fixture = *state;
    const int syslogd = start_syslogd(fixture);

    open_log(LOG_LEVEL_DEBUG, LOG_TARGET_SYSLOG, LOG_FORMAT_TEXT, fixture->syslog_path);
    log_event(LOG_LEVEL_ERROR, "event", LOG_NUM("n", 1));
    assert_syslog(fixture, syslogd, 27, "error event n=1");
    log_event(LOG_LEVEL_WARN, "event", LOG_NUM("n", 2));
    assert_syslog(fixture, syslogd, 28, "warn event n=2");
    log_event(LOG_LEVEL_INFO, "event", LOG_STR("cid", "a b"));
    assert_syslog(fixture, syslogd, 30, "info event cid=\"a b\"");
    log_event(LOG_LEVEL_DEBUG, "event", LOG_NOTHING);
    assert_syslog(fixture, syslogd, 31, "debug event");
    assert_string_equal(read_all(fixture), "");
    close(syslogd);
}

static void syslog_takes_json_too(void **state)
{
    struct fixture *fixture = *state;
    const int syslogd = start_syslogd(fixture);

    open_log(LOG_LEVEL_INFO, LOG_TARGET_SYSLOG, LOG_FORMAT_JSON, fixture->syslog_path);
    log_event(LOG_LEVEL_INFO, "event", LOG_NUM("n", 1));
    const char *text = strstr(receive(fixture, syslogd), "]: {");
    assert_non_null(text);
    json_t *object = json_loads(text + 3, 0, NULL);
    assert_non_null(object);
    json_decref(object);
    close(syslogd);
}

static void restarted_syslogd_gets_the_next_line_and_the_loss(void **state)
{
    struct fixture *fixture = *state;
    int syslogd = start_syslogd(fixture);

    open_log(LOG_LEVEL_INFO, LOG_TARGET_SYSLOG, LOG_FORMAT_TEXT, fixture->syslog_path);
    for (int restart = 0; restart < 3; restart++) {
        log_event(LOG_LEVEL_INFO, "before", LOG_NOTHING);
        assert_syslog(fixture, syslogd, 30, "info before");
        close(syslogd);
        log_event(LOG_LEVEL_INFO, "during", LOG_NUM("n", 1));
        log_event(LOG_LEVEL_INFO, "during", LOG_NUM("n", 2));
        syslogd = start_syslogd(fixture);
        log_event(LOG_LEVEL_INFO, "after", LOG_NOTHING);
        assert_syslog(fixture, syslogd, 28, "warn log_lost lines=2");
        assert_syslog(fixture, syslogd, 30, "info after");
        assert_string_equal(receive(fixture, syslogd), "");
    }
    /* Restarted between two lines: nothing is lost at all. */
    close(syslogd);
    syslogd = start_syslogd(fixture);
    log_event(LOG_LEVEL_INFO, "after", LOG_NOTHING);
    assert_syslog(fixture, syslogd, 30, "info after");
    close(syslogd);
}

static void syslogd_that_comes_late_gets_the_loss(void **state)
{
    struct fixture *fixture = *state;
    const struct log_options options = {
        .program = "tester",
        .level = LOG_LEVEL_INFO,
        .target = LOG_TARGET_SYSLOG,
        .syslog_path = fixture->syslog_path,
    };

    errno = 0;
    assert_int_equal(log_open(&options), -1);
    assert_int_equal(errno, ENOENT);
    for (int i = 0; i < 7; i++)
        log_event(LOG_LEVEL_INFO, "lost", LOG_NOTHING);
    const int syslogd = start_syslogd(fixture);
    log_event(LOG_LEVEL_INFO, "event", LOG_NOTHING);
    assert_syslog(fixture, syslogd, 28, "warn log_lost lines=7");
    assert_syslog(fixture, syslogd, 30, "info event");
    close(syslogd);
}

static void syslogd_that_does_not_read_never_blocks(void **state)
{
    struct fixture *fixture = *state;
    const int syslogd = start_syslogd(fixture);
    size_t arrived = 0;

    open_log(LOG_LEVEL_INFO, LOG_TARGET_SYSLOG, LOG_FORMAT_TEXT, fixture->syslog_path);
    const uint64_t lost_before = log_report_lost();
    fill(10000);
    const uint64_t lost = log_report_lost() - lost_before;
    assert_true(lost > 0);
    while (receive(fixture, syslogd)[0] != '\0')
        arrived++;
    assert_int_equal(arrived + lost, 10000);
    fill(1);
    assert_int_equal(count_lost(receive(fixture, syslogd)), lost);
    close(syslogd);
}

static void syslog_path_that_is_too_long_is_an_error(void **state)
{
    char path[300];
    const struct log_options options = {
        .program = "tester", .target = LOG_TARGET_SYSLOG, .syslog_path = path};

    (void)state;
    memset(path, 'x', sizeof(path));
    path[sizeof(path) - 1] = '\0';
    errno = 0;
    assert_int_equal(log_open(&options), -1);
    assert_int_equal(errno, ENAMETOOLONG);
}

static int lowest_free_fd(void)
{
    const int fd = dup(STDOUT_FILENO);

    close(fd);
    return fd;
}

static void switching_targets_loses_nothing_and_leaks_nothing(void **state)
{
    struct fixture *fixture = *state;
    const int syslogd = start_syslogd(fixture);

    open_log(LOG_LEVEL_INFO, LOG_TARGET_STDERR, LOG_FORMAT_TEXT, NULL);
    open_log(LOG_LEVEL_INFO, LOG_TARGET_SYSLOG, LOG_FORMAT_TEXT, fixture->syslog_path);
    log_close();
    const int free_fd = lowest_free_fd();
    for (int i = 0; i < 100; i++) {
        open_log(LOG_LEVEL_INFO, LOG_TARGET_STDERR, LOG_FORMAT_TEXT, NULL);
        log_event(LOG_LEVEL_INFO, "here", LOG_NOTHING);
        assert_line(fixture, "info here");
        open_log(LOG_LEVEL_INFO, LOG_TARGET_SYSLOG, LOG_FORMAT_TEXT, fixture->syslog_path);
        log_event(LOG_LEVEL_INFO, "there", LOG_NOTHING);
        assert_syslog(fixture, syslogd, 30, "info there");
    }
    log_close();
    assert_int_equal(lowest_free_fd(), free_fd);
    close(syslogd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(text_line_has_time_level_event_and_fields),
        TEST(text_escapes_each_of_256_bytes),
        TEST(json_line_has_the_same_as_an_object),
        TEST(json_escapes_each_of_256_bytes),
        TEST(level_decides_which_events_are_written),
        TEST(closed_log_is_text_of_level_info_on_stderr),
        TEST(limit_lets_five_at_once_and_two_a_second_through_and_counts_the_rest),
        TEST(limit_lets_everything_through_when_debugging),
        TEST(limit_works_in_the_first_second_of_the_clock),
        TEST(long_fields_are_cut_and_the_line_stays_one),
        TEST(json_with_too_much_in_it_is_still_one_object),
        TEST(full_pipe_loses_lines_and_says_later_how_many),
        TEST(loss_at_the_end_of_a_burst_is_reported_without_another_event),
        TEST(pipe_keeps_blocking_for_everyone_else),
        TEST(pipe_without_a_reader_loses_lines_and_nothing_else),
        TEST(full_pipe_of_somebody_else_never_blocks),
        TEST(socket_that_nobody_reads_never_blocks),
        TEST(file_takes_every_line),
        TEST(syslog_line_has_priority_program_and_process),
        TEST(syslog_takes_json_too),
        TEST(restarted_syslogd_gets_the_next_line_and_the_loss),
        TEST(syslogd_that_comes_late_gets_the_loss),
        TEST(syslogd_that_does_not_read_never_blocks),
        TEST(syslog_path_that_is_too_long_is_an_error),
        TEST(switching_targets_loses_nothing_and_leaks_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
