/*
 * Rows in columns. On a terminal a table is as wide as that and what is too long is shortened;
 * elsewhere nothing is ever cut. Widths are settled by the first rows that are printed, so that a
 * table of any length needs no more memory than its pages.
 */
#ifndef CTL_TABLE_H
#define CTL_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct table;

struct table_column {
    const char *title;
    bool right;   /* numbers */
    size_t least; /* may be cut down to so many columns; 0: not at all */
    size_t room;  /* at least as wide as this, for what later pages bring */
    size_t most;  /* and up to this where there is room; 0: no wider than its texts */
};

/*
 * width is the terminal's, 0 for anything else. Without colours the colour of a row is not used.
 * The columns must outlive the table. To be freed.
 */
struct table *table_new(const struct table_column *columns, size_t count, size_t width,
                        bool colours);
void table_free(struct table *table);

/* Adds a row of one text a column; they are copied. colour is an escape sequence, or NULL. */
void table_add(struct table *table, const char *const *cells, const char *colour);

/* Prints the rows that were added since the last time; the first time with the titles above. When
 * more are to come, columns get the room that is left then, for longer texts in them. */
void table_print(struct table *table, bool more, FILE *out);

/* Writes text to buf of size bytes, in at most width columns: what is longer loses its middle to
 * "…", since names differ at their ends. Returns the columns that it takes. */
size_t table_shorten(const char *text, size_t width, char *buf, size_t size);

#endif
