/*
 * Asks the system for its limits and compares. A new limit is one more function in the list below.
 * Sends nothing; changes nothing but this process's own descriptor limit.
 */
#include "preflight.h"

#include "text.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sys/resource.h>

/* Standard streams, the loop's own descriptors, /proc files, and those that libevent closes one
 * turn after their owner let go of them. */
#define SPARE_DESCRIPTORS 64

/* A port rests so long after its connection was closed, unless the kernel may take it again. */
#define TIME_WAIT_S UINT64_C(60)

/* For each open connection: 1.5 KiB of our own, the rest is the kernel's for our end of it. Low,
 * because a run that could succeed must not be refused. */
#define BYTES_PER_CLIENT UINT64_C(4096)

/* The same with TLS: a bit more than 20 KiB more, most of it OpenSSL's session with the server's
 * certificate. */
#define BYTES_PER_TLS_CLIENT (BYTES_PER_CLIENT + UINT64_C(20) * 1024)

/* The kernel's defaults, should /proc not say. */
#define DEFAULT_PORTS UINT64_C(28232)

/* Writes what is short; leaves *shortage alone and returns false when nothing is. */
typedef bool limit_fn(const struct preflight_demand *demand, struct preflight_shortage *shortage);

static limit_fn lacks_descriptors, lacks_addresses, lacks_ports, lacks_memory;

static limit_fn *const limits[] = {lacks_descriptors, lacks_addresses, lacks_ports, lacks_memory};

static_assert(sizeof(limits) / sizeof(limits[0]) <= PREFLIGHT_SHORTAGES_MAX,
              "every shortage has room");

static uint64_t raise_descriptors(uint64_t needed);
static int try_bind(const struct address *source);
static uint64_t available_memory(void);
static bool read_line(const char *path, char *buf, size_t size);
static bool ports_are_reused(const struct address *server);

size_t preflight_check(const struct preflight_demand *demand,
                       struct preflight_shortage shortages[PREFLIGHT_SHORTAGES_MAX])
{
    size_t count = 0;

    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        if (limits[i](demand, &shortages[count]))
            count++;
    }
    return count;
}

uint64_t preflight_parse_port_range(const char *text)
{
    unsigned first = 0;
    unsigned last = 0;

    if (sscanf(text, "%5u %5u", &first, &last) != 2 || first > last || last > UINT16_MAX)
        return 0;
    return last - first + 1;
}

uint64_t preflight_ports_needed(const struct preflight_demand *demand, bool reuse)
{
    uint64_t closed = demand->connects - demand->at_once;

    if (reuse)
        return demand->at_once;
    if (demand->rate > 0 && demand->rate < UINT64_MAX / TIME_WAIT_S &&
        demand->rate * TIME_WAIT_S < closed)
        closed = demand->rate * TIME_WAIT_S;
    return demand->at_once + closed;
}

static bool lacks_descriptors(const struct preflight_demand *demand,
                              struct preflight_shortage *shortage)
{
    const uint64_t needed = demand->at_once + SPARE_DESCRIPTORS;
    const uint64_t have = raise_descriptors(needed);

    if (have >= needed)
        return false;
    snprintf(shortage->text, sizeof(shortage->text),
             "%" PRIu64 " connections at once need %" PRIu64 " descriptors, this process may have "
             "%" PRIu64 ": raise the hard limit (ulimit -Hn %" PRIu64 ", LimitNOFILE=) or ask for "
             "at most %" PRIu64,
             demand->at_once, needed, have, needed,
             have > SPARE_DESCRIPTORS ? have - SPARE_DESCRIPTORS : 0);
    return true;
}

static bool lacks_addresses(const struct preflight_demand *demand,
                            struct preflight_shortage *shortage)
{
    const struct sources *sources = demand->sources;
    struct address source;

    for (uint32_t i = 0; i < sources->count && i < demand->connects; i++) {
        sources_at(sources, i, &source);
        if (try_bind(&source) == 0)
            continue;

        struct peer_address peer;
        char ip[ADDRESS_TEXT_BYTES];
        const int error = errno;
        peer_address_set(&peer, &source);
        snprintf(shortage->text, sizeof(shortage->text),
                 "%s cannot be used as a source: %s; give this host the address (ip address add), "
                 "or choose --sources among those it has",
                 peer_address_format(&peer, ip), strerror(error));
        return true;
    }
    return false;
}

