/*
 * libcurl behind a small face. All requests are transfers of one multi handle, so that a stream
 * and a request can be under way together, and a wait ends with Ctrl-C.
 */
#include "api.h"

#include "base/clock.h"
#include "interrupt.h"

#include <curl/curl.h>

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/stat.h>

/* Of the longest silence that a server may have a reason for: a ping that is not answered takes
 * 5 s; a stream has a comment every 15 s. */
#define QUIET_CALL_US   (UINT64_C(20) * CLOCK_US_PER_SEC)
#define QUIET_STREAM_US (UINT64_C(45) * CLOCK_US_PER_SEC)

/* A million IDs are some 70 MB at most. What is longer is no answer. */
#define MAX_BODY_BYTES (UINT64_C(1) << 30)

/* Enough of a page that is no API's to tell that it is none. */
#define MAX_ERROR_BYTES 65536

struct api {
    struct api_options options;
    CURLM *multi;
    struct curl_slist *headers; /* of requests without a body */
    struct curl_slist *change;  /* of POST and DELETE */
};

/* One request and what came of it. */
struct transfer {
    struct api *api;
    CURL *easy;
    struct curl_slist *headers; /* its own, or NULL */
    char *url;
    char *sent;
    char *received;
    size_t received_len;
    size_t received_room;
    bool too_long;
    uint64_t active_us; /* when something came last */
    uint64_t quiet_us;  /* how long nothing may come */
    bool done;
    bool quiet;
    CURLcode code;
    char error[CURL_ERROR_SIZE];
    api_bytes_fn *bytes; /* of a stream */
    void *arg;
};

struct api_stream {
    struct transfer transfer;
};

static void transfer_init(struct transfer *transfer, struct api *api, const char *path,
                          uint64_t quiet_us);
static void transfer_clear(struct transfer *transfer);
static void transfer_start(struct transfer *transfer);
static size_t transfer_on_bytes(char *bytes, size_t size, size_t count, void *arg);
static int keep(struct transfer *transfer, const char *bytes, size_t len);
static bool is_quiet(struct transfer *transfer);
static long status_of(const struct transfer *transfer);
static void collect_done(struct api *api);
static void read_reply(const struct transfer *transfer, struct api_reply *reply);
static void read_answer(const struct transfer *transfer, struct api_reply *reply);
static void read_failure(const struct transfer *transfer, struct api_reply *reply);
static void word_refusal(const struct api *api, struct api_reply *reply);
static void word_no_connection(const struct transfer *transfer, struct api_reply *reply);
static void word_no_permission(const char *path, char *message, size_t size);
static struct curl_slist *append(struct curl_slist *list, const char *line);
static const char *server_name(const struct api *api);
static void set(CURLcode code);

struct api *api_new(const struct api_options *options)
{
    struct api *api = calloc(1, sizeof(*api));

    if (!api || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        say_no_memory();
    api->options = *options;
    api->multi = curl_multi_init();
    if (!api->multi)
        say_no_memory();
    api->headers = append(NULL, "Accept: application/json");
    if (options->url) {
        char *authorization = say_format("Authorization: Bearer %s", options->token);

        api->headers = append(api->headers, authorization);
        api->change = append(NULL, authorization);
        free(authorization);
    }
    api->change = append(api->change, "Content-Type: application/json");
    /* Waiting for "100 Continue" would only take time. */
    api->change = append(api->change, "Expect:");
    return api;
}

void api_free(struct api *api)
{
    if (!api)
        return;
    curl_multi_cleanup(api->multi);
    curl_slist_free_all(api->headers);
    curl_slist_free_all(api->change);
    free(api);
    curl_global_cleanup();
}

enum api_result api_call(struct api *api, const char *method, const char *path, const json_t *body,
                         struct api_reply *reply)
{
    struct transfer transfer;
    const bool changes = strcmp(method, "GET") != 0;

