/*
 * TLS as a client sees it: whom to trust, what to show, and in clear words why it failed. Links and
 * their sockets are link.c's.
 */
#ifndef CLIENT_TLS_H
#define CLIENT_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include <openssl/types.h>

struct tls_client;

enum tls_client_file {
    TLS_CLIENT_CA,   /* PEM: certificates of those who may vouch for the server, nobody else may */
    TLS_CLIENT_CERT, /* PEM: our own certificate, and those between it and its root */
    TLS_CLIENT_KEY,  /* PEM: its private key, without a passphrase; comes after it */
};

/* Why there is no TLS connection, or no more. */
enum tls_failure {
    TLS_FAILURE_NONE,
    TLS_FAILURE_NO_TLS,      /* whoever answers speaks something else */
    TLS_FAILURE_NO_VERSION,  /* only versions that we do not speak, or the other way round */
    TLS_FAILURE_SELF_SIGNED, /* the server's certificate: vouched for by nobody but itself, ... */
    TLS_FAILURE_UNKNOWN_CA,  /* ... by somebody who is not trusted here, ... */
    TLS_FAILURE_EXPIRED,
    TLS_FAILURE_NOT_YET_VALID,
    TLS_FAILURE_WRONG_HOST,
    TLS_FAILURE_CERTIFICATE, /* ... or bad in another way */
    TLS_FAILURE_REJECTED,    /* the server does not take our certificate, or wants one */
    TLS_FAILURE_CLOSED,      /* the server closed in the middle of the handshake */
    TLS_FAILURE_PROTOCOL,    /* anything else that TLS does not allow */
    TLS_FAILURE_COUNT
};

/*
 * TLS 1.2 or newer towards a server whose certificate has to be valid for host, a name or an IP
 * address in text, and vouched for by one of this system's CAs. Copies host. Returns NULL when
 * memory is out; freed by tls_client_free(), NULL allowed, after all connections.
 */
struct tls_client *tls_client_new(const char *host);
void tls_client_free(struct tls_client *tls);

/* Takes a file. Returns 0, or -1 with what is wrong, and what would be right, in message. */
int tls_client_take_file(struct tls_client *tls, enum tls_client_file which, const char *path,
                         char *message, size_t message_size) __attribute__((warn_unused_result));

/* Whoever answers is taken for the server: for tests in which nothing is at stake. */
void tls_client_trust_anybody(struct tls_client *tls);

/* Our side of a new connection, to be freed by SSL_free(); NULL when memory is out. */
SSL *tls_client_connect(struct tls_client *tls);

/* Tells the server that nothing more will come, as far as the socket takes it without waiting. */
void tls_client_say_end(SSL *ssl);

/* What an error of this connection means; code is the first one that OpenSSL had queued, or 0. */
enum tls_failure tls_client_failure(const SSL *ssl, unsigned long code);

/* A word for programs; NULL for what is not of the enum, and for NONE. */
const char *tls_failure_name(enum tls_failure failure);

/* A sentence for people, without its full stop; never NULL. */
const char *tls_failure_text(enum tls_failure failure);

/* OpenSSL's own words for what tls_client_failure() was last asked about, of any connection. */
const char *tls_client_last_words(void);

#endif
