/*
 * A TLS server's end of one connection, for tests that say to the byte what leaves in one segment:
 * what it says gathers until it is flushed. Its certificates are made on the spot. Everything that
 * cannot be done fails the test.
 */
#ifndef UNIT_TLS_PEER_H
#define UNIT_TLS_PEER_H

#include <stdbool.h>
#include <stddef.h>

#include <openssl/types.h>

struct tls_peer_certificate {
    const char *names; /* subjectAltName, as "IP:127.0.0.1" */
    int from_s;        /* of its validity, from now */
    int until_s;
};

/* Self-signed. Freed by SSL_CTX_free(). */
SSL_CTX *tls_peer_context(const struct tls_peer_certificate *certificate);

/* Writes a context's certificate as PEM into a new file, whose name it writes to path. */
void tls_peer_write_certificate(SSL_CTX *context, char path[32]);

SSL *tls_peer_new(SSL_CTX *context);

/* Takes what has come and sends what this asks for. Returns whether the handshake is done. */
bool tls_peer_shake_hands(SSL *ssl, int fd);

void tls_peer_say(SSL *ssl, const char *text, size_t len);

/* Sends what has gathered, as far as the socket takes it. */
void tls_peer_flush(SSL *ssl, int fd);

/* Reads what has come, without waiting. Returns its length. */
size_t tls_peer_hear(SSL *ssl, int fd, char *buf, size_t size);

#endif
