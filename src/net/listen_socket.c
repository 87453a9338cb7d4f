/* Opening, and cleaning up behind ourselves and behind those who could not. Accepts nothing. */
#include "net/listen_socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The plainest congestion control there is, and always built in. */
#define CONGESTION "reno"

static int set_options(int fd, const struct listen_socket_options *options, sa_family_t family);
static void remove_stale_socket(const struct address *address);
static int bind_socket(int fd, const struct address *address, mode_t path_mode);
static const char *path_of(const struct address *address);

int listen_socket_open(struct listen_socket *listening, const char *text,
                       const struct listen_socket_options *options, char *message,
                       size_t message_size)
{
    struct address *address = &listening->address;

    listening->fd = -1;
    if (address_parse(text, address, message, message_size) != 0)
        return -1;
    const sa_family_t family = address->storage.ss_family;
    if (family == AF_UNIX)
        remove_stale_socket(address);

    const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || set_options(fd, options, family) != 0 ||
        bind_socket(fd, address, options->path_mode) != 0 ||
        listen(fd, (int)options->backlog) != 0) {
        snprintf(message, message_size, "cannot listen on %s: %s", text, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    if (family == AF_UNIX)
        (void)stat(path_of(address), &listening->path);
    else
        (void)getsockname(fd, (struct sockaddr *)&address->storage, &address->len);
    listening->fd = fd;
    return 0;
}

bool listen_socket_is_tcp(const struct listen_socket *listening)
{
    return listening->address.storage.ss_family != AF_UNIX;
}

void listen_socket_close(struct listen_socket *listening)
{
    struct stat now;

    if (listening->fd < 0)
        return;
    close(listening->fd);
    listening->fd = -1;
    if (listen_socket_is_tcp(listening))
        return;
    const char *path = path_of(&listening->address);
    if (stat(path, &now) == 0 && now.st_ino == listening->path.st_ino &&
        now.st_dev == listening->path.st_dev)
        unlink(path);
}

/*
 * Options that a connection inherits are set here, once, instead of on each connection: no delay
 * for short lines, and the time after which TCP gives a silent peer up. TCP_DEFER_ACCEPT stays off:
 * in this protocol the server speaks first.
 */
static int set_options(int fd, const struct listen_socket_options *options, sa_family_t family)
{
    const int on = 1;
    const int reuse_port = options->reuse_port;
    const unsigned user_timeout_ms = options->user_timeout_ms;

    if (family == AF_UNIX)
        return 0;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &reuse_port, sizeof(reuse_port)) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof(user_timeout_ms)) !=
            0)
        return -1;
    /* For lines of 20 bytes there is no congestion to control, and the dearer algorithms estimate
     * bandwidth and set a timer for each of them. Where this one is not allowed, the system's will
     * do. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, CONGESTION, sizeof(CONGESTION) - 1);
    /* So that 0.0.0.0 and [::] can be listened on beside each other. */
    return family == AF_INET6 ? setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) : 0;
}

/* A server that was killed leaves its socket behind. One that somebody answers on is left alone,
 * and bind will say that it is in use. */
static void remove_stale_socket(const struct address *address)
{
    struct stat info;

    if (lstat(path_of(address), &info) != 0 || !S_ISSOCK(info.st_mode))
        return;
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)&address->storage, address->len) != 0 &&
        errno == ECONNREFUSED)
        unlink(path_of(address));
    close(fd);
}

/* Before anybody can connect, since listen() comes later, the path has its mode. */
static int bind_socket(int fd, const struct address *address, mode_t path_mode)
{
    if (bind(fd, (const struct sockaddr *)&address->storage, address->len) != 0)
        return -1;
    return address->storage.ss_family == AF_UNIX ? chmod(path_of(address), path_mode) : 0;
}

static const char *path_of(const struct address *address)
{
    return ((const struct sockaddr_un *)&address->storage)->sun_path;
}
