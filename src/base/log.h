/*
 * The log: one call per event, a name and key/value pairs, out as text or as JSON to stderr or
 * syslog.
 *
 * A log call never blocks. What the other end cannot take is counted, and the count is reported as
 * the event "log_lost" as soon as a line goes through again. Passwords are never handed to this
 * module.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_target { LOG_TARGET_STDERR, LOG_TARGET_SYSLOG };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

struct log_options {
    const char *program;     /* for syslog; must live as long as the log is open */
    int level;               /* enum log_level; quieter events are not written */
    int target;              /* enum log_target */
    int format;              /* enum log_format */
    const char *syslog_path; /* NULL: /dev/log */
};

enum log_field_type { LOG_FIELD_END, LOG_FIELD_TEXT, LOG_FIELD_NUMBER, LOG_FIELD_REAL };

struct log_field {
    const char *key;
    enum log_field_type type;
    const char *text; /* may hold any byte: escaped on the way out */
    size_t len;
    int64_t number;
    double real;
};

/* Fields: a NUL-terminated string, len bytes, a whole number, a real number. */
#define LOG_STR(key_, text_)                                                                       \
    {                                                                                              \
        .key = (key_), .type = LOG_FIELD_TEXT, .text = (text_), .len = SIZE_MAX                    \
    }
#define LOG_BYTES(key_, text_, len_)                                                               \
    {                                                                                              \
        .key = (key_), .type = LOG_FIELD_TEXT, .text = (text_), .len = (len_)                      \
    }
#define LOG_NUM(key_, number_)                                                                     \
    {                                                                                              \
        .key = (key_), .type = LOG_FIELD_NUMBER, .number = (int64_t)(number_)                      \
    }
#define LOG_REAL(key_, real_)                                                                      \
    {                                                                                              \
        .key = (key_), .type = LOG_FIELD_REAL, .real = (real_)                                     \
    }
#define LOG_NOTHING                                                                                \
    {                                                                                              \
        .type = LOG_FIELD_END                                                                      \
    }

/* Writes one event with at least one field (LOG_NOTHING if there is none); the arguments are not
 * evaluated when the level is not logged. */
#define log_event(level, event, ...)                                                               \
    do {                                                                                           \
        if (log_enabled(level))                                                                    \
            log_write((level), (event),                                                            \
                      (const struct log_field[]){__VA_ARGS__, {.type = LOG_FIELD_END}});           \
    } while (0)

/*
 * Opens the log, or switches an open one to other options; nothing is lost in between. Without it,
 * events of level info and above go to stderr as text. Returns 0; -1 with errno when syslog cannot
 * be reached, in which case lines are counted as lost until it can.
 */
int log_open(const struct log_options *options);

/* Closes what log_open() opened. */
void log_close(void);

bool log_enabled(enum log_level level);

void log_write(enum log_level level, const char *event, const struct log_field *fields);

/*
 * Says something to whoever started the program, whatever the level: as a plain line on stderr, or
 * as an event with the field "message" when that is where JSON goes. To syslog it goes as well.
 * May wait for stderr: at the start only.
 */
void log_announce(const char *event, const char *text);

/* Lines that could not be written since the start. Reports them as an event if that is possible
 * now; call it now and then, so that a loss at the end of a burst is not kept until the next event.
 */
uint64_t log_report_lost(void);

/* The same number, without a try to report anything. */
uint64_t log_lines_lost(void);

/*
 * A limit for events that clients cause: some at once and fewer a second for long are written, the
 * others counted. Zeroed is ready.
 */
struct log_limit {
    uint64_t paid_until_us; /* when all that were written have had their share of time */
    uint64_t suppressed;    /* since the owner last set it to zero */
};

/* Lines that a struct log_limit lets through in a burst, and a second while it goes on: the kinds
 * of events that a flood causes must not come to ten lines a second together. */
#define LOG_LIMIT_AT_ONCE 5
#define LOG_LIMIT_PER_SEC 2

/* May one more be written at this moment? Counts it as written or as suppressed. With level debug
 * everything is written. */
bool log_limit_allows(struct log_limit *limit, uint64_t now_us);

#endif