    transfer_init(&transfer, api, path, QUIET_CALL_US);
    if (changes) {
        transfer.sent = body ? json_dumps(body, JSON_COMPACT) : strdup("");
        if (!transfer.sent)
            say_no_memory();
        set(curl_easy_setopt(transfer.easy, CURLOPT_POSTFIELDS, transfer.sent));
        set(curl_easy_setopt(transfer.easy, CURLOPT_CUSTOMREQUEST, method));
        set(curl_easy_setopt(transfer.easy, CURLOPT_HTTPHEADER, api->change));
        /* A request on a connection that turns out to be closed is sent again, by itself. An order
         * must not be given twice. */
        set(curl_easy_setopt(transfer.easy, CURLOPT_FRESH_CONNECT, 1L));
    }
    transfer_start(&transfer);
    while (!transfer.done && !is_quiet(&transfer) && !interrupt_seen())
        api_turn(api, 1000);
    read_reply(&transfer, reply);
    transfer_clear(&transfer);
    return reply->result;
}

void api_reply_clear(struct api_reply *reply)
{
    json_decref(reply->body);
    reply->body = NULL;
}

/* What the server finds senseless can only be what it was asked to do. */
enum ctl_exit api_complain(const struct api_reply *reply)
{
    if (reply->result != API_INTERRUPTED)
        say_error("%s", reply->message);
    return reply->status == 400 ? CTL_USAGE : CTL_FAILED;
}

struct api_stream *api_stream_open(struct api *api, const char *path, const char *last_id,
                                   api_bytes_fn *bytes, void *arg)
{
    struct api_stream *stream = calloc(1, sizeof(*stream));

    if (!stream)
        say_no_memory();
    struct transfer *transfer = &stream->transfer;

    transfer_init(transfer, api, path, QUIET_STREAM_US);
    transfer->bytes = bytes;
    transfer->arg = arg;
    for (const struct curl_slist *one = api->headers->next; one; one = one->next)
        transfer->headers = append(transfer->headers, one->data);
    transfer->headers = append(transfer->headers, "Accept: text/event-stream");
    if (last_id[0] != '\0') {
        char *line = say_format("Last-Event-ID: %s", last_id);

        transfer->headers = append(transfer->headers, line);
        free(line);
    }
    set(curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER, transfer->headers));
    transfer_start(transfer);
    return stream;
}

void api_stream_close(struct api_stream *stream)
{
    if (!stream)
        return;
    transfer_clear(&stream->transfer);
    free(stream);
}

bool api_stream_is_open(const struct api_stream *stream)
{
    return status_of(&stream->transfer) == 200 && !stream->transfer.done;
}

bool api_stream_is_over(struct api_stream *stream, struct api_reply *reply)
{
    struct transfer *transfer = &stream->transfer;

    if (!transfer->done && !is_quiet(transfer))
        return false;
    if (transfer->code == CURLE_OK && status_of(transfer) == 200 && !transfer->quiet) {
        *reply = (struct api_reply){.result = API_UNREACHABLE};
        snprintf(reply->message, sizeof(reply->message), "%s ended the stream of events",
                 server_name(transfer->api));
    } else {
        read_reply(transfer, reply);
    }
    return true;
}

/* The poll comes first: for a transfer that is new it returns at once. */
void api_turn(struct api *api, int timeout_ms)
{
    struct curl_waitfd interrupted = {.fd = interrupt_fd(), .events = CURL_WAIT_POLLIN};
    int running = 0;

    if (!interrupt_seen())
        (void)curl_multi_poll(api->multi, &interrupted, interrupted.fd >= 0, timeout_ms, NULL);
    (void)curl_multi_perform(api->multi, &running);
    collect_done(api);
}

static void transfer_init(struct transfer *transfer, struct api *api, const char *path,
                          uint64_t quiet_us)
{
    const struct api_options *options = &api->options;
    const char *base = options->url ? options->url : "http://localhost";
    size_t base_len = strlen(base);

    while (base[base_len - 1] == '/')
        base_len--;
    *transfer = (struct transfer){.api = api, .quiet_us = quiet_us};
    transfer->url = say_format("%.*s%s", (int)base_len, base, path);
    transfer->easy = curl_easy_init();
    if (!transfer->easy)
        say_no_memory();
    set(curl_easy_setopt(transfer->easy, CURLOPT_URL, transfer->url));
    /* ".." is an ID as good as any. */
    set(curl_easy_setopt(transfer->easy, CURLOPT_PATH_AS_IS, 1L));
    set(curl_easy_setopt(transfer->easy, CURLOPT_PROTOCOLS_STR, "http,https"));
    /* The token, and orders, are for the server that was named, and for nobody on the way. */
    set(curl_easy_setopt(transfer->easy, CURLOPT_PROXY, ""));
    if (!options->url)
        set(curl_easy_setopt(transfer->easy, CURLOPT_UNIX_SOCKET_PATH, options->socket));
    set(curl_easy_setopt(transfer->easy, CURLOPT_USERAGENT, PROGRAM "/" CLISER_VERSION));
    set(curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER, api->headers));
    set(curl_easy_setopt(transfer->easy, CURLOPT_NOSIGNAL, 1L));
    set(curl_easy_setopt(transfer->easy, CURLOPT_ERRORBUFFER, transfer->error));
    set(curl_easy_setopt(transfer->easy, CURLOPT_WRITEFUNCTION, transfer_on_bytes));
    set(curl_easy_setopt(transfer->easy, CURLOPT_WRITEDATA, transfer));
    set(curl_easy_setopt(transfer->easy, CURLOPT_PRIVATE, transfer));
}

