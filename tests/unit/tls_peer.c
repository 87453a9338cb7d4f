/* OpenSSL between two memory buffers; the socket is only looked at where the header says so. */
#include "tls_peer.h"

#include "unit.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

SSL_CTX *tls_peer_context(const struct tls_peer_certificate *certificate)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *made = X509_new();
    X509_NAME *name = X509_get_subject_name(made);
    X509_EXTENSION *names =
        X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, certificate->names);

    assert_true(context && key && made && names);
    X509_set_version(made, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made), 1);
    X509_gmtime_adj(X509_getm_notBefore(made), certificate->from_s);
    X509_gmtime_adj(X509_getm_notAfter(made), certificate->until_s);
    X509_set_pubkey(made, key);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"t", -1, -1, 0);
    X509_set_issuer_name(made, name);
    X509_add_ext(made, names, -1);
    assert_true(X509_sign(made, key, EVP_sha256()) > 0);
    assert_int_equal(SSL_CTX_use_certificate(context, made), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(context, key), 1);
    X509_EXTENSION_free(names);
    X509_free(made);
    EVP_PKEY_free(key);
    return context;
}

void tls_peer_write_certificate(SSL_CTX *context, char path[32])
{
    snprintf(path, 32, "/tmp/cliser-tls-XXXXXX");
    FILE *file = fdopen(mkstemp(path), "w");

    assert_non_null(file);
    assert_int_equal(PEM_write_X509(file, SSL_CTX_get0_certificate(context)), 1);
    assert_int_equal(fclose(file), 0);
}

SSL *tls_peer_new(SSL_CTX *context)
{
    SSL *ssl = SSL_new(context);

    assert_non_null(ssl);
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    BIO_set_mem_eof_return(SSL_get_rbio(ssl), -1);
    SSL_set_accept_state(ssl);
    return ssl;
}

bool tls_peer_shake_hands(SSL *ssl, int fd)
{
    char none[1];

    ERR_clear_error();
    (void)tls_peer_hear(ssl, fd, none, 0);
    (void)SSL_do_handshake(ssl);
    tls_peer_flush(ssl, fd);
    ERR_clear_error();
    return SSL_is_init_finished(ssl);
}

void tls_peer_say(SSL *ssl, const char *text, size_t len)
{
    assert_int_equal(SSL_write(ssl, text, (int)len), (int)len);
}

void tls_peer_flush(SSL *ssl, int fd)
{
    BIO *out = SSL_get_wbio(ssl);
    char bytes[16384];
    char *pending = NULL;
    size_t len = (size_t)BIO_get_mem_data(out, &pending);

    while (len > 0) {
        const size_t size = len < sizeof(bytes) ? len : sizeof(bytes);
        const ssize_t sent = send(fd, pending, size, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent <= 0)
            return;
        assert_int_equal(BIO_read(out, bytes, (int)sent), (int)sent);
        len = (size_t)BIO_get_mem_data(out, &pending);
    }
}

size_t tls_peer_hear(SSL *ssl, int fd, char *buf, size_t size)
{
    char bytes[16384];
    size_t held = 0;

    for (ssize_t got = 1; got > 0;) {
        got = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
        if (got > 0)
            assert_int_equal(BIO_write(SSL_get_rbio(ssl), bytes, (int)got), (int)got);
    }
    while (held < size) {
        const int got = SSL_read(ssl, buf + held, (int)(size - held));
        if (got <= 0)
            break;
        held += (size_t)got;
    }
    ERR_clear_error();
    return held;
}
