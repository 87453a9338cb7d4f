/*
 * Reads /proc. From an address to the inode of its listening socket, from there to the process that
 * holds it, from there to processor time and memory. Whatever cannot be read is left out: a report
 * without the server's part is still a report.
 */
#include "server_usage.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/un.h>

/* As the kernel prints them. */
#define STATE_LISTEN     0x0A
#define UNIX_ACCEPTS     0x10000
#define MAX_INODE_DIGITS 24

/* How well a listening socket fits the address. */
enum fit { FIT_NOT, FIT_WILDCARD, FIT_EXACT };

static bool is_local(const struct address *server);
static uint64_t find_inode(const struct address *server);
static uint64_t find_tcp_inode(const char *path, const struct address *server, enum fit *best);
static uint64_t find_unix_inode(const char *path);
static enum fit compare(const char *hex, unsigned port, const struct address *server);
static pid_t find_holder(uint64_t inode);
static bool holds(const char *pid, const char *link_text);

pid_t server_usage_find(const struct address *server, char *why, size_t why_size)
{
    if (!is_local(server)) {
        snprintf(why, why_size, "it is not on this host");
        return 0;
    }
    const uint64_t inode = find_inode(server);
    if (inode == 0) {
        snprintf(why, why_size, "no socket of this host listens there");
        return 0;
    }
    const pid_t pid = find_holder(inode);
    if (pid == 0)
        snprintf(why, why_size, "its process cannot be seen (another user's?)");
    return pid;
}

