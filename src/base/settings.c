/*
 * The table-driven reader of ini files. inih splits lines into section, key and value; this file
 * finds what inih would pass over in silence (lines cut at its limit, values cut at a comment sign,
 * keys given twice) and turns text into values. Must never know which keys there are.
 */
#include "base/settings.h"

#include "base/settings_secret.h"
#include "base/settings_value.h"

#include <ini.h>
#include <sodium.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_MESSAGE_BYTES 512

/* The keys that the lines behind a [section] may set. */
struct scope {
    const struct setting *table;
    size_t rows;
    void *out;
    unsigned *set_at;  /* line of each row, 0 while it is not set */
    const char *named; /* of a section with a free name: what stands before it; else NULL */
    bool is_unknown;   /* no section that we know, or none at all: keys are passed over */
};

/* One pass over a file. */
struct pass {
    struct scope plain; /* that of sections without a name of their own */
    const struct settings_named *named;
    unsigned *named_set_at;
    struct scope scope; /* of the line */
    struct settings_report *report;
    const char *next; /* rest of the file's text */
    const char *end;
    const char *line; /* the line inih is looking at, in the text */
    size_t line_len;
    unsigned line_number;
    bool line_was_key; /* inih called back for it */
    bool after_key; /* since the last [section]: inih takes an indented line for more of that key */
};

static void read_text(const char *text, size_t len, const struct scope *plain,
                      const struct settings_named *named, unsigned *named_set_at,
                      struct settings_report *report);
static char *read_line(char *buf, int size, void *stream);
static int take_key(void *user, const char *section, const char *key, const char *value);
static void check_line_before_inih(struct pass *pass, size_t limit);
static void check_line_after_inih(struct pass *pass);
static bool is_header(const char *text, size_t len);
static bool is_continuation(const struct pass *pass);
static bool take_continuation(struct pass *pass, const struct setting *row);
static size_t len_before_comment(const char *text, size_t len);
static bool is_blank(char byte);
static void enter_section(struct pass *pass, const char *header, size_t len);
static bool begins_named(const struct settings_named *named, const char *name, size_t len);
static void enter_named(struct pass *pass, const char *name, size_t len);
static void report_unknown(struct pass *pass, const char *section, const char *key);
static const char *list_sections(const struct pass *pass, char *buf, size_t size);
static const char *list_keys(const struct scope *scope, const char *section, char *buf,
                             size_t size);
static void append_name(char *buf, size_t size, const char *name, const char *behind);
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
    return settings_load_named(path, table, rows, NULL, out, report);
}

int settings_load_named(const char *path, const struct setting *table, size_t rows,
                        const struct settings_named *named, void *out,
                        struct settings_report *report)
{
    char message[MAX_MESSAGE_BYTES];
    size_t len = 0;

    *report = (struct settings_report){.path = path, .table = table, .rows = rows};
    report->set_at = calloc(rows, sizeof(*report->set_at));
    unsigned *named_set_at = named ? calloc(named->rows, sizeof(*named_set_at)) : NULL;
    char *text = NULL;
    if (!report->set_at || (named && !named_set_at) ||
        settings_set_defaults(table, rows, out) != 0) {
        report->out_of_memory = true;
        goto out;
    }
    text = settings_read_file(path, false, &len, &report->mode, message, sizeof(message));
    if (!text) {
        settings_report_add(report, 0, "%s", message);
        goto out;
    }

    read_text(text, len,
              &(struct scope){.table = table, .rows = rows, .out = out, .set_at = report->set_at},
              named, named_set_at, report);
    sodium_memzero(text, len);

out:
    free(text);
    free(named_set_at);
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

static void read_text(const char *text, size_t len, const struct scope *plain,
                      const struct settings_named *named, unsigned *named_set_at,
                      struct settings_report *report)
{
    struct pass pass = {
        .plain = *plain,
        .scope = *plain,
        .named = named,
        .named_set_at = named_set_at,
        .report = report,
        .next = text,
        .end = text + len,
        .line_was_key = true,
    };

    /* The result would be the first line that is no ini at all; read_line finds each of them. */
    (void)ini_parse_stream(read_line, &pass, take_key, &pass);
}

/* inih's fgets: hands out the next line, or an empty one in place of a line that is wrong. */
static char *read_line(char *buf, int size, void *stream)
{
    struct pass *pass = stream;
    const size_t limit = (size_t)size - 2; /* inih wants room for LF and NUL */

    check_line_after_inih(pass);
    if (pass->next == pass->end) {
        /* inih's own, on the stack; the last line may be a password. */
        sodium_memzero(buf, (size_t)size);
        return NULL;
    }

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
        enter_section(pass, text, len);
        return;
    }
    settings_report_add(pass->report, pass->line_number,
                        "expected \"[section]\", \"key = value\" or a comment that begins with ;");
}

