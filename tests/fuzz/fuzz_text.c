/*
 * Small readers and writers of text: addresses, durations, sizes, the log in both formats, and
 * parts of URLs. Whatever goes in: what is written is plain text of one line, and reads back as
 * what it was.
 */
#include "base/address.h"
#include "base/log.h"
#include "base/units.h"
#include "cliser/proto.h"
#include "folder.h"
#include "fuzz.h"
#include "uri.h"

#include <errno.h>
#include <jansson.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* So much of a field the log always has, however it is escaped. */
#define MIN_LOGGED_BYTES 120

static int log_fd = -1;
static char log_path[128];

static void prepare(void);
static void check_address(const char *text);
static void check_units(const char *text);
static void check_uri(const char *text);
static void check_log(const char *bytes, size_t len, int format);
static size_t unescape(const char *text, const char *ends, char *out);
static const char *write_log(const char *bytes, size_t len, int format);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 512)
        return -1;
    prepare();
    char *text = fuzz_string(data, size);
    check_address(text);
    check_units(text);
    check_uri(text);
    check_log((const char *)data, size, LOG_FORMAT_TEXT);
    check_log((const char *)data, size, LOG_FORMAT_JSON);
    free(text);
    return 0;
}

/* The log goes to us, in the place of syslog. */
static void prepare(void)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};

    if (log_fd >= 0)
        return;
    snprintf(log_path, sizeof(log_path), "%s/log", folder_path());
    fuzz_require(strlen(log_path) < sizeof(local.sun_path));
    memcpy(local.sun_path, log_path, strlen(log_path));
    log_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    fuzz_require(log_fd >= 0);
    fuzz_require(bind(log_fd, (const struct sockaddr *)&local, sizeof(local)) == 0);
}

static void check_address(const char *text)
{
    struct address address;
    struct address again;
    struct peer_address peer;
    struct peer_address peer_again;
    char formatted[ADDRESS_TEXT_BYTES];
    char ip[ADDRESS_TEXT_BYTES];
    char message[1024];

    if (address_parse(text, &address, message, sizeof(message)) != 0) {
        fuzz_require(message[0] != '\0');
        return;
    }
    address_format(&address, formatted);
    fuzz_require(address_parse(formatted, &again, message, sizeof(message)) == 0);
    fuzz_require(address.len == again.len);
    fuzz_require(memcmp(&address.storage, &again.storage, address.len) == 0);
    fuzz_require(address_is_loopback(&address) == address_is_loopback(&again));

    peer_address_set(&peer, &address);
    peer_address_parse(&peer_again, peer_address_format(&peer, ip), peer.port);
    fuzz_require(memcmp(&peer, &peer_again, sizeof(peer)) == 0);
}

static void check_units(const char *text)
{
    uint64_t number = 0;
    uint64_t again = 0;
    uint64_t size = 0;
    char formatted[UNITS_TEXT_BYTES];

    if (units_parse_duration(text, &number) == 0) {
        units_format_duration(number, formatted);
        fuzz_require(units_parse_duration(formatted, &again) == 0 && again == number);
    }
    if (units_parse_number(text, &number) == 0) {
        fuzz_require(strspn(text, "0123456789") == strlen(text));
        fuzz_require(units_parse_size(text, &size) == 0 && size == number);
        errno = 0;
        fuzz_require(strtoull(text, NULL, 10) == number && errno == 0);
    }
    if (units_parse_size(text, &size) == 0)
        fuzz_require(text[0] >= '0' && text[0] <= '9');
}

static void check_uri(const char *text)
{
    char *escaped = uri_escape(text);
    const char *at = escaped;

    for (const char *expected = text; *expected; expected++) {
        unsigned byte = (unsigned char)*at;
        if (byte == '%') {
            fuzz_require(sscanf(at + 1, "%2x", &byte) == 1);
            at += 2;
        } else {
            fuzz_require(proto_id_valid(at, 1) || byte == '~');
        }
        fuzz_require(byte == (unsigned char)*expected);
        at++;
    }
    fuzz_require(*at == '\0');
    free(escaped);
}

static void check_log(const char *bytes, size_t len, int format)
{
    const char *line = write_log(bytes, len, format);
    char decoded[4096];
    size_t decoded_len = 0;

    for (const char *at = line; *at; at++)
        fuzz_require(*at >= ' ' && *at <= '~');
    if (format == LOG_FORMAT_JSON) {
        json_error_t error;
        json_t *object = json_loads(line, JSON_REJECT_DUPLICATES, &error);
        fuzz_require(object && json_object_size(object) == 6);
        const char *text = json_string_value(json_object_get(object, "text"));
        fuzz_require(text && json_integer_value(json_object_get(object, "after")) == 7);
        decoded_len = unescape(text, "", decoded);
        json_decref(object);
    } else {
        static const char begin[] = "info fuzzed before=x text=";
        fuzz_require(strncmp(line, begin, strlen(begin)) == 0);
        const char *text = line + strlen(begin);
        decoded_len = unescape(text + (*text == '"'), *text == '"' ? "\"" : " ", decoded);
        const char *after = strstr(line, " after=7");
        fuzz_require(after);
        while (strstr(after + 1, " after=7"))
            after = strstr(after + 1, " after=7");
        fuzz_require(strcmp(after, " after=7") == 0);
    }
    fuzz_require(decoded_len <= len && memcmp(decoded, bytes, decoded_len) == 0);
    fuzz_require(decoded_len == len || decoded_len >= MIN_LOGGED_BYTES);
}

/* \xNN is a byte, and a backslash before another character is that. Ends with NUL, or one of
 * ends. */
static size_t unescape(const char *text, const char *ends, char *out)
{
    size_t len = 0;

    while (*text && !strchr(ends, *text)) {
        unsigned byte = (unsigned char)*text++;
        if (byte == '\\' && *text == 'x') {
            fuzz_require(sscanf(text + 1, "%2x", &byte) == 1);
            text += 3;
        } else if (byte == '\\') {
            byte = (unsigned char)*text++;
        }
        out[len++] = (char)byte;
    }
    return len;
}

/* Returns the line without what syslog wants before it. */
static const char *write_log(const char *bytes, size_t len, int format)
{
    static char line[8192];
    const struct log_options options = {.program = "fuzz",
                                        .level = LOG_LEVEL_INFO,
                                        .target = LOG_TARGET_SYSLOG,
                                        .format = format,
                                        .syslog_path = log_path};

    fuzz_require(log_open(&options) == 0);
    log_event(LOG_LEVEL_INFO, "fuzzed", LOG_STR("before", "x"), LOG_BYTES("text", bytes, len),
              LOG_NUM("after", 7));
    const ssize_t got = recv(log_fd, line, sizeof(line) - 1, MSG_DONTWAIT);
    fuzz_require(got > 0);
    line[got] = '\0';
    fuzz_require(strlen(line) == (size_t)got);
    const char *text = strstr(line, "]: ");
    fuzz_require(text);
    return text + 3;
}
