/*
 * The table-driven reader of ini files. inih splits lines into section, key and value; this file
 * finds what inih would pass over in silence (lines cut at its limit, values cut at a comment sign,
 * keys given twice) and turns text into values. Must never know which keys there are.
 */
#include "base/settings.h"

#include "base/settings_value.h"

#include <ini.h>
#include <sodium.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILE_BYTES    (1U << 20) /* far beyond any configuration; keeps /dev/zero out */
#define MAX_MESSAGE_BYTES 512

/* One pass over a file. */
struct pass {
    const struct setting *table;
    size_t rows;
    void *out;
    struct settings_report *report;
    const char *next; /* rest of the file's text */
    const char *end;
    const char *line; /* the line inih is looking at, in the text */
    size_t line_len;
    unsigned line_number;
    bool line_was_key; /* inih called back for it */
    bool after_key; /* since the last [section]: inih takes an indented line for more of that key */
    bool in_unknown_section;
};

static char *read_file(const char *path, size_t *len, char *message, size_t message_size);
static char *read_line(char *buf, int size, void *stream);
static int take_key(void *user, const char *section, const char *key, const char *value);
static void check_line_before_inih(struct pass *pass, size_t limit);
static void check_line_after_inih(struct pass *pass);
static bool is_header(const char *text, size_t len);
static bool is_continuation(const struct pass *pass);
static bool take_continuation(struct pass *pass, const struct setting *row);
static size_t len_before_comment(const char *text, size_t len);
static bool is_blank(char byte);
static void check_section(struct pass *pass, const char *header, size_t len);
static void report_unknown(struct pass *pass, const char *section, const char *key);
static const char *list_names(const struct pass *pass, const char *section, char *buf, size_t size);
static bool keys_equal(const char *left, const char *right);

int settings_set_defaults(const struct setting *table, size_t rows, void *out)
{
    char message[MAX_MESSAGE_BYTES];

    for (size_t i = 0; i < rows; i++) {
        void *place = (char *)out + table[i].offset;

        if (!table[i].def)
            continue;
        if (settings_value_set(&table[i], place, table[i].def, 0, message, sizeof(message)) != 0)
            return -1;
        if (settings_is_list(&table[i]))
            ((struct settings_list *)place)->is_default = true;
    }
    return 0;
}

int settings_load(const char *path, const struct setting *table, size_t rows, void *out,
                  struct settings_report *report)
{
    char message[MAX_MESSAGE_BYTES];
    size_t len = 0;

    *report = (struct settings_report){.path = path, .table = table, .rows = rows};
    report->set_at = calloc(rows, sizeof(*report->set_at));
    if (!report->set_at || settings_set_defaults(table, rows, out) != 0) {
        report->out_of_memory = true;
        return -1;
    }

    char *text = read_file(path, &len, message, sizeof(message));
    if (!text) {
        settings_report_add(report, 0, "%s", message);
        return -1;
    }

    struct pass pass = {
        .table = table,
        .rows = rows,
        .out = out,
        .report = report,
        .next = text,
        .end = text + len,
        .line_was_key = true,
    };
    /* The result would be the first line that is no ini at all; read_line finds each of them. */
    (void)ini_parse_stream(read_line, &pass, take_key, &pass);
    sodium_memzero(text, len);
    free(text);
    return settings_report_is_empty(report) ? 0 : -1;
}

int settings_set(const struct setting *table, size_t rows, void *out, const char *section,
                 const char *key, const char *value, char *message, size_t message_size)
{
    const struct setting *row = settings_find(table, rows, section, key);

    if (!row) {
        snprintf(message, message_size, "there is no %s", key);
        return -1;
    }
    void *place = (char *)out + row->offset;
    return settings_value_set(row, place, value, 0, message, message_size);
}

const struct setting *settings_find(const struct setting *table, size_t rows, const char *section,
                                    const char *key)
{
    for (size_t i = 0; i < rows; i++) {
        if (strcmp(table[i].section, section) == 0 && keys_equal(table[i].key, key))
            return &table[i];
    }
    return NULL;
}

void settings_clear(const struct setting *table, size_t rows, void *out)
{
    for (size_t i = 0; i < rows; i++) {
        void *place = (char *)out + table[i].offset;

        if (table[i].type == SETTING_TEXT) {
            settings_free_secret(*(char **)place);
            *(char **)place = NULL;
        } else if (settings_is_list(&table[i])) {
            settings_list_clear(place);
        }
    }
}

