/* The JSON report. Field names end in their unit; times are whole microseconds. */
#include "report.h"

#include "options.h"
#include "tally.h"

#include <jansson.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static json_t *asked(const struct report *report);
static json_t *achieved(const struct report *report);
static json_t *clients(const struct report *report);
static void add_detail(json_t *parent, const struct tally_row *row);
static json_t *latencies(const struct tally *tally);
static json_t *summary(const struct histogram *histogram);
static json_t *server(const struct report *report);
static json_t *usage_object(const struct server_usage *usage);

int report_write_json(const struct report *report, FILE *out)
{
    const struct tally *tally = report->tally;
    json_t *root = json_pack(
        "{s:i, s:s, s:s, s:o, s:o, s:o, s:o, s:{s:I, s:I, s:o}, s:I, s:{s:I, s:I}, "
        "s:{s:I, s:I}, s:o}",
        "schema", REPORT_SCHEMA, "program", "cliser-stress", "version", CLISER_VERSION, "asked",
        asked(report), "achieved", achieved(report), "clients", clients(report), "latency_us",
        latencies(tally), "keepalive", "received", (json_int_t)tally->keepalives, "answered",
        (json_int_t)tally->keepalives_answered, "gap_us", summary(&tally->keepalive_gap),
        "shutdowns", (json_int_t)tally->shutdowns, "bytes", "in", (json_int_t)tally->bytes.in,
        "out", (json_int_t)tally->bytes.out, "generator", "cpu_us", (json_int_t)report->own_cpu_us,
        "rss_bytes", (json_int_t)report->own_rss_bytes, "server", server(report));
    int result = -1;

    if (!root) {
        errno = ENOMEM;
        return -1;
    }
    if (json_dumpf(root, out, JSON_INDENT(2)) == 0 && fputc('\n', out) != EOF && fflush(out) == 0)
        result = 0;
    json_decref(root);
    return result;
}

static json_t *asked(const struct report *report)
{
    const struct stress_options *options = report->options;

    return json_pack(
        "{s:s, s:s?, s:I, s:o, s:I, s:I, s:I, s:b, s:f, s:s, s:b, s:b}", "server", report->server,
        "sources", report->sources, "clients", (json_int_t)options->clients, "rate_per_s",
        options->rate > 0 ? json_integer((json_int_t)options->rate) : json_null(), "inflight",
        (json_int_t)options->inflight, "hold_ms", (json_int_t)options->hold_ms, "timeout_ms",
        (json_int_t)options->timeout_ms, "churn", (int)options->churn, "silent_percent",
        (double)options->silent / 1000, "id_prefix", options->id_prefix, "tls", (int)options->tls,
        "tls_verified", options->tls && !options->insecure);
}

static json_t *achieved(const struct report *report)
{
    const struct fleet_progress *progress = report->progress;

    return json_pack("{s:b, s:b, s:I, s:I, s:f, s:I, s:I, s:I, s:s?}", "ok", (int)report->ok,
                     "interrupted", (int)progress->interrupted, "connected",
                     (json_int_t)progress->welcomed, "connected_at_once",
                     (json_int_t)progress->up_most, "rate_per_s", report_rate(report), "elapsed_us",
                     (json_int_t)progress->elapsed_us, "connecting_us",
                     (json_int_t)progress->connecting_us, "held_us", (json_int_t)progress->held_us,
                     "tls_version", progress->tls_version);
}

/* A number for each way to end; for those with a detail an object with a number for each. */
static json_t *clients(const struct report *report)
{
    const size_t found = tally_rows(report->tally, NULL, 0);
    struct tally_row *rows = calloc(found + 1, sizeof(*rows));
    json_t *object = json_object();

    if (!rows) {
        json_decref(object);
        return NULL;
    }
    tally_rows(report->tally, rows, found);
    json_object_set_new(object, "attempted", json_integer((json_int_t)tally_sum(report->tally)));
    json_object_set_new(object, "failed", json_integer((json_int_t)tally_failures(report->tally)));
    for (size_t i = 0; i < TALLY_OUTCOME_COUNT; i++) {
        const enum tally_outcome outcome = (enum tally_outcome)i;
        const struct tally_outcome_info *info = tally_outcome_info(outcome);

        json_object_set_new(object, info->name,
                            info->detail == TALLY_NOTHING
                                ? json_integer((json_int_t)tally_outcome(report->tally, outcome))
                                : json_object());
    }
    for (size_t i = 0; i < found; i++) {
        const struct tally_outcome_info *info = tally_outcome_info(rows[i].outcome);

        if (info->detail != TALLY_NOTHING)
            add_detail(json_object_get(object, info->name), &rows[i]);
    }
    free(rows);
    return object;
}

static void add_detail(json_t *parent, const struct tally_row *row)
{
    const enum tally_detail kind = tally_outcome_info(row->outcome)->detail;
    const bool is_errno = kind == TALLY_ERRNO;
    const char *name = is_errno && row->detail > 0 ? strerrorname_np(row->detail) : NULL;
    char number[16];

    snprintf(number, sizeof(number), "%d", row->detail);
    if (is_errno && row->detail == 0)
        name = "closed";
    if (kind == TALLY_TLS_FAILURE)
        name = tls_failure_name((enum tls_failure)row->detail);
    json_object_set_new(parent, name ? name : number, json_integer((json_int_t)row->clients));
}

static json_t *latencies(const struct tally *tally)
{
    json_t *object = json_object();

    for (size_t i = 0; i < TALLY_PHASE_COUNT; i++)
        json_object_set_new(object, tally_phase_info((enum tally_phase)i)->name,
                            summary(&tally->phases[i]));
    return object;
}

static json_t *summary(const struct histogram *histogram)
{
    return json_pack("{s:I, s:I, s:f, s:I, s:I, s:I, s:I, s:I}", "count",
                     (json_int_t)histogram_count(histogram), "min",
                     (json_int_t)histogram_min(histogram), "mean", histogram_mean(histogram), "p50",
                     (json_int_t)histogram_percentile(histogram, HISTOGRAM_P50), "p90",
                     (json_int_t)histogram_percentile(histogram, HISTOGRAM_P90), "p99",
                     (json_int_t)histogram_percentile(histogram, HISTOGRAM_P99), "p99_9",
                     (json_int_t)histogram_percentile(histogram, HISTOGRAM_P99_9), "max",
                     (json_int_t)histogram_max(histogram));
}

static json_t *server(const struct report *report)
{
    const struct report_server *usage = &report->usage;
    const double per_client = report_bytes_per_client(report);

    if (usage->pid == 0)
        return json_pack("{s:s}", "not_measured", usage->why_not);
    return json_pack("{s:i, s:I, s:o, s:o, s:o, s:o}", "pid", (int)usage->pid, "cpu_us",
                     (json_int_t)(usage->after.cpu_us - usage->before.cpu_us), "before",
                     usage_object(&usage->before), "all_up",
                     usage->held ? usage_object(&usage->while_held) : json_null(), "end",
                     usage_object(&usage->after), "bytes_per_client",
                     per_client >= 0 ? json_integer((json_int_t)per_client) : json_null());
}

static json_t *usage_object(const struct server_usage *usage)
{
    return json_pack("{s:I, s:I}", "cpu_us", (json_int_t)usage->cpu_us, "rss_bytes",
                     (json_int_t)usage->rss_bytes);
}