/* An unknown one is reported where it stands, whether it has keys or not. */
static void enter_section(struct pass *pass, const char *header, size_t len)
{
    const char *name = header + 1;
    const size_t name_len = (size_t)((const char *)memchr(header, ']', len) - name);
    char known[MAX_MESSAGE_BYTES] = "";

    if (begins_named(pass->named, name, name_len)) {
        enter_named(pass, name, name_len);
        return;
    }
    pass->scope = pass->plain;
    pass->scope.is_unknown = true;
    for (size_t i = 0; i < pass->plain.rows && pass->scope.is_unknown; i++)
        pass->scope.is_unknown = strlen(pass->plain.table[i].section) != name_len ||
                                 memcmp(pass->plain.table[i].section, name, name_len) != 0;
    if (pass->scope.is_unknown)
        settings_report_add(pass->report, pass->line_number,
                            "unknown section [%.*s]; the sections are %s", (int)name_len, name,
                            list_sections(pass, known, sizeof(known)));
}

static bool begins_named(const struct settings_named *named, const char *name, size_t len)
{
    const size_t begin_len = named ? strlen(named->section) : 0;

    return named && len >= begin_len && memcmp(name, named->section, begin_len) == 0 &&
           (len == begin_len || name[begin_len] == ' ');
}

/* inih cuts the names of sections at 49 bytes, so this one is taken from the line itself. */
static void enter_named(struct pass *pass, const char *name, size_t len)
{
    const struct settings_named *named = pass->named;
    const size_t begin_len = strlen(named->section);
    const size_t skipped = len > begin_len ? begin_len + 1 : len;

    memset(pass->named_set_at, 0, named->rows * sizeof(*pass->named_set_at));
    pass->scope = (struct scope){
        .table = named->table,
        .rows = named->rows,
        .set_at = pass->named_set_at,
        .named = named->section,
        .out = named->begin(pass->plain.out, name + skipped, len - skipped, pass->line_number,
                            pass->report),
    };
    pass->scope.is_unknown = !pass->scope.out;
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
    for (size_t i = 0; i < pass->scope.rows && has_sign && !is_key; i++) {
        const struct setting *other = &pass->scope.table[i];
        is_key = strcmp(other->section, row->section) == 0 &&
                 strlen(other->key) == (size_t)(name_end - text) &&
                 memcmp(other->key, text, (size_t)(name_end - text)) == 0;
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
    const struct scope *scope = &pass->scope;
    const struct setting *row =
        settings_find(scope->table, scope->rows, scope->named ? scope->named : section, key);
    char message[MAX_MESSAGE_BYTES];

    const bool goes_on = is_continuation(pass);
    pass->line_was_key = true;
    pass->after_key = true;
    if (scope->is_unknown)
        return 1;
    if (!row) {
        if (!goes_on)
            report_unknown(pass, section, key);
        return 1;
    }
    if (goes_on && !take_continuation(pass, row))
        return 1;

    unsigned *set_at = &scope->set_at[row - scope->table];
    void *place = (char *)scope->out + row->offset;
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
    const struct scope *scope = &pass->scope;
    char known[MAX_MESSAGE_BYTES] = "";

    if (section[0] == '\0')
        settings_report_add(pass->report, pass->line_number,
                            "%s stands before any section; the sections are %s", key,
                            list_sections(pass, known, sizeof(known)));
    else
        settings_report_add(
            pass->report, pass->line_number, "unknown key %s in [%s]; it has %s", key, section,
            list_keys(scope, scope->named ? scope->named : section, known, sizeof(known)));
}

/* The names of all sections, for people. Returns buf. */
static const char *list_sections(const struct pass *pass, char *buf, size_t size)
{
    const struct scope *plain = &pass->plain;

    for (size_t i = 0; i < plain->rows; i++) {
        if (i == 0 || strcmp(plain->table[i].section, plain->table[i - 1].section) != 0)
            append_name(buf, size, plain->table[i].section, "");
    }
    if (pass->named)
        append_name(buf, size, pass->named->section, " NAME");
    return buf;
}

/* The names of a section's keys. Returns buf. */
static const char *list_keys(const struct scope *scope, const char *section, char *buf, size_t size)
{
    for (size_t i = 0; i < scope->rows; i++) {
        if (strcmp(scope->table[i].section, section) == 0)
            append_name(buf, size, scope->table[i].key, "");
    }
    return buf;
}

static void append_name(char *buf, size_t size, const char *name, const char *behind)
{
    const size_t len = strlen(buf);

    snprintf(buf + len, size - len, "%s%s%s", len > 0 ? ", " : "", name, behind);
}

static bool keys_equal(const char *left, const char *right)
{
    for (; *left && *right; left++, right++) {
        if ((*left == '-' ? '_' : *left) != (*right == '-' ? '_' : *right))
            return false;
    }
    return *left == *right;
}