unsigned settings_line(const struct settings_report *report, const char *section, const char *key)
{
    const struct setting *row = settings_find(report->table, report->rows, section, key);

    return row ? report->set_at[row - report->table] : 0;
}

void settings_report_add(struct settings_report *report, unsigned line, const char *format, ...)
{
    struct settings_error *errors =
        realloc(report->errors, (report->count + 1) * sizeof(*report->errors));
    size_t place = report->count;
    char *text = NULL;
    va_list args;

    if (errors)
        report->errors = errors;
    va_start(args, format);
    if (!errors || vasprintf(&text, format, args) < 0) {
        va_end(args);
        report->out_of_memory = true;
        return;
    }
    va_end(args);

    /* In the order of lines: checks that follow the reading add theirs later. */
    for (; place > 0 && errors[place - 1].line > line; place--)
        errors[place] = errors[place - 1];
    errors[place] = (struct settings_error){.line = line, .text = text};
    report->count++;
}

bool settings_report_is_empty(const struct settings_report *report)
{
    return report->count == 0 && !report->out_of_memory;
}

void settings_report_print(const struct settings_report *report, const char *program)
{
    char text[MAX_MESSAGE_BYTES];

    for (size_t i = 0; i < report->count; i++)
        fprintf(stderr, "%s: %s\n", program, settings_report_text(report, i, text, sizeof(text)));
    if (report->out_of_memory)
        fprintf(stderr, "%s: %s: out of memory\n", program, report->path);
}

const char *settings_report_text(const struct settings_report *report, size_t index, char *buf,
                                 size_t size)
{
    const struct settings_error *error = &report->errors[index];

    if (error->line > 0)
        snprintf(buf, size, "%s:%u: %s", report->path, error->line, error->text);
    else
        snprintf(buf, size, "%s", error->text);
    return buf;
}

void settings_report_clear(struct settings_report *report)
{
    for (size_t i = 0; i < report->count; i++)
        free(report->errors[i].text);
    free(report->errors);
    free(report->set_at);
    *report = (struct settings_report){.path = NULL};
}

char *settings_read_secret(const char *path, char *message, size_t message_size)
{
    size_t len = 0;
    char *text = read_file(path, &len, message, message_size);

    if (!text)
        return NULL;
    if (memchr(text, '\0', len)) {
        snprintf(message, message_size, "%s has a NUL byte in it; it should be one line of text",
                 path);
        sodium_memzero(text, len);
        free(text);
        return NULL;
    }
    /* Nobody keeps the other lines, which may hold the password before this one: wipe them here. */
    size_t line_len = strcspn(text, "\n");
    sodium_memzero(text + line_len, len - line_len);
    if (line_len > 0 && text[line_len - 1] == '\r')
        text[--line_len] = '\0';
    if (memchr(text, '\r', line_len)) {
        snprintf(message, message_size,
                 "the first line of %s has a CR in it; no client could send such a password", path);
        settings_free_secret(text);
        return NULL;
    }
    if (text[0] == '\0') {
        snprintf(message, message_size, "the first line of %s is empty; it should be the password",
                 path);
        settings_free_secret(text);
        return NULL;
    }
    return text;
}

int settings_secret_is_private(int fd, const char *path, char *message, size_t message_size)
{
    struct stat info;

    if (fstat(fd, &info) != 0) {
        snprintf(message, message_size, "cannot read %s: %s", path, strerror(errno));
        return -1;
    }
    if (info.st_mode & (S_IWGRP | S_IRWXO)) {
        snprintf(message, message_size, "%s is open to others; close it: chmod 600 %s", path, path);
        return -1;
    }
    if (info.st_uid != 0 && info.st_uid != geteuid()) {
        snprintf(message, message_size,
                 "%s belongs to somebody else; it should be root's or our own: chown root %s", path,
                 path);
        return -1;
    }
    return 0;
}

void settings_free_secret(char *secret)
{
    if (secret)
        sodium_memzero(secret, strlen(secret));
    free(secret);
}

/* Opened without blocking, so that a FIFO cannot hang a reload. Returns len bytes and a NUL, or
 * NULL with "path: what is wrong" in message. */
