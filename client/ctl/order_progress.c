/* Draws what it is given; asks nobody, and decides nothing about the order. */
#include "order_progress.h"

#include "base/clock.h"
#include "fields.h"
#include "order.h"
#include "since.h"
#include "terminal.h"
#include "text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Lines that are not waves: headline, bar, titles, sum, and the one with the cursor. */
#define OTHER_LINES 5

#define BAR_COLUMNS 24

static void draw(struct order_progress *progress, const json_t *order);
static void print_headline(const json_t *order, size_t first, size_t shown, size_t waves,
                           size_t width, FILE *out);
static void print_bar(const json_t *totals, size_t width, FILE *out);
static void print_cut(const char *text, size_t width, FILE *out);
static void print_changes(struct order_progress *progress, const json_t *order);
static void print_change(size_t number, const json_t *wave);

void order_progress_init(struct order_progress *progress, enum order_progress_mode mode)
{
    *progress = (struct order_progress){.mode = mode, .block = {.out = stderr}};
}

void order_progress_show(struct order_progress *progress, const json_t *order)
{
    if (progress->mode == ORDER_PROGRESS_LIVE)
        draw(progress, order);
    else if (progress->mode == ORDER_PROGRESS_LINES)
        print_changes(progress, order);
}

void order_progress_hide(struct order_progress *progress)
{
    live_block_clear(&progress->block);
}

size_t order_progress_first(size_t waves, size_t current, size_t room)
{
    const size_t index = current > 0 ? current - 1 : 0;

    if (waves <= room || index < room / 2)
        return 0;
    return index - room / 2 < waves - room ? index - room / 2 : waves - room;
}

/* The size is asked for each time: windows change while orders go on. */
static void draw(struct order_progress *progress, const json_t *order)
{
    const struct terminal_size size = terminal_size(STDERR_FILENO);
    const size_t waves = json_array_size(json_object_get(order, "waves"));
    const size_t room = size.rows > OTHER_LINES + 1 ? size.rows - OTHER_LINES : 1;
    const size_t shown = waves < room ? waves : room;
    const size_t first = order_progress_first(waves, field_count(order, "wave"), room);
    struct order_page page = {
        .width = size.columns - 1, /* so that no line wraps */
        .colours = terminal_colours(STDERR_FILENO),
    };
    char *text = NULL;
    size_t text_len = 0;

    page.out = open_memstream(&text, &text_len);
    if (!page.out)
        say_no_memory();
    print_headline(order, first, shown, waves, page.width, page.out);
    print_bar(json_object_get(order, "totals"), page.width, page.out);
    order_print_waves(order, first, shown, &page);
    if (fclose(page.out) != 0)
        say_no_memory();
    live_block_draw(&progress->block, text);
    free(text);
}

static void print_headline(const json_t *order, size_t first, size_t shown, size_t waves,
                           size_t width, FILE *out)
{
    const int64_t passed = clock_wall_ms() / 1000 - field_int(order, "created");
    char span[SINCE_BYTES];
    char which[64] = "";

    if (shown < waves)
        snprintf(which, sizeof(which), ", shown are %zu to %zu", first + 1, first + shown);
    char *text = say_format("order %" PRId64 ": %s for %s, wave %" PRIu64 " of %zu%s",
                            field_int(order, "id"), field_text(order, "state"),
                            since_span(passed > 0 ? (uint64_t)passed : 0, span),
                            field_count(order, "wave"), waves, which);
    print_cut(say_printable(text), width, out);
    free(text);
}

/* Of all that are to go, how many have gone. */
static void print_bar(const json_t *totals, size_t width, FILE *out)
{
    const uint64_t gone = field_count(totals, "gone");
    const uint64_t told = field_count(totals, "told");
    const uint64_t all = told + field_count(totals, "pending");
    const size_t full = all > 0 ? (size_t)((double)gone / (double)all * BAR_COLUMNS) : 0;
    char bar[BAR_COLUMNS + 1];
    char n[3][TEXT_BYTES];

    memset(bar, '.', BAR_COLUMNS);
    memset(bar, '#', full < BAR_COLUMNS ? full : BAR_COLUMNS);
    bar[BAR_COLUMNS] = '\0';
    char *text =
        say_format("[%s] %s of %s gone, %s told and still up", bar, text_count(gone, n[0]),
                   text_count(all, n[1]), text_count(field_count(totals, "still_up"), n[2]));
    print_cut(text, width, out);
    free(text);
}

static void print_cut(const char *text, size_t width, FILE *out)
{
    fprintf(out, "%.*s\n", (int)width, text);
}

static void print_changes(struct order_progress *progress, const json_t *order)
{
    const json_t *wave;
    size_t i;

    json_array_foreach (json_object_get(order, "waves"), i, wave) {
        const char *state = field_text(wave, "state");

        if (i >= ORDER_PROGRESS_WAVES || strcmp(progress->states[i], state) == 0)
            continue;
        snprintf(progress->states[i], sizeof(progress->states[i]), "%s", state);
        if (strcmp(state, "pending") != 0)
            print_change(i + 1, wave);
    }
    fflush(stdout);
}

static void print_change(size_t number, const json_t *wave)
{
    const bool running = strcmp(field_text(wave, "state"), "running") == 0;
    char *match = order_patterns(wave);
    char n[3][TEXT_BYTES];

    say_out("wave %zu (%s) %s: ", number, match, field_text(wave, "state"));
    free(match);
    if (running)
        printf("%s match, %s not connected\n", text_count(field_count(wave, "targets"), n[0]),
               text_count(field_count(wave, "not_connected"), n[1]));
    else
        printf("%s told, %s gone, %s still up\n", text_count(field_count(wave, "told"), n[0]),
               text_count(field_count(wave, "gone"), n[1]),
               text_count(field_count(wave, "still_up"), n[2]));
}