static void transfer_clear(struct transfer *transfer)
{
    (void)curl_multi_remove_handle(transfer->api->multi, transfer->easy);
    curl_easy_cleanup(transfer->easy);
    curl_slist_free_all(transfer->headers);
    free(transfer->url);
    free(transfer->sent);
    free(transfer->received);
}

static void transfer_start(struct transfer *transfer)
{
    transfer->active_us = clock_monotonic_us();
    if (curl_multi_add_handle(transfer->api->multi, transfer->easy) != CURLM_OK)
        say_no_memory();
}

static size_t transfer_on_bytes(char *bytes, size_t size, size_t count, void *arg)
{
    struct transfer *transfer = arg;
    const size_t len = size * count;

    transfer->active_us = clock_monotonic_us();
    if (transfer->bytes && status_of(transfer) == 200)
        transfer->bytes(transfer->arg, bytes, len);
    else if (keep(transfer, bytes, len) < 0)
        return CURL_WRITEFUNC_ERROR;
    return len;
}

static int keep(struct transfer *transfer, const char *bytes, size_t len)
{
    const uint64_t most = status_of(transfer) < 400 ? MAX_BODY_BYTES : MAX_ERROR_BYTES;

    if (transfer->received_len + len > most) {
        transfer->too_long = true;
        return -1;
    }
    if (transfer->received_len + len > transfer->received_room) {
        transfer->received_room = 2 * (transfer->received_len + len);
        char *grown = realloc(transfer->received, transfer->received_room);

        if (!grown)
            say_no_memory();
        transfer->received = grown;
    }
    memcpy(transfer->received + transfer->received_len, bytes, len);
    transfer->received_len += len;
    return 0;
}

/* Our own measure: libcurl's takes a stream that has a few bytes now and then for a dead one. */
static bool is_quiet(struct transfer *transfer)
{
    if (!transfer->done && clock_monotonic_us() - transfer->active_us > transfer->quiet_us)
        transfer->quiet = true;
    return transfer->quiet;
}

static long status_of(const struct transfer *transfer)
{
    long status = 0;

    (void)curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

static void collect_done(struct api *api)
{
    const CURLMsg *message;
    int left = 0;

    while ((message = curl_multi_info_read(api->multi, &left))) {
        struct transfer *transfer = NULL;

        if (message->msg != CURLMSG_DONE ||
            curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer) != CURLE_OK)
            continue;
        transfer->done = true;
        transfer->code = message->data.result;
    }
}

static void read_reply(const struct transfer *transfer, struct api_reply *reply)
{
    *reply = (struct api_reply){.result = API_DONE};
    if (transfer->done && transfer->code == CURLE_OK) {
        reply->status = status_of(transfer);
        read_answer(transfer, reply);
    } else if (transfer->done || transfer->quiet) {
        reply->result = API_UNREACHABLE;
        read_failure(transfer, reply);
    } else {
        reply->result = API_INTERRUPTED;
        reply->maybe_taken = true;
    }
}

static void read_answer(const struct transfer *transfer, struct api_reply *reply)
{
    reply->body =
        json_loadb(transfer->received ? transfer->received : "", transfer->received_len, 0, NULL);
    if (reply->status >= 200 && reply->status < 300 && json_is_object(reply->body))
        return;
    reply->result = API_REFUSED;
    if (reply->status >= 200 && reply->status < 300)
        snprintf(reply->message, sizeof(reply->message),
                 "what answers at %s is no cliserd: its answer is no JSON object",
                 server_name(transfer->api));
    else
        word_refusal(transfer->api, reply);
}

static void word_refusal(const struct api *api, struct api_reply *reply)
{
    const char *error = json_string_value(json_object_get(reply->body, "error"));

    if (reply->status == 401)
        snprintf(reply->message, sizeof(reply->message),
                 "%s: the token in %s is not the server's; its token_file has the right one",
                 server_name(api), api->options.token_file);
    else if (error)
        snprintf(reply->message, sizeof(reply->message), "%s", error);
    else
        snprintf(reply->message, sizeof(reply->message),
                 "%s answered with HTTP status %ld and no reason; is it a cliserd?",
                 server_name(api), reply->status);
}