static char *read_file(const char *path, size_t *len, char *message, size_t message_size)
{
    struct stat info;
    char *text = NULL;
    const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &info) != 0) {
        snprintf(message, message_size, "%s: cannot be opened: %s", path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(info.st_mode) || info.st_size > (off_t)MAX_FILE_BYTES) {
        snprintf(message, message_size, "%s: is not a file of at most 1 MiB", path);
        goto out;
    }

    text = calloc(1, (size_t)info.st_size + 1);
    if (!text) {
        snprintf(message, message_size, "%s: out of memory", path);
        goto out;
    }
    *len = 0;
    while (*len < (size_t)info.st_size) {
        const ssize_t got = read(fd, text + *len, (size_t)info.st_size - *len);
        if (got == 0)
            break;
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            snprintf(message, message_size, "%s: cannot be read: %s", path, strerror(errno));
            free(text);
            text = NULL;
            goto out;
        }
        *len += (size_t)got;
    }

out:
    if (fd >= 0)
        close(fd);
    return text;
}

/* inih's fgets: hands out the next line, or an empty one in place of a line that is wrong. */
static char *read_line(char *buf, int size, void *stream)
{
    struct pass *pass = stream;
    const size_t limit = (size_t)size - 2; /* inih wants room for LF and NUL */

    check_line_after_inih(pass);
    if (pass->next == pass->end)
        return NULL;

    const char *newline = memchr(pass->next, '\n', (size_t)(pass->end - pass->next));
    const char *line_end = newline ? newline : pass->end;
    pass->line = pass->next;
    pass->line_len = (size_t)(line_end - pass->next);
    pass->next = newline ? newline + 1 : pass->end;
    pass->report->lines = ++pass->line_number;
    pass->line_was_key = false;
    check_line_before_inih(pass, limit);

    /* inih r55 takes a comment behind a value off a key's first line, but not off the next ones. */
    const size_t len =
        is_continuation(pass) ? len_before_comment(pass->line, pass->line_len) : pass->line_len;
    memcpy(buf, pass->line, len);
    buf[len] = '\n';
    buf[len + 1] = '\0';
    return buf;
}

static void check_line_before_inih(struct pass *pass, size_t limit)
{
    if (pass->line_len > limit) {
        settings_report_add(pass->report, pass->line_number,
                            "this line has %zu bytes; a line takes at most %zu", pass->line_len,
                            limit);
        pass->line_len = 0;
    } else if (memchr(pass->line, '\0', pass->line_len)) {
        settings_report_add(pass->report, pass->line_number,
                            "this line has a NUL byte in it; the file should be text");
        pass->line_len = 0;
    }
}

/* A line that holds something, for which inih did not call back, is not ini. */
static void check_line_after_inih(struct pass *pass)
{
    const char *text = pass->line;
    size_t len = pass->line_len;

    if (pass->line_was_key || !text)
        return;
    if (pass->line_number == 1 && len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        len -= 3;
    }
    while (len > 0 && is_blank(text[0])) {
        text++;
        len--;
    }
    if (len == 0 || text[0] == ';' || text[0] == '#')
        return;
    if (is_header(text, len)) {
        pass->after_key = false;
        check_section(pass, text, len);
        return;
    }
    settings_report_add(pass->report, pass->line_number,
                        "expected \"[section]\", \"key = value\" or a comment that begins with ;");
}

/* Reported where it stands, whether it has keys or not; its keys are passed over then. */
static void check_section(struct pass *pass, const char *header, size_t len)
{
    const size_t name_len = (size_t)((const char *)memchr(header, ']', len) - header) - 1;
    char known[MAX_MESSAGE_BYTES] = "";

    pass->in_unknown_section = true;
    for (size_t i = 0; i < pass->rows && pass->in_unknown_section; i++)
        pass->in_unknown_section = strlen(pass->table[i].section) != name_len ||
                                   memcmp(pass->table[i].section, header + 1, name_len) != 0;
    if (pass->in_unknown_section)
        settings_report_add(pass->report, pass->line_number,
                            "unknown section [%.*s]; the sections are %s", (int)name_len,
                            header + 1, list_names(pass, NULL, known, sizeof(known)));
}

/* A whole "[section]"; inih would pass over what stands behind it, and over a half one. */
static bool is_header(const char *text, size_t len)
{
    const char *close = text[0] == '[' ? memchr(text, ']', len) : NULL;

    if (!close || len_before_comment(text, len) < (size_t)(close - text))
        return false;
    for (const char *rest = close + 1; rest < text + len; rest++) {
        if (!is_blank(*rest))
            return *rest == ';' || *rest == '#';
    }
    return true;
}

static bool is_continuation(const struct pass *pass)
{
    return pass->after_key && pass->line_len > 0 && is_blank(pass->line[0]);
}