static bool lacks_ports(const struct preflight_demand *demand, struct preflight_shortage *shortage)
{
    char line[64];
    uint64_t ports = DEFAULT_PORTS;

    if (demand->server->storage.ss_family == AF_UNIX)
        return false;
    if (read_line("/proc/sys/net/ipv4/ip_local_port_range", line, sizeof(line)) &&
        preflight_parse_port_range(line) > 0)
        ports = preflight_parse_port_range(line);

    const bool reuse = ports_are_reused(demand->server);
    const uint64_t needed = preflight_ports_needed(demand, reuse);
    const uint64_t sources = demand->sources->count > 0 ? demand->sources->count : 1;
    if (ports * sources >= needed)
        return false;
    snprintf(shortage->text, sizeof(shortage->text),
             "%" PRIu64 " ports are needed%s, %" PRIu64 " source address%s with %" PRIu64
             " ports each %s %" PRIu64 ": use %" PRIu64 " --sources, or widen "
             "net.ipv4.ip_local_port_range",
             needed, reuse ? "" : " (a closed connection keeps its port for 60s)", sources,
             sources == 1 ? "" : "es", ports, sources == 1 ? "has" : "have", ports * sources,
             (needed + ports - 1) / ports);
    return true;
}

static bool lacks_memory(const struct preflight_demand *demand, struct preflight_shortage *shortage)
{
    const uint64_t each = demand->tls ? BYTES_PER_TLS_CLIENT : BYTES_PER_CLIENT;
    const uint64_t have = available_memory();
    char n[2][TEXT_BYTES];

    if (have / each >= demand->at_once)
        return false;
    snprintf(shortage->text, sizeof(shortage->text),
             "%" PRIu64 " connections at once take at least %s of memory here, %s are available: "
             "ask for at most %" PRIu64,
             demand->at_once, text_bytes(demand->at_once * each, n[0]), text_bytes(have, n[1]),
             have / each);
    return true;
}

/* Raises the limit to what is needed if that is allowed, or else to what is. Returns the limit. */
static uint64_t raise_descriptors(uint64_t needed)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 0;
    if (limit.rlim_cur >= needed)
        return limit.rlim_cur;

    /* Beyond the hard limit only for the privileged; failing that, up to it. */
    struct rlimit wanted = {.rlim_cur = needed,
                            .rlim_max = limit.rlim_max > needed ? limit.rlim_max : needed};
    if (setrlimit(RLIMIT_NOFILE, &wanted) == 0)
        return needed;
    wanted = (struct rlimit){.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &wanted) == 0)
        return limit.rlim_max;
    return limit.rlim_cur;
}

/* Returns 0, or -1 with errno. */
static int try_bind(const struct address *source)
{
    const int one = 1;
    const int fd = socket(source->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int result = -1;

    if (fd < 0)
        return -1;
    /* The question is about the address, not about a free port. */
    (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
    result = bind(fd, (const struct sockaddr *)&source->storage, source->len);

    const int error = errno;
    close(fd);
    errno = error;
    return result;
}

/* What the system could hand out without swapping. Without an answer, enough. */
static uint64_t available_memory(void)
{
    FILE *file = fopen("/proc/meminfo", "re");
    char line[128];
    uint64_t kib = 0;
    bool found = false;

    while (file && !found && fgets(line, sizeof(line), file))
        found = sscanf(line, "MemAvailable: %" SCNu64 " kB", &kib) == 1;
    if (file)
        fclose(file);
    return found ? kib * 1024 : UINT64_MAX;
}

static bool read_line(const char *path, char *buf, size_t size)
{
    FILE *file = fopen(path, "re");
    bool ok = false;

    if (!file)
        return false;
    ok = fgets(buf, (int)size, file);
    fclose(file);
    return ok;
}

/* tcp_tw_reuse is 0 never, 1 always, 2 on loopback only. */
static bool ports_are_reused(const struct address *server)
{
    char line[16] = "";

    if (!read_line("/proc/sys/net/ipv4/tcp_tw_reuse", line, sizeof(line)))
        return false;
    return line[0] == '1' || (line[0] == '2' && address_is_loopback(server));
}
