/* Lays out and prints; knows nothing of what is in the cells but that it is ASCII. */
#include "table.h"

#include "say.h"

#include <stdlib.h>
#include <string.h>

#define GAP      2 /* blanks between columns */
#define ELLIPSIS "…"
#define PLAIN    "\033[0m"

struct row {
    char **cells;
    const char *colour;
};

struct table {
    const struct table_column *columns;
    size_t count;
    size_t width; /* 0: not cut */
    bool colours;
    bool settled;
    size_t shown;   /* columns from the left that fit */
    size_t *widths; /* of each column */
    struct row *rows;
    size_t row_count;
    size_t row_room;
};

static void settle(struct table *table);
static void widen(struct table *table);
static size_t total(const struct table *table);
static size_t total_of_least(const struct table *table);
static size_t widest_to_cut(const struct table *table);
static void print_titles(const struct table *table, FILE *out);
static void print_row(const struct table *table, const char *const *cells, FILE *out);
static void print_blanks(size_t count, FILE *out);
static void *grow(void *array, size_t count, size_t item_bytes);

struct table *table_new(const struct table_column *columns, size_t count, size_t width,
                        bool colours)
{
    struct table *table = calloc(1, sizeof(*table));

    if (!table)
        say_no_memory();
    table->columns = columns;
    table->count = count;
    table->width = width;
    table->colours = colours;
    table->shown = count;
    table->widths = grow(NULL, count, sizeof(*table->widths));
    for (size_t i = 0; i < count; i++) {
        table->widths[i] = strlen(columns[i].title);
        if (table->widths[i] < columns[i].room)
            table->widths[i] = columns[i].room;
    }
    return table;
}

void table_free(struct table *table)
{
    if (!table)
        return;
    for (size_t i = 0; i < table->row_count; i++) {
        for (size_t j = 0; j < table->count; j++)
            free(table->rows[i].cells[j]);
        free(table->rows[i].cells);
    }
    free(table->rows);
    free(table->widths);
    free(table);
}

void table_add(struct table *table, const char *const *cells, const char *colour)
{
    if (table->row_count == table->row_room) {
        table->row_room = table->row_room ? 2 * table->row_room : 64;
        table->rows = grow(table->rows, table->row_room, sizeof(*table->rows));
    }
    struct row *row = &table->rows[table->row_count++];

    *row = (struct row){.cells = grow(NULL, table->count, sizeof(*row->cells)), .colour = colour};
    for (size_t i = 0; i < table->count; i++) {
        row->cells[i] = say_printable(say_format("%s", cells[i]));
        if (!table->settled && strlen(row->cells[i]) > table->widths[i])
            table->widths[i] = strlen(row->cells[i]);
    }
}

void table_print(struct table *table, bool more, FILE *out)
{
    if (!table->settled) {
        settle(table);
        if (more)
            widen(table);
        print_titles(table, out);
    }
    for (size_t i = 0; i < table->row_count; i++) {
        const struct row *row = &table->rows[i];
        const bool coloured = table->colours && row->colour;

        if (coloured)
            fputs(row->colour, out);
        print_row(table, (const char *const *)row->cells, out);
        fputs(coloured ? PLAIN "\n" : "\n", out);
        for (size_t j = 0; j < table->count; j++)
            free(row->cells[j]);
        free(row->cells);
    }
    table->row_count = 0;
}

size_t table_shorten(const char *text, size_t width, char *buf, size_t size)
{
    const size_t len = strlen(text);

    if (len <= width || width == 0 || size < width + sizeof(ELLIPSIS)) {
        snprintf(buf, size, "%s", text);
        return len;
    }
    const size_t tail = (width - 1) / 2;
    const size_t head = width - 1 - tail;

    snprintf(buf, size, "%.*s" ELLIPSIS "%s", (int)head, text, text + len - tail);
    return width;
}

/* Columns that do not fit even where all are cut are left out, from the right; then the widest that
 * may be cut gives way until the rest fits. */
static void settle(struct table *table)
{
    table->settled = true;
    if (table->width == 0)
        return;
    while (table->shown > 1 && total_of_least(table) > table->width)
        table->shown--;
    while (total(table) > table->width) {
        const size_t widest = widest_to_cut(table);

        if (widest == table->shown)
            break;
        table->widths[widest]--;
    }
}

static void widen(struct table *table)
{
    for (size_t i = 0; i < table->shown && table->width > 0; i++) {
        while (table->widths[i] < table->columns[i].most && total(table) < table->width)
            table->widths[i]++;
    }
}

static size_t total(const struct table *table)
{
    size_t sum = (table->shown - 1) * GAP;

    for (size_t i = 0; i < table->shown; i++)
        sum += table->widths[i];
    return sum;
}

static size_t total_of_least(const struct table *table)
{
    size_t sum = (table->shown - 1) * GAP;

    for (size_t i = 0; i < table->shown; i++) {
        const size_t least = table->columns[i].least;

        sum += least > 0 && least < table->widths[i] ? least : table->widths[i];
    }
    return sum;
}

/* Returns a number behind the last column when none can be cut. */
static size_t widest_to_cut(const struct table *table)
{
    size_t widest = table->shown;

    for (size_t i = 0; i < table->shown; i++) {
        const size_t least = table->columns[i].least;

        if (least > 0 && table->widths[i] > least &&
            (widest == table->shown || table->widths[i] > table->widths[widest]))
            widest = i;
    }
    return widest;
}

static void print_titles(const struct table *table, FILE *out)
{
    const char **titles = grow(NULL, table->count, sizeof(*titles));

    for (size_t i = 0; i < table->count; i++)
        titles[i] = table->columns[i].title;
    print_row(table, titles, out);
    fputc('\n', out);
    free(titles);
}

/* Blanks are printed before a cell that has something in it, so that no line ends in them. */
static void print_row(const struct table *table, const char *const *cells, FILE *out)
{
    size_t owed = 0;

    for (size_t i = 0; i < table->shown; i++) {
        const size_t width = table->widths[i];
        const size_t len = strlen(cells[i]);

        if (table->width > 0 && len > width) {
            char *cut = grow(NULL, width + sizeof(ELLIPSIS), 1);

            table_shorten(cells[i], width, cut, width + sizeof(ELLIPSIS));
            print_blanks(owed, out);
            fputs(cut, out);
            owed = 0;
            free(cut);
        } else {
            const size_t padding = len < width ? width - len : 0;

            owed += table->columns[i].right ? padding : 0;
            if (len > 0) {
                print_blanks(owed, out);
                fputs(cells[i], out);
                owed = 0;
            }
            owed += table->columns[i].right ? 0 : padding;
        }
        owed += GAP;
    }
}

static void print_blanks(size_t count, FILE *out)
{
    fprintf(out, "%*s", (int)count, "");
}

static void *grow(void *array, size_t count, size_t item_bytes)
{
    void *grown = reallocarray(array, count, item_bytes);

    if (!grown)
        say_no_memory();
    return grown;
}
