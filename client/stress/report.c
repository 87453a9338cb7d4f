/* The numbers that both reports share, and the table. */
#include "report.h"

#include "base/units.h"
#include "cliser/proto.h"
#include "options.h"
#include "tally.h"
#include "text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

/* With more kinds of endings than this, the rest is one line: the table has to fit a screen, and
 * the JSON report has them all. */
#define MAX_ROWS 12
#define ALL_ROWS 64

/* Where what follows a label begins, and where a line ends. */
#define INDENT 11
#define WIDTH  80

#define RED    "\033[31m"
#define GREEN  "\033[32m"
#define PLAIN  "\033[0m"

/* A line of parts with commas between them, broken where it would get too wide. */
struct line {
    FILE *out;
    int column;
};

static void begin_line(struct line *line, FILE *out, const char *label);
static void add_part(struct line *line, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void print_asked(const struct report *report, FILE *out);
static void print_achieved(const struct report *report, FILE *out);
static void print_verdict(const struct report *report, FILE *out, bool colours);
static void print_clients(const struct report *report, FILE *out);
static void describe(const struct tally_row *row, bool churn, char *text, size_t size);
static void print_phases(const struct report *report, FILE *out);
static void print_times(FILE *out, const char *name, const struct histogram *histogram);
static void print_keepalives(const struct report *report, FILE *out);
static void print_costs(const struct report *report, FILE *out);
static void print_server(const struct report *report, FILE *out);
static const char *share_of_time(uint64_t cpu_us, uint64_t time_us, char *buf);

void report_print(const struct report *report, FILE *out, bool colours)
{
    print_asked(report, out);
    print_achieved(report, out);
    print_verdict(report, out, colours);
    print_clients(report, out);
    print_phases(report, out);
    print_keepalives(report, out);
    print_costs(report, out);
    fflush(out);
}

double report_rate(const struct report *report)
{
    const uint64_t welcomed = report->progress->welcomed;

    if (welcomed < 2 || report->progress->welcoming_us == 0)
        return 0;
    return (double)(welcomed - 1) * 1e6 / (double)report->progress->welcoming_us;
}

double report_bytes_per_client(const struct report *report)
{
    const struct report_server *usage = &report->usage;

    if (!usage->held || report->progress->up_most == 0)
        return -1;
    return ((double)usage->while_held.rss_bytes - (double)usage->before.rss_bytes) /
           (double)report->progress->up_most;
}

static void begin_line(struct line *line, FILE *out, const char *label)
{
    fprintf(out, "%-*s", INDENT, label);
    *line = (struct line){.out = out, .column = INDENT};
}

static void add_part(struct line *line, const char *format, ...)
{
    char part[256];
    va_list args;

    va_start(args, format);
    vsnprintf(part, sizeof(part), format, args);
    va_end(args);

    const int len = (int)strlen(part);
    const bool first = line->column == INDENT;
    /* Two for the comma and the blank before, one for a comma behind. */
    if (!first && line->column + 2 + len + 1 > WIDTH) {
        fprintf(line->out, ",\n%*s", INDENT, "");
        line->column = INDENT;
    } else if (!first) {
        fputs(", ", line->out);
        line->column += 2;
    }
    fputs(part, line->out);
    line->column += len;
}

static void print_asked(const struct report *report, FILE *out)
{
    const struct stress_options *options = report->options;
    char n[TEXT_BYTES];
    char duration[UNITS_TEXT_BYTES];
    struct line line;

    begin_line(&line, out, "server");
    add_part(&line, "%.*s", WIDTH - INDENT - 1, report->server);
    if (report->sources)
        add_part(&line, "from %s", report->sources);
    fputc('\n', out);

    begin_line(&line, out, "asked");
    add_part(&line, "%s clients", text_count(options->clients, n));
    if (options->rate > 0)
        add_part(&line, "%s/s", text_count(options->rate, n));
    add_part(&line, "%s in flight", text_count(options->inflight, n));
    if (options->churn)
        add_part(&line, "leaving at 140");
    else
        add_part(&line, "held %s", units_format_duration(options->hold_ms, duration));
    if (options->silent > 0)
        add_part(&line, "%s silent", text_share(options->silent, n));
    if (options->tls)
        add_part(&line, options->insecure ? "TLS without verification" : "TLS");
    fputc('\n', out);
}

static void print_achieved(const struct report *report, FILE *out)
{
    const struct fleet_progress *progress = report->progress;
    char n[TEXT_BYTES];
    struct line line;

    begin_line(&line, out, "achieved");
    add_part(&line, "%s connected", text_count(progress->welcomed, n));
    if (report_rate(report) > 0)
        add_part(&line, "%s/s", text_count((uint64_t)(report_rate(report) + 0.5), n));
    if (!report->options->churn)
        add_part(&line, "%s at once", text_count(progress->up_most, n));
    if (progress->held_us > 0)
        add_part(&line, "held %s", text_time(progress->held_us, n));
    add_part(&line, "%s in all", text_time(progress->elapsed_us, n));
    if (progress->tls_version)
        add_part(&line, "%s", progress->tls_version);
    if (progress->interrupted)
        add_part(&line, "interrupted");
    fputc('\n', out);
}

static void print_verdict(const struct report *report, FILE *out, bool colours)
{
    const uint64_t failures = tally_failures(report->tally);
    char n[TEXT_BYTES];

    fprintf(out, "result     %s", colours ? (report->ok ? GREEN : RED) : "");
    if (report->ok && report->progress->interrupted)
        fprintf(out, "ok: nobody had failed when the run was stopped");
    else if (report->ok)
        fprintf(out, "ok: every client stayed up as long as it should");
    else
        fprintf(out, "FAILED: %s client%s should have stayed up and did not",
                text_count(failures, n), failures == 1 ? "" : "s");
    fprintf(out, "%s\n\n", colours ? PLAIN : "");
}

static void print_clients(const struct report *report, FILE *out)
{
    struct tally_row rows[ALL_ROWS];
    const size_t found = tally_rows(report->tally, rows, ALL_ROWS);
    const size_t known = found < ALL_ROWS ? found : ALL_ROWS;
    const size_t shown = known <= MAX_ROWS ? known : MAX_ROWS - 1;
    uint64_t rest = tally_sum(report->tally);
    char n[TEXT_BYTES];
    char text[160];

    for (size_t i = 0; i < shown; i++) {
        describe(&rows[i], report->options->churn, text, sizeof(text));
        fprintf(out, "%-62.62s %15s\n", text, text_count(rows[i].clients, n));
        rest -= rows[i].clients;
    }
    if (found > shown) {
        snprintf(text, sizeof(text), "%zu other ways to end (see --json)", found - shown);
        fprintf(out, "%-62.62s %15s\n", text, text_count(rest, n));
    }
    fprintf(out, "%-62s %15s\n\n", "= clients asked for", text_count(tally_sum(report->tally), n));
}

static void describe(const struct tally_row *row, bool churn, char *text, size_t size)
{
    const struct tally_outcome_info *info = tally_outcome_info(row->outcome);
    const struct proto_code_info *code = proto_code_info(row->detail);

    switch (info->detail) {
    case TALLY_NOTHING:
        /* With churn nobody should stay longer than that. */
        snprintf(text, size, "%s",
                 churn && row->outcome == TALLY_UP ? "got 140 and left" : info->text);
        break;
    case TALLY_CODE:
        snprintf(text, size, "%s: %d %s", info->text, row->detail, code ? code->text : "");
        break;
    case TALLY_ERRNO:
        snprintf(text, size, "%s: %s", info->text,
                 row->detail == 0 ? "closed by the server" : strerror(row->detail));
        break;
    case TALLY_TLS_FAILURE:
        snprintf(text, size, "%s: %s", info->text, tls_failure_text((enum tls_failure)row->detail));
        break;
    }
}

static void print_phases(const struct report *report, FILE *out)
{
    fprintf(out, "%-26s %8s %8s %8s %8s %8s %8s\n", "milliseconds", "min", "p50", "p90", "p99",
            "p99.9", "max");
    for (size_t i = 0; i < TALLY_PHASE_COUNT; i++) {
        /* Without a rate no connect has a due time that it could miss. */
        if (i == TALLY_LATE && report->options->rate == 0)
            continue;
        if (i == TALLY_TLS && !report->options->tls)
            continue;
        print_times(out, tally_phase_info((enum tally_phase)i)->text, &report->tally->phases[i]);
    }
    if (histogram_count(&report->tally->keepalive_gap) > 0)
        print_times(out, "between two 100s", &report->tally->keepalive_gap);
    fprintf(out, "\n");
}

static void print_times(FILE *out, const char *name, const struct histogram *histogram)
{
    static const uint32_t percentiles[] = {HISTOGRAM_P50, HISTOGRAM_P90, HISTOGRAM_P99,
                                           HISTOGRAM_P99_9, HISTOGRAM_P100};
    char n[TEXT_BYTES];

    if (histogram_count(histogram) == 0) {
        fprintf(out, "%-26s %8s\n", name, "none");
        return;
    }
    fprintf(out, "%-26s %8s", name, text_ms(histogram_min(histogram), n));
    for (size_t i = 0; i < sizeof(percentiles) / sizeof(percentiles[0]); i++)
        fprintf(out, " %8s", text_ms(histogram_percentile(histogram, percentiles[i]), n));
    fprintf(out, "\n");
}

static void print_keepalives(const struct report *report, FILE *out)
{
    const struct tally *tally = report->tally;
    char n[2][TEXT_BYTES];

    if (tally->keepalives > 0)
        fprintf(out, "keep-alive %s came, %s answered\n", text_count(tally->keepalives, n[0]),
                text_count(tally->keepalives_answered, n[1]));
    if (tally->shutdowns > 0)
        fprintf(out, "shutdown   %s clients were told 130 and answered\n",
                text_count(tally->shutdowns, n[0]));
}

static void print_costs(const struct report *report, FILE *out)
{
    const uint64_t elapsed_us = report->progress->elapsed_us;
    char n[4][TEXT_BYTES];

    fprintf(out, "bytes      %s in, %s out\n", text_bytes(report->tally->bytes.in, n[0]),
            text_bytes(report->tally->bytes.out, n[1]));
    fprintf(out, "generator  CPU %s (%s of one processor), %s\n",
            text_time(report->own_cpu_us, n[0]),
            share_of_time(report->own_cpu_us, elapsed_us, n[1]),
            text_bytes(report->own_rss_bytes, n[2]));
    if (report->usage.pid == 0)
        fprintf(out, "server     not measured: %s\n", report->usage.why_not);
    else
        print_server(report, out);
}

static void print_server(const struct report *report, FILE *out)
{
    const struct report_server *usage = &report->usage;
    const uint64_t cpu_us = usage->after.cpu_us - usage->before.cpu_us;
    const double per_client = report_bytes_per_client(report);
    char n[TEXT_BYTES];
    char share[TEXT_BYTES];
    struct line line;

    begin_line(&line, out, "server");
    add_part(&line, "pid %d", (int)usage->pid);
    add_part(&line, "CPU %s (%s of one processor)", text_time(cpu_us, n),
             share_of_time(cpu_us, report->progress->elapsed_us, share));
    if (usage->held)
        add_part(&line, "%s of it while held",
                 text_time(usage->after.cpu_us - usage->while_held.cpu_us, n));
    fputc('\n', out);

    begin_line(&line, out, "");
    add_part(&line, "memory %s before", text_bytes(usage->before.rss_bytes, n));
    if (usage->held)
        add_part(&line, "%s with all up", text_bytes(usage->while_held.rss_bytes, n));
    add_part(&line, "%s at the end", text_bytes(usage->after.rss_bytes, n));
    if (per_client >= 0)
        add_part(&line, "%s a client", text_bytes((uint64_t)per_client, n));
    fputc('\n', out);
}

static const char *share_of_time(uint64_t cpu_us, uint64_t time_us, char *buf)
{
    snprintf(buf, TEXT_BYTES, "%.1f%%", time_us > 0 ? 100 * (double)cpu_us / (double)time_us : 0.0);
    return buf;
}
