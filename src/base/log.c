/*
 * Formats events and hands them to stderr or syslog without ever waiting. Decides how bytes are
 * escaped and what happens to a line that cannot be written. Must never know what the events mean.
 */
#include "base/log.h"

#include "base/clock.h"

#include <jansson.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* A pipe takes up to PIPE_BUF bytes whole or not at all; a longer line could be torn. */
#define MAX_LOG_LINE_BYTES 4096
#define MAX_TEXT_BYTES     512 /* of one field, escaped */

struct sink {
    int fd;
    bool owned;     /* close it when switching */
    bool is_socket; /* send() without waiting, else write() */
    bool may_wait;  /* ask before each write() */
};

/* One line being put together; what does not fit is cut. */
struct line {
    char text[MAX_LOG_LINE_BYTES];
    size_t len;
};

static const char *const level_names[] = {"error", "warn", "info", "debug"};
/* RFC 3164: facility daemon (3), severities err, warning, info, debug. */
static const int syslog_priorities[] = {3 * 8 + 3, 3 * 8 + 4, 3 * 8 + 6, 3 * 8 + 7};

#define DEFAULT_OPTIONS                                                                            \
    {                                                                                              \
        .program = "cliser", .level = LOG_LEVEL_INFO, .target = LOG_TARGET_STDERR,                 \
        .format = LOG_FORMAT_TEXT                                                                  \
    }

static struct log_options options = DEFAULT_OPTIONS;
static struct sink sink = {.fd = STDERR_FILENO};
static uint64_t lost_total;
static uint64_t lost_unreported;

static struct sink open_stderr(void);
static struct sink open_syslog(const char *path);
static void close_sink(struct sink *old);
static bool put_line(enum log_level level, const struct line *line);
static bool put_syslog(enum log_level level, const struct line *line);
static bool put_stderr(const struct line *line);
static const char *syslog_path(const struct log_options *from);
static void format_event(struct line *line, enum log_level level, const char *event,
                         const struct log_field *fields);
static void format_text(struct line *line, const char *time, enum log_level level,
                        const char *event, const struct log_field *fields);
static void format_json(struct line *line, const char *time, enum log_level level,
                        const char *event, const struct log_field *fields);