static void read_failure(const struct transfer *transfer, struct api_reply *reply)
{
    const char *name = server_name(transfer->api);
    const char *why = transfer->error[0] ? transfer->error : curl_easy_strerror(transfer->code);

    reply->maybe_taken =
        transfer->code != CURLE_COULDNT_CONNECT && transfer->code != CURLE_COULDNT_RESOLVE_HOST;
    if (!reply->maybe_taken)
        word_no_connection(transfer, reply);
    else if (transfer->quiet)
        snprintf(reply->message, sizeof(reply->message), "no answer from %s for %" PRIu64 " s",
                 name, transfer->quiet_us / CLOCK_US_PER_SEC);
    else if (transfer->too_long)
        snprintf(reply->message, sizeof(reply->message), "the answer of %s does not end", name);
    else if (transfer->code == CURLE_GOT_NOTHING || transfer->code == CURLE_RECV_ERROR ||
             transfer->code == CURLE_PARTIAL_FILE || transfer->code == CURLE_SEND_ERROR)
        snprintf(reply->message, sizeof(reply->message),
                 "%s closed the connection before its answer was whole", name);
    else if (transfer->code == CURLE_UNSUPPORTED_PROTOCOL ||
             transfer->code == CURLE_WEIRD_SERVER_REPLY)
        snprintf(reply->message, sizeof(reply->message),
                 "what answers at %s is no cliserd: it does not speak HTTP", name);
    else
        snprintf(reply->message, sizeof(reply->message), "%s: %s", name, why);
}

static void word_no_connection(const struct transfer *transfer, struct api_reply *reply)
{
    const struct api_options *options = &transfer->api->options;
    const char *why = transfer->error[0] ? transfer->error : curl_easy_strerror(transfer->code);
    const size_t size = sizeof(reply->message);
    struct stat status;
    long error = 0;

    (void)curl_easy_getinfo(transfer->easy, CURLINFO_OS_ERRNO, &error);
    if (options->url) {
        snprintf(reply->message, size, "no cliserd at %s: %s", options->url,
                 error > 0 ? strerror((int)error) : why);
        return;
    }
    if (error == ENOENT || error == ENOTDIR)
        snprintf(reply->message, size,
                 "no cliserd at %s: is it running? --socket names another control socket",
                 options->socket);
    else if (error == EACCES || error == EPERM)
        word_no_permission(options->socket, reply->message, size);
    else if (error == ECONNREFUSED && stat(options->socket, &status) == 0 &&
             !S_ISSOCK(status.st_mode))
        snprintf(reply->message, size, "%s is no socket; --socket names the server's",
                 options->socket);
    else if (error == ECONNREFUSED)
        snprintf(reply->message, size,
                 "no cliserd at %s: the socket was left behind; is the server running?",
                 options->socket);
    else
        snprintf(reply->message, size, "no cliserd at %s: %s", options->socket,
                 error > 0 ? strerror((int)error) : why);
}

static void word_no_permission(const char *path, char *message, size_t size)
{
    struct stat status;
    const struct group *group;

    if (stat(path, &status) != 0) {
        snprintf(message, size, "you may not enter the folder of %s: run this as a user who may",
                 path);
        return;
    }
    group = getgrgid(status.st_gid);
    if (group)
        snprintf(message, size,
                 "you may not open %s (mode %04o): be in the group %s, or its owner, or root", path,
                 (unsigned)status.st_mode & 07777, group->gr_name);
    else
        snprintf(message, size,
                 "you may not open %s (mode %04o): be in the group %u, or its owner, or root", path,
                 (unsigned)status.st_mode & 07777, (unsigned)status.st_gid);
}

static struct curl_slist *append(struct curl_slist *list, const char *line)
{
    struct curl_slist *longer = curl_slist_append(list, line);

    if (!longer)
        say_no_memory();
    return longer;
}

static const char *server_name(const struct api *api)
{
    return api->options.url ? api->options.url : api->options.socket;
}

/* Options fail without memory, or when libcurl was built without what we need; the build asks for
 * a version that has it all. */
static void set(CURLcode code)
{
    if (code == CURLE_OUT_OF_MEMORY)
        say_no_memory();
    if (code != CURLE_OK) {
        say_error("libcurl: %s", curl_easy_strerror(code));
        exit(CTL_FAILED);
    }
}
