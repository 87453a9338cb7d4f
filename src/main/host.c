/* Limits, names and privileges of the host. Knows nothing of clients but how many there may be. */
#include "main/host.h"

#include "base/units.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static bool is_all_of(uid_t uid);
static uint64_t read_number(const char *path, uint64_t otherwise);
static uint64_t least(uint64_t left, uint64_t right);

uint64_t host_raise_descriptors(uint64_t connections)
{
    const uint64_t most = read_number("/proc/sys/fs/nr_open", 1048576);
    const uint64_t wanted = least(connections + HOST_RESERVED_DESCRIPTORS, most);
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 1024;
    if (limit.rlim_max < wanted) {
        const struct rlimit raised = {.rlim_cur = wanted, .rlim_max = wanted};
        if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
            return wanted;
    }
    limit.rlim_cur = limit.rlim_max < most ? limit.rlim_max : most;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        (void)getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
}

uint64_t host_room_for_connections(uint64_t descriptors)
{
    const uint64_t watches = read_number("/proc/sys/fs/epoll/max_user_watches", UINT64_MAX);
    const uint64_t room = least(descriptors, watches);

    /* Even with next to nothing left there is to be somebody to serve. */
    return room > 2 * HOST_RESERVED_DESCRIPTORS ? room - HOST_RESERVED_DESCRIPTORS : room / 2;
}

uint64_t host_backlog(uint64_t wanted)
{
    return least(wanted, read_number("/proc/sys/net/core/somaxconn", wanted));
}

int host_become_user(const char *user, char *message, size_t message_size)
{
    const struct passwd *entry = getpwnam(user);

    if (!entry) {
        snprintf(message, message_size, "there is no user \"%s\" on this host", user);
        return -1;
    }
    if (is_all_of(entry->pw_uid))
        return 0;
    if (initgroups(user, entry->pw_gid) != 0 ||
        setresgid(entry->pw_gid, entry->pw_gid, entry->pw_gid) != 0 ||
        setresuid(entry->pw_uid, entry->pw_uid, entry->pw_uid) != 0) {
        snprintf(message, message_size,
                 "cannot become user \"%s\": %s; start as root, or leave user out", user,
                 strerror(errno));
        return -1;
    }
    /* What could be undone would be no protection. */
    if (!is_all_of(entry->pw_uid) || (entry->pw_uid != 0 && setuid(0) == 0)) {
        snprintf(message, message_size, "user \"%s\" could become root again; this system is odd",
                 user);
        return -1;
    }
    return 0;
}

const char *host_name(char *buf, size_t size)
{
    if (gethostname(buf, size) != 0)
        snprintf(buf, size, "localhost");
    buf[size - 1] = '\0';
    return buf;
}

/* Is this user all that we are: real, effective and saved? */
static bool is_all_of(uid_t uid)
{
    uid_t real;
    uid_t effective;
    uid_t saved;

    return getresuid(&real, &effective, &saved) == 0 && real == uid && effective == uid &&
           saved == uid;
}

/* Without stdio, which reads byte by byte where it has no memory for a buffer: of such a file, that
 * is its first digit. */
static uint64_t read_number(const char *path, uint64_t otherwise)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    char text[32] = "";
    uint64_t number = 0;

    if (fd < 0)
        return otherwise;
    const ssize_t got = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[got > 0 ? strcspn(text, "\n") : 0] = '\0';
    return units_parse_number(text, &number) == 0 ? number : otherwise;
}

static uint64_t least(uint64_t left, uint64_t right)
{
    return left < right ? left : right;
}
