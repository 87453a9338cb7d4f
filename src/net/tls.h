/*
 * TLS for the connections of tls_listen: what the certificate files make possible, and the steps of
 * a handshake. Connections and their buffers are conn.c's.
 */
#ifndef NET_TLS_H
#define NET_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/types.h>

#include <openssl/types.h>

struct tls;

/* Which file an error is about. */
enum tls_file { TLS_CERT, TLS_KEY, TLS_CLIENT_CA };

struct tls_options {
    const char *cert;      /* PEM: the certificate, and those between it and its root, in order */
    const char *key;       /* PEM, without a passphrase; nobody else may read it */
    const char *client_ca; /* PEM: who may vouch for clients; NULL: clients need no certificate */
};

/* What tls_take_step() has come to. */
enum tls_step {
    TLS_DONE,
    TLS_WANTS_READ,
    TLS_WANTS_WRITE,
    TLS_PEER_GONE, /* errno says how; 0: it closed */
    TLS_FAILED,    /* tls_reason() says why; the peer was sent an alert */
};

/*
 * Reads and checks the files: the certificate is valid now, the key belongs to it, the chain is in
 * order. Returns NULL with what is wrong, and what would be right, in message, and in *file which
 * of them it is about.
 */
struct tls *tls_new(const struct tls_options *options, enum tls_file *file, char *message,
                    size_t message_size);

/* Connections that were made with it go on. NULL is allowed. */
void tls_free(struct tls *tls);

/* When the certificate, or one of those above it in its file, ends: Unix seconds. */
int64_t tls_expires(const struct tls *tls);

/* The server's side of a TLS connection on an accepted socket, to be freed by SSL_free(); NULL when
 * memory is out. It does not own the socket. */
SSL *tls_accept(struct tls *tls, int fd);

/* Takes the handshake as far as it goes without waiting. */
enum tls_step tls_take_step(SSL *ssl);

/* Why the last tls_take_step() or tls_receive() of any connection failed, in OpenSSL's words. */
const char *tls_reason(void);

/* As recv() and send() on a non-blocking socket, with EPROTO for what TLS does not allow. What was
 * not sent for EAGAIN has to be the begin of what is sent next. */
ssize_t tls_receive(SSL *ssl, void *bytes, size_t size);
ssize_t tls_send(SSL *ssl, const void *bytes, size_t len);

/* Bytes that were taken from the socket already and wait for tls_receive(): the event loop does not
 * know of them. */
bool tls_has_more(const SSL *ssl);

/* Does it read nothing more until the socket has taken what it owes the peer? Of the last call. */
bool tls_wants_write(const SSL *ssl);

/* Tells the peer that nothing more will come, as far as the socket takes it. */
void tls_say_end(SSL *ssl);

/*
 * Does the peer's certificate cover this ID? One of its common names, or of the DNS names among its
 * alternative names, has to be the same, byte by byte. True for every ID where clients need no
 * certificate.
 */
bool tls_covers(const SSL *ssl, const char *id, size_t len);

/* The same for a certificate alone, which may be NULL. */
bool tls_certificate_names(const X509 *certificate, const char *name, size_t len);

#endif