static void escape(const struct log_field *field, const char *quoted, char *out, size_t out_size);
static bool needs_quotes(const char *text);
static void append(struct line *line, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void format_time(char *buf, size_t size);

int log_open(const struct log_options *wanted)
{
    const struct sink next =
        wanted->target == LOG_TARGET_SYSLOG ? open_syslog(syslog_path(wanted)) : open_stderr();

    close_sink(&sink);
    sink = next;
    options = *wanted;
    return sink.fd < 0 ? -1 : 0;
}

void log_close(void)
{
    (void)log_report_lost();
    close_sink(&sink);
    sink = (struct sink){.fd = STDERR_FILENO};
    /* What they point to may be gone from here on. */
    options = (struct log_options)DEFAULT_OPTIONS;
}

bool log_enabled(enum log_level level)
{
    return (int)level <= options.level;
}

void log_write(enum log_level level, const char *event, const struct log_field *fields)
{
    struct line line;

    (void)log_report_lost();
    format_event(&line, level, event, fields);
    if (!put_line(level, &line)) {
        lost_total++;
        lost_unreported++;
    }
}

void log_announce(const char *event, const char *text)
{
    if (options.target == LOG_TARGET_SYSLOG || options.format == LOG_FORMAT_JSON)
        log_write(LOG_LEVEL_INFO, event,
                  (const struct log_field[]){LOG_STR("message", text), LOG_NOTHING});
    if (options.target == LOG_TARGET_SYSLOG || options.format == LOG_FORMAT_TEXT)
        fprintf(stderr, "%s\n", text);
}

uint64_t log_report_lost(void)
{
    struct line line;

    if (lost_unreported == 0)
        return lost_total;
    format_event(&line, LOG_LEVEL_WARN, "log_lost",
                 (const struct log_field[]){LOG_NUM("lines", lost_unreported), LOG_NOTHING});
    if (put_line(LOG_LEVEL_WARN, &line))
        lost_unreported = 0;
    return lost_total;
}

uint64_t log_lines_lost(void)
{
    return lost_total;
}

bool log_limit_allows(struct log_limit *limit, uint64_t now_us)
{
    const uint64_t each_us = CLOCK_US_PER_SEC / LOG_LIMIT_PER_SEC;
    const uint64_t begin_us = limit->paid_until_us > now_us ? limit->paid_until_us : now_us;

    if (log_enabled(LOG_LEVEL_DEBUG))
        return true;
    if (begin_us - now_us > (LOG_LIMIT_AT_ONCE - 1) * each_us) {
        limit->suppressed++;
        return false;
    }
    limit->paid_until_us = begin_us + each_us;
    return true;
}

/*
 * Pipes and terminals can block, and O_NONBLOCK belongs to the open file, which others share: so
 * they are opened anew for us alone. That fails once privileges are dropped; then the next best is
 * to ask before each write. Files do not block; sockets can be told so at each call.
 */
static struct sink open_stderr(void)
{
    struct sink opened = {.fd = STDERR_FILENO};
    struct stat info;

    if (fstat(STDERR_FILENO, &info) != 0)
        return opened;
    opened.is_socket = S_ISSOCK(info.st_mode);
    if (S_ISFIFO(info.st_mode) || S_ISCHR(info.st_mode)) {
        const int fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
        if (fd >= 0) {
            opened.fd = fd;
            opened.owned = true;
        } else {
            opened.may_wait = true;
        }
    }
    return opened;
}

static struct sink open_syslog(const char *path)
{
    struct sink opened = {.fd = -1, .owned = true, .is_socket = true};
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return opened;
    }
    memcpy(address.sun_path, path, strlen(path));
    opened.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (opened.fd >= 0 &&
        connect(opened.fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        const int error = errno;
        close(opened.fd);
        errno = error;
        opened.fd = -1;
    }
    return opened;
}

static void close_sink(struct sink *old)
{
    if (old->owned && old->fd >= 0)
        close(old->fd);
    old->fd = -1;
}

static bool put_line(enum log_level level, const struct line *line)
{
    return options.target == LOG_TARGET_SYSLOG ? put_syslog(level, line) : put_stderr(line);
}

static bool put_syslog(enum log_level level, const struct line *line)
{
    struct line framed = {.len = 0};

    append(&framed, "<%d>%s[%d]: %.*s", syslog_priorities[level], options.program, (int)getpid(),
           (int)line->len, line->text);
    if (send(sink.fd, framed.text, framed.len, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
        return true;
    if (errno == EAGAIN || errno == ENOBUFS)
        return false;

    /* The daemon was started again, or for the first time: its old socket is dead, the path is not.
     */
    close_sink(&sink);
    sink = open_syslog(syslog_path(&options));
    return send(sink.fd, framed.text, framed.len, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

static bool put_stderr(const struct line *line)
{
    struct line framed = *line;
    struct pollfd room = {.fd = sink.fd, .events = POLLOUT};
    ssize_t written;

    if (sink.may_wait && poll(&room, 1, 0) != 1)
        return false;
    if (framed.len == sizeof(framed.text))
        framed.len--;
    framed.text[framed.len++] = '\n';
    if (sink.is_socket)
        written = send(sink.fd, framed.text, framed.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    else
        written = write(sink.fd, framed.text, framed.len);
    return written == (ssize_t)framed.len;
}

static const char *syslog_path(const struct log_options *from)
{
    return from->syslog_path ? from->syslog_path : "/dev/log";
}

static void format_event(struct line *line, enum log_level level, const char *event,
                         const struct log_field *fields)
{
    char time[40];

    line->len = 0;
    format_time(time, sizeof(time));
    if (options.format == LOG_FORMAT_JSON)
        format_json(line, time, level, event, fields);
    else
        format_text(line, time, level, event, fields);
}

/* 2026-01-31T12:00:00.000Z info connected serial=1 cid=web-1 */
static void format_text(struct line *line, const char *time, enum log_level level,
                        const char *event, const struct log_field *fields)
{
    char text[MAX_TEXT_BYTES];

    /* syslog stamps its own time. */
    if (options.target == LOG_TARGET_STDERR)
        append(line, "%s ", time);
    append(line, "%s %s", level_names[level], event);
    for (const struct log_field *field = fields; field->type != LOG_FIELD_END; field++) {
        switch (field->type) {
        case LOG_FIELD_TEXT:
            escape(field, "\\\"", text, sizeof(text));
            append(line, needs_quotes(text) ? " %s=\"%s\"" : " %s=%s", field->key, text);
            break;
        case LOG_FIELD_NUMBER:
            append(line, " %s=%" PRId64, field->key, field->number);
            break;
        case LOG_FIELD_REAL:
            append(line, " %s=%.3f", field->key, field->real);
            break;
        case LOG_FIELD_END:
            break;
        }
    }
}

static void format_json(struct line *line, const char *time, enum log_level level,
                        const char *event, const struct log_field *fields)
{
    char text[MAX_TEXT_BYTES];
    json_t *object = json_object();

    json_object_set_new(object, "time", json_string(time));
    json_object_set_new(object, "level", json_string(level_names[level]));
    json_object_set_new(object, "event", json_string(event));
    for (const struct log_field *field = fields; field->type != LOG_FIELD_END; field++) {
        switch (field->type) {
        case LOG_FIELD_TEXT:
            escape(field, "\\", text, sizeof(text));
            json_object_set_new(object, field->key, json_string(text));
            break;
        case LOG_FIELD_NUMBER:
            json_object_set_new(object, field->key, json_integer(field->number));
            break;
        case LOG_FIELD_REAL:
            json_object_set_new(object, field->key, json_real(field->real));
            break;
        case LOG_FIELD_END:
            break;
        }
    }

    const size_t len = json_dumpb(object, line->text, sizeof(line->text) - 1,
                                  JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(object);
    if (len > 0 && len < sizeof(line->text))
        line->len = len;
    else /* Out of memory, or fields that no event has: still one valid object. */
        append(line, "{\"time\":\"%s\",\"level\":\"%s\",\"event\":\"%s\"}", time,
               level_names[level], event);
}

/*
 * Printable ASCII passes, the bytes in quoted behind a backslash; every other byte becomes \xNN. So
 * a peer can neither forge a line nor move the cursor of whoever reads the log.
 */
static void escape(const struct log_field *field, const char *quoted, char *out, size_t out_size)
{
    const char *text = field->text ? field->text : "";
    const size_t len = field->len == SIZE_MAX ? strlen(text) : field->len;
    size_t n = 0;

    for (size_t i = 0; i < len && n + 5 < out_size; i++) {
        const unsigned char byte = (unsigned char)text[i];

        if (byte < 0x20 || byte >= 0x7f) {
            n += (size_t)snprintf(out + n, out_size - n, "\\x%02x", byte);
            continue;
        }
        if (strchr(quoted, byte))
            out[n++] = '\\';
        out[n++] = (char)byte;
    }
    out[n] = '\0';
}

static bool needs_quotes(const char *text)
{
    return text[0] == '\0' || strpbrk(text, " =\"\\") != NULL;
}

static void append(struct line *line, const char *format, ...)
{
    const size_t room = sizeof(line->text) - line->len;
    va_list args;

    va_start(args, format);
    const int wanted = vsnprintf(line->text + line->len, room, format, args);
    va_end(args);
    if (wanted > 0)
        line->len += (size_t)wanted < room ? (size_t)wanted : room - 1;
}

static void format_time(char *buf, size_t size)
{
    const int64_t now_ms = clock_wall_ms();
    const time_t seconds = (time_t)(now_ms / 1000);
    struct tm parts;

    gmtime_r(&seconds, &parts);
    const size_t len = strftime(buf, size, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(buf + len, size - len, ".%03dZ", (int)(now_ms % 1000));
}
