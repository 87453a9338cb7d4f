/*
 * A whole cliser client: libcliser speaks the protocol, a plain blocking socket does the rest. Made
 * to be copied: put what your machine does on an order into shut_down(). Without TLS, leave out
 * start_tls() and what asks for ssl.
 */
#include "cliser/client_fsm.h"

#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int fd = -1; /* the connection; with several, embed the machine in a struct that has one */
static SSL *ssl;    /* its TLS; NULL: plain TCP */

/* Three functions are all that the machine asks of its owner. */
static void send_line(struct client_fsm *fsm, const char *bytes, size_t len)
{
    (void)fsm;
    const ssize_t sent = ssl ? SSL_write(ssl, bytes, (int)len) : send(fd, bytes, len, 0);

    if (sent != (ssize_t)len)
        fprintf(stderr,
                "cannot send\n"); /* the connection broke; the next read() ends the session */
}

static void shut_down(struct client_fsm *fsm)
{
    (void)fsm;
    printf("ordered to shut down: the answer is sent, now it would happen\n");
}

static void changed(struct client_fsm *fsm, enum client_fsm_state old)
{
    printf("%s -> %s\n", client_fsm_state_name(old), client_fsm_state_name(fsm->state));
}

static void connect_to(const char *host, const char *port)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;

    if (getaddrinfo(host, port, &hints, &found) != 0)
        return;
    for (struct addrinfo *one = found; one && fd < 0; one = one->ai_next) {
        fd = socket(one->ai_family, one->ai_socktype, one->ai_protocol);
        if (connect(fd, one->ai_addr, one->ai_addrlen) != 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
}

/* The server's certificate must be valid for host, and one of those in the file ca, or signed by
 * one: a client that skips this hands its password to whoever answers. */
static bool start_tls(char *host, const char *ca)
{
    static SSL_CTX *context;

    context = SSL_CTX_new(TLS_client_method());
    if (!context || SSL_CTX_load_verify_file(context, ca) != 1)
        return false;
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF); /* the lines say where they end */
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    ssl = SSL_new(context);
    if (!ssl)
        return false;
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) != 1 &&
        (SSL_set1_host(ssl, host) != 1 || SSL_set_tlsext_host_name(ssl, host) != 1))
        return false;
    return SSL_set_fd(ssl, fd) == 1 && SSL_connect(ssl) == 1;
}

/* One line, or some more bytes towards one. */
static void step(struct client_fsm *fsm, const struct client_fsm_env *env)
{
    static char buf[PROTO_MAX_LINE_BYTES]; /* no line is longer */
    static size_t held;
    const char *line;
    size_t len;
    const int taken = proto_take_line(buf, held, &line, &len);

    if (taken > 0) {
        client_fsm_line(fsm, env, line, len);
        held -= (size_t)taken;
        memmove(buf, buf + taken, held);
    } else if (taken < 0) {
        client_fsm_bad_line(fsm, env);
    } else {
        const size_t room = sizeof(buf) - held;
        const ssize_t got = ssl ? SSL_read(ssl, buf + held, (int)room) : read(fd, buf + held, room);
        if (got <= 0)
            client_fsm_lost(fsm, env);
        else
            held += (size_t)got;
    }
}

int main(int argc, char **argv)
{
    static const struct client_fsm_ops ops = {send_line, shut_down, changed};
    struct client_fsm fsm;

    if (argc < 5 || argc > 6 || !proto_password_valid(argv[3], strlen(argv[3])) ||
        !proto_id_valid(argv[4], strlen(argv[4]))) {
        fprintf(stderr, "usage: cliser-example HOST PORT PASSWORD ID [CA-FILE]\n");
        return 2;
    }
    const struct client_fsm_env env = {&ops, argv[3], strlen(argv[3]), argv[4], strlen(argv[4])};

    signal(SIGPIPE, SIG_IGN); /* a broken connection is an end like any other */
    connect_to(argv[1], argv[2]);
    if (fd < 0) {
        fprintf(stderr, "cannot connect to %s, port %s\n", argv[1], argv[2]);
        return 1;
    }

    if (argc == 6 && !start_tls(argv[1], argv[5])) {
        ERR_print_errors_fp(stderr);
        return 1;
    }

    client_fsm_start(&fsm);
    while (fsm.state < CLIENT_FSM_LEAVING)
        step(&fsm, &env);
    if (fsm.state == CLIENT_FSM_CLOSED) /* why: the refusal; 0: lost; -1: not this protocol */
        printf("why: %d\n", client_fsm_why(&fsm));
    return fsm.state == CLIENT_FSM_LEAVING ? 0 : 1;
}