int server_usage_read(pid_t pid, struct server_usage *usage)
{
    char path[64];
    char line[1024] = "";
    unsigned long user = 0;
    unsigned long system = 0;
    unsigned long pages = 0;
    const uint64_t ticks_per_s = (uint64_t)sysconf(_SC_CLK_TCK);

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return -1;
    const size_t len = fread(line, 1, sizeof(line) - 1, file);
    line[len] = '\0';
    fclose(file);

    /* The program's name comes before, in parentheses, and may hold anything. */
    const char *behind = strrchr(line, ')');
    if (!behind || sscanf(behind + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
                          &system) != 2)
        return -1;

    snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
    file = fopen(path, "re");
    if (!file)
        return -1;
    const int found = fscanf(file, "%*u %lu", &pages);
    fclose(file);
    if (found != 1)
        return -1;

    usage->cpu_us = ((uint64_t)user + system) * 1000000 / ticks_per_s;
    usage->rss_bytes = (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
    return 0;
}

/* An address belongs to this host if a socket can be bound to it. */
static bool is_local(const struct address *server)
{
    struct address probe = *server;

    if (address_is_loopback(server))
        return true;
    if (probe.storage.ss_family == AF_INET)
        ((struct sockaddr_in *)&probe.storage)->sin_port = 0;
    else
        ((struct sockaddr_in6 *)&probe.storage)->sin6_port = 0;

    const int fd = socket(probe.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    const bool local = bind(fd, (const struct sockaddr *)&probe.storage, probe.len) == 0;
    close(fd);
    return local;
}

/* Returns 0 when nobody listens. */
static uint64_t find_inode(const struct address *server)
{
    enum fit best = FIT_NOT;

    if (server->storage.ss_family == AF_UNIX)
        return find_unix_inode(((const struct sockaddr_un *)&server->storage)->sun_path);

    const uint64_t inode = find_tcp_inode("/proc/net/tcp", server, &best);
    if (best == FIT_EXACT)
        return inode;
    const uint64_t inode6 = find_tcp_inode("/proc/net/tcp6", server, &best);
    return inode6 != 0 ? inode6 : inode;
}

/* Looks for a socket that fits better than *best does; returns 0 when there is none. */
static uint64_t find_tcp_inode(const char *path, const struct address *server, enum fit *best)
{
    FILE *file = fopen(path, "re");
    char line[512];
    uint64_t found = 0;

    if (!file)
        return 0;
    while (fgets(line, sizeof(line), file)) {
        char hex[33] = "";
        unsigned port = 0;
        unsigned state = 0;
        uint64_t inode = 0;

        if (sscanf(line,
                   " %*d: %32[0-9A-F]:%X %*32[0-9A-F]:%*X %X %*X:%*X %*X:%*X %*X %*u %*u %" SCNu64,
                   hex, &port, &state, &inode) != 4 ||
            state != STATE_LISTEN)
            continue;
        const enum fit fit = compare(hex, port, server);
        if (fit > *best) {
            *best = fit;
            found = inode;
        }
    }
    fclose(file);
    return found;
}

static uint64_t find_unix_inode(const char *path)
{
    FILE *file = fopen("/proc/net/unix", "re");
    char line[512];
    uint64_t found = 0;

    if (!file)
        return 0;
    while (found == 0 && fgets(line, sizeof(line), file)) {
        unsigned flags = 0;
        uint64_t inode = 0;
        int at = 0;

        line[strcspn(line, "\n")] = '\0';
        if (sscanf(line, "%*[^:]: %*X %*X %X %*X %*X %" SCNu64 " %n", &flags, &inode, &at) == 2 &&
            (flags & UNIX_ACCEPTS) && strcmp(line + at, path) == 0)
            found = inode;
    }
    fclose(file);
    return found;
}

/* The kernel prints an address as 32-bit words in the machine's own byte order. */
static enum fit compare(const char *hex, unsigned port, const struct address *server)
{
    static const uint32_t any[4] = {0, 0, 0, 0};
    const size_t words = strlen(hex) / 8;
    uint32_t listening[4] = {0};
    struct peer_address peer;

    peer_address_set(&peer, server);
    if (port != peer.port || words < 1 || words > 4)
        return FIT_NOT;
    for (size_t i = 0; i < words; i++) {
        char word[9];

        memcpy(word, hex + 8 * i, 8);
        word[8] = '\0';
        listening[i] = (uint32_t)strtoul(word, NULL, 16);
    }

    const size_t wanted_words = peer.family == AF_INET ? 1 : 4;
    if (words == wanted_words && memcmp(listening, peer.ip, 4 * words) == 0)
        return FIT_EXACT;
    /* [::] may take IPv4 too; 0.0.0.0 never takes IPv6. */
    if (memcmp(listening, any, sizeof(any)) == 0 && words >= wanted_words)
        return FIT_WILDCARD;
    return FIT_NOT;
}

/*
 * A socket that systemd opened is held by process 1 as well; every other holder is more likely to
 * be the server. Returns 0 when none is found.
 */
static pid_t find_holder(uint64_t inode)
{
    char link_text[sizeof("socket:[]") + MAX_INODE_DIGITS];
    DIR *proc = opendir("/proc");
    pid_t found = 0;

    if (!proc)
        return 0;
    snprintf(link_text, sizeof(link_text), "socket:[%" PRIu64 "]", inode);
    for (const struct dirent *entry = readdir(proc); entry && found <= 1; entry = readdir(proc)) {
        if (isdigit((unsigned char)entry->d_name[0]) && holds(entry->d_name, link_text))
            found = (pid_t)strtol(entry->d_name, NULL, 10);
    }
    closedir(proc);
    return found;
}

static bool holds(const char *pid, const char *link_text)
{
    char path[300];
    char target[64];
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%s/fd", pid);
    DIR *fds = opendir(path);
    if (!fds)
        return false;
    for (const struct dirent *entry = readdir(fds); entry && !found; entry = readdir(fds)) {
        const ssize_t len = readlinkat(dirfd(fds), entry->d_name, target, sizeof(target) - 1);

        if (len <= 0)
            continue;
        target[len] = '\0';
        found = strcmp(target, link_text) == 0;
    }
    closedir(fds);
    return found;
}
