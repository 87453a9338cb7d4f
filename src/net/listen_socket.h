/*
 * One listening socket, TCP or unix: opened with the options that its connections inherit, and for
 * a unix socket the path that belongs to it. Who accepts is the owner's business.
 */
#ifndef NET_LISTEN_SOCKET_H
#define NET_LISTEN_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/stat.h>

#include "base/address.h"

struct listen_socket_options {
    uint64_t backlog;
    bool reuse_port;
    unsigned user_timeout_ms; /* TCP_USER_TIMEOUT of the connections; 0: the system's */
    mode_t path_mode;         /* of a unix socket's path */
};

struct listen_socket {
    int fd;                 /* -1 while not open */
    struct address address; /* the real one, with the port that port 0 became */
    struct stat path;       /* of a unix socket's path, as we made it */
};

/*
 * Opens the address, as address_parse() reads it, and listens on it, non-blocking. A unix socket
 * that a server left behind is removed first; one that somebody answers on is not. Returns 0, or -1
 * with what is wrong in message; the socket is to be closed then as well.
 */
int listen_socket_open(struct listen_socket *listening, const char *text,
                       const struct listen_socket_options *options, char *message,
                       size_t message_size);

bool listen_socket_is_tcp(const struct listen_socket *listening);

/* Closes it, if it is open, and removes its path, unless somebody else's is there by now. */
void listen_socket_close(struct listen_socket *listening);

#endif
