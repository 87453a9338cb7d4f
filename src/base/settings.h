/*
 * Reads an ini file into a struct, by a table: section, key, type, where it goes, bounds, default.
 *
 * The file format is inih's. Every mistake in a file is found, not only the first, and each is
 * reported as "FILE:LINE: what is wrong, and what would be right".
 */
#ifndef BASE_SETTINGS_H
#define BASE_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/types.h>

enum setting_type {
    SETTING_BOOL,     /* bool: yes or no */
    SETTING_NUMBER,   /* uint64_t, minimum to maximum */
    SETTING_DURATION, /* uint64_t in milliseconds, minimum to maximum */
    SETTING_CHOICE,   /* int: index into choices */
    SETTING_TEXT,     /* char *, owned by the struct; NULL without a default */
    SETTING_LIST,     /* struct settings_list: split at commas, may be repeated */
    SETTING_LINES,    /* struct settings_list: one item a line, may be repeated */
};

/* What a SETTING_DURATION with word "never" holds for it. */
#define SETTING_NEVER UINT64_MAX

/* One row of a table. A default is text as it would stand in the file; NULL for none. */
struct setting {
    const char *section;
    const char *key;
    enum setting_type type;
    size_t offset; /* of the value in the struct */
    uint64_t minimum;
    uint64_t maximum;
    const char *const *choices; /* SETTING_CHOICE: NULL-terminated names */
    const char *word;           /* SETTING_DURATION: a word for SETTING_NEVER, or NULL */
    const char *def;
    bool reloadable; /* takes effect at a reload; others need a restart */
    bool whole;      /* a value that inih would cut at a comment is refused */
    const char *help;
};

struct settings_list {
    char **items;    /* owned, as is each item */
    unsigned *lines; /* where each stands in the file; 0 for a default or a command line */
    size_t count;
    bool is_default; /* the first value given replaces it */
};

/* The errors of one file. Zeroed is empty; owned by the caller, cleared with
 * settings_report_clear(). */
struct settings_report {
    const char *path;
    struct settings_error {
        unsigned line; /* 0: of the file as a whole */
        char *text;
    } * errors;
    size_t count;
    unsigned lines;     /* that the file has */
    mode_t mode;        /* of the file, as stat() has it */
    bool out_of_memory; /* there may be more errors than these */
    unsigned *set_at;   /* line of each table row in the file, 0 where the default holds */
    const struct setting *table;
    size_t rows;
};

/* Sections with free names, such as [credential NAME]: any number of them, each with the keys of
 * one table and a struct of its own for their values. Such a table has no defaults. */
struct settings_named {
    const char *section; /* what stands before the name, and is the section of each row */
    const struct setting *table;
    size_t rows;

    /* The section begins: what stands behind the first blank, len bytes of anything. Returns the
     * zeroed struct for its values, which must stay where it is until the next call or the end of
     * the file, or NULL when memory is out. What is wrong with the name is added to the report. */
    void *(*begin)(void *out, const char *name, size_t len, unsigned line,
                   struct settings_report *report);
};

/* Sets every row's default in *out, which must be zeroed. Returns 0, or -1 when memory is out. */
int settings_set_defaults(const struct setting *table, size_t rows, void *out);

/*
 * Sets defaults in the zeroed *out, then reads the file over them. Returns 0, or -1 with at least
 * one error in *report. Either way *out is to be cleared by settings_clear() and *report by
 * settings_report_clear(); path and table must outlive the report.
 */
int settings_load(const char *path, const struct setting *table, size_t rows, void *out,
                  struct settings_report *report);

/* The same for a file that may have sections with free names as well. What begin() made is to be
 * cleared by who made it, with settings_clear() for the values. */
int settings_load_named(const char *path, const struct setting *table, size_t rows,
                        const struct settings_named *named, void *out,
                        struct settings_report *report);

/*
 * Sets one value given by other means, such as a command line. '-' and '_' in keys are the same.
 * Returns 0, or -1 with what is wrong in message.
 */
int settings_set(const struct setting *table, size_t rows, void *out, const char *section,
                 const char *key, const char *value, char *message, size_t message_size);

/* Finds a row. Returns NULL if there is none. */
const struct setting *settings_find(const struct setting *table, size_t rows, const char *section,
                                    const char *key);

/* Do both structs hold the same value for this row? */
bool settings_equal(const struct setting *row, const void *left, const void *right);

/* Frees what the struct owns by this table, and empties those members. */
void settings_clear(const struct setting *table, size_t rows, void *out);

/* Adds a copy of an item to a list. Returns 0, or -1 when memory is out. */
int settings_list_add(struct settings_list *list, const char *item, unsigned line);

/* Wipes and frees the items of a list that no table knows. */
void settings_list_clear(struct settings_list *list);

/* The line that set this key, or 0. */
unsigned settings_line(const struct settings_report *report, const char *section, const char *key);

/* Adds an error that only the caller can find, in the order of lines. */
void settings_report_add(struct settings_report *report, unsigned line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Is there nothing wrong? */
bool settings_report_is_empty(const struct settings_report *report);

/* Prints every error to stderr as "program: FILE:LINE: text". */
void settings_report_print(const struct settings_report *report, const char *program);

/* Writes one error as "FILE:LINE: text" to buf, cut to its size. index is below report->count.
 * Returns buf. */
const char *settings_report_text(const struct settings_report *report, size_t index, char *buf,
                                 size_t size);

void settings_report_clear(struct settings_report *report);

/*
 * Reads a secret from the first line of a file, which must be private. Returns a heap string to be
 * wiped and freed by settings_free_secret(), or NULL with what is wrong in message.
 */
char *settings_read_secret(const char *path, char *message, size_t message_size);

/*
 * Is this open file one that a secret may be in: neither read nor written by others, not written by
 * its group, and root's, ours, or that of the user we trust? Returns 0, or -1 with what is wrong,
 * and the command that mends it, in message. path is only for the message.
 */
int settings_secret_is_private(int fd, const char *path, char *message, size_t size);

/* Files of this user may hold secrets too, from here on: the one that we will become. Asks the
 * system for it, and may wait for that. NULL, or a user that there is not: nobody. */
void settings_trust_user(const char *user);

/* Overwrites and frees; NULL is allowed. */
void settings_free_secret(char *secret);

#endif