/*
 * An indented line goes on with the key above it, which only a list can. One that reads like a key
 * is meant as one: taken as it stands, "  password_file = x" would become a password.
 */
static bool take_continuation(struct pass *pass, const struct setting *row)
{
    const char *text = pass->line;
    const char *end = pass->line + pass->line_len;

    while (text < end && is_blank(*text))
        text++;
    const char *name_end = text;
    while (name_end < end && *name_end != '=' && *name_end != ':')
        name_end++;
    const bool has_sign = name_end < end;
    while (name_end > text && is_blank(name_end[-1]))
        name_end--;

    bool is_key = false;
    for (size_t i = 0; i < pass->rows && has_sign && !is_key; i++) {
        is_key = strcmp(pass->table[i].section, row->section) == 0 &&
                 strlen(pass->table[i].key) == (size_t)(name_end - text) &&
                 memcmp(pass->table[i].key, text, (size_t)(name_end - text)) == 0;
    }
    if (settings_is_list(row) && !is_key)
        return true;
    settings_report_add(pass->report, pass->line_number,
                        is_key
                            ? "this indented line would go on with %s; a key begins at the start "
                              "of its line"
                            : "this indented line goes on with %s, which takes one value",
                        row->key);
    return false;
}

/* inih begins a comment at a ';' with white space before it. */
static size_t len_before_comment(const char *text, size_t len)
{
    for (size_t i = 1; i < len; i++) {
        if (text[i] == ';' && is_blank(text[i - 1]))
            return i;
    }
    return len;
}

/* White space as inih has it. */
static bool is_blank(char byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

/* inih's handler. Returns 1 always: errors are kept here, where all of them fit. */
static int take_key(void *user, const char *section, const char *key, const char *value)
{
    struct pass *pass = user;
    struct settings_report *report = pass->report;
    const struct setting *row = settings_find(pass->table, pass->rows, section, key);
    char message[MAX_MESSAGE_BYTES];

    const bool goes_on = is_continuation(pass);
    pass->line_was_key = true;
    pass->after_key = true;
    if (!row) {
        if (!goes_on && !pass->in_unknown_section)
            report_unknown(pass, section, key);
        return 1;
    }
    if (goes_on && !take_continuation(pass, row))
        return 1;

    unsigned *set_at = &report->set_at[row - pass->table];
    void *place = (char *)pass->out + row->offset;
    if (*set_at != 0 && !settings_is_list(row)) {
        settings_report_add(report, pass->line_number, "%s is set twice; line %u has it already",
                            row->key, *set_at);
        return 1;
    }
    if (*set_at == 0)
        *set_at = pass->line_number;

    if (row->whole && len_before_comment(pass->line, pass->line_len) < pass->line_len) {
        settings_report_add(
            report, pass->line_number,
            "%s would be cut at \" ;\", which begins a comment; write ; without a blank "
            "before it, or put a password into a file and name it with password_file",
            row->key);
        return 1;
    }
    if (settings_value_set(row, place, value, pass->line_number, message, sizeof(message)) != 0)
        settings_report_add(report, pass->line_number, "%s: %s", row->key, message);
    return 1;
}

static void report_unknown(struct pass *pass, const char *section, const char *key)
{
    char known[MAX_MESSAGE_BYTES] = "";

    if (section[0] == '\0')
        settings_report_add(pass->report, pass->line_number,
                            "%s stands before any section; the sections are %s", key,
                            list_names(pass, NULL, known, sizeof(known)));
    else
        settings_report_add(pass->report, pass->line_number, "unknown key %s in [%s]; it has %s",
                            key, section, list_names(pass, section, known, sizeof(known)));
}

/* The names of a section's keys, or of all sections for NULL, for people. Returns buf. */
static const char *list_names(const struct pass *pass, const char *section, char *buf, size_t size)
{
    size_t len = 0;

    for (size_t i = 0; i < pass->rows && len < size; i++) {
        const struct setting *row = &pass->table[i];
        const bool seen = i > 0 && strcmp(row->section, pass->table[i - 1].section) == 0;

        if (section ? strcmp(row->section, section) != 0 : seen)
            continue;
        len += (size_t)snprintf(buf + len, size - len, "%s%s", len > 0 ? ", " : "",
                                section ? row->key : row->section);
    }
    return buf;
}

static bool keys_equal(const char *left, const char *right)
{
    for (; *left && *right; left++, right++) {
        if ((*left == '-' ? '_' : *left) != (*right == '-' ? '_' : *right))
            return false;
    }
    return *left == *right;
}
