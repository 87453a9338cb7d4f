/*
 * OpenSSL, as far as a client needs it. Decides whom a client trusts, and sorts the many ways in
 * which OpenSSL can fail into the few that somebody can do something about. What is allowed is said
 * here and not left to the host's openssl.cnf. OpenSSL keeps errors in a queue of the thread: each
 * function leaves it empty, so that no error is taken for another connection's. Knows no sockets.
 */
#include "tls.h"

#include "tls/pem.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* For TLS 1.2: forward secrecy and authenticated encryption. All that 1.3 has is like that. */
#define CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20"

/* OpenSSL's measure for keys and digests: 112 bits, so RSA has 2048 and SHA-1 is out. */
#define SECURITY_LEVEL 2

struct tls_client {
    SSL_CTX *context;
    char *host;
    bool is_ip; /* addresses are verified, but not sent: RFC 6066, section 3 */
};

/* clang-format off */
/* A text has at most 50 bytes, so that it fits a line of the load tester's table. */
static const struct {
    const char *name;
    const char *text;
} failures[] = {
    [TLS_FAILURE_NONE]          = {NULL, "no failure"},
    [TLS_FAILURE_NO_TLS]        = {"no_tls", "no TLS is spoken on that port"},
    [TLS_FAILURE_NO_VERSION]    = {"no_version", "no common version of TLS; 1.2 is the least"},
    [TLS_FAILURE_SELF_SIGNED]   = {"self_signed", "the server's certificate is only self-signed"},
    [TLS_FAILURE_UNKNOWN_CA]    = {"unknown_ca", "the server's certificate is from an unknown CA"},
    [TLS_FAILURE_EXPIRED]       = {"expired", "the server's certificate has expired"},
    [TLS_FAILURE_NOT_YET_VALID] = {"not_yet_valid", "the server's certificate is not valid yet"},
    [TLS_FAILURE_WRONG_HOST]    = {"wrong_host", "the server's certificate is for another host"},
    [TLS_FAILURE_CERTIFICATE]   = {"certificate", "the server's certificate cannot be verified"},
    [TLS_FAILURE_REJECTED]      = {"rejected", "the server wants a certificate, or another one"},
    [TLS_FAILURE_CLOSED]        = {"closed", "the server closed in the middle of the handshake"},
    [TLS_FAILURE_PROTOCOL]      = {"protocol", "what came is not right TLS"},
};
/* clang-format on */

static_assert(sizeof(failures) / sizeof(failures[0]) == TLS_FAILURE_COUNT,
              "every failure is described");

static const char *last_words = "";

static SSL_CTX *new_context(void);
static bool set_host(struct tls_client *tls, const char *host);
static int take_ca(SSL_CTX *context, BIO *file);
static int take_certificate(SSL_CTX *context, BIO *file);
static int take_key(SSL_CTX *context, BIO *file, const char **wrong);
static enum tls_failure failure_of_certificate(long result);

struct tls_client *tls_client_new(const char *host)
{
    struct tls_client *tls = calloc(1, sizeof(*tls));

    if (tls)
        tls->context = new_context();
    if (!tls || !tls->context || !set_host(tls, host)) {
        tls_client_free(tls);
        tls = NULL;
    }
    ERR_clear_error();
    return tls;
}

void tls_client_free(struct tls_client *tls)
{
    if (!tls)
        return;
    SSL_CTX_free(tls->context);
    free(tls->host);
    free(tls);
}

int tls_client_take_file(struct tls_client *tls, enum tls_client_file which, const char *path,
                         char *message, size_t message_size)
{
    const char *wrong = PEM_NO_CERTIFICATE;
    BIO *file = pem_open(path, which == TLS_CLIENT_KEY, message, message_size);
    int result = -1;

    if (!file)
        return -1;
    switch (which) {
    case TLS_CLIENT_CA:
        result = take_ca(tls->context, file);
        break;
    case TLS_CLIENT_CERT:
        result = take_certificate(tls->context, file);
        break;
    case TLS_CLIENT_KEY:
        result = take_key(tls->context, file, &wrong);
        break;
    }
    BIO_free(file);
    ERR_clear_error();
    if (result != 0)
        snprintf(message, message_size, "%s %s", path, wrong);
    return result;
}

void tls_client_trust_anybody(struct tls_client *tls)
{
    SSL_CTX_set_verify(tls->context, SSL_VERIFY_NONE, NULL);
}

SSL *tls_client_connect(struct tls_client *tls)
{
    SSL *ssl = SSL_new(tls->context);

    if (ssl && !tls->is_ip && SSL_set_tlsext_host_name(ssl, tls->host) != 1) {
        SSL_free(ssl);
        ssl = NULL;
    }
    ERR_clear_error();
    return ssl;
}

void tls_client_say_end(SSL *ssl)
{
    if (SSL_is_init_finished(ssl) && !(SSL_get_shutdown(ssl) & SSL_SENT_SHUTDOWN))
        (void)SSL_shutdown(ssl);
    ERR_clear_error();
}

enum tls_failure tls_client_failure(const SSL *ssl, unsigned long code)
{
    const char *words = ERR_reason_error_string(code);

    last_words = words ? words : "";
    if (code == 0)
        return SSL_is_init_finished(ssl) ? TLS_FAILURE_NONE : TLS_FAILURE_CLOSED;

    switch (ERR_GET_REASON(code)) {
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
        last_words = X509_verify_cert_error_string(SSL_get_verify_result(ssl));
        return failure_of_certificate(SSL_get_verify_result(ssl));
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
        return TLS_FAILURE_NO_VERSION;
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
        return TLS_FAILURE_REJECTED;
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
    case SSL_R_RECORD_LENGTH_MISMATCH:
    case SSL_R_UNEXPECTED_MESSAGE:
        /* A record that is none, before anything was agreed on: text that came to our hello. */
        return SSL_get0_peer_certificate(ssl) ? TLS_FAILURE_PROTOCOL : TLS_FAILURE_NO_TLS;
    default:
        return TLS_FAILURE_PROTOCOL;
    }
}

const char *tls_failure_name(enum tls_failure failure)
{
    return failure < TLS_FAILURE_COUNT ? failures[failure].name : NULL;
}

const char *tls_failure_text(enum tls_failure failure)
{
    return failures[failure < TLS_FAILURE_COUNT ? failure : TLS_FAILURE_PROTOCOL].text;
}

const char *tls_client_last_words(void)
{
    return last_words;
}

static SSL_CTX *new_context(void)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());

    if (!context)
        return NULL;
    /* A server that goes without a word of TLS has ended like one that closes its TCP: the lines
     * say themselves where they end. */
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_IGNORE_UNEXPECTED_EOF);
    /* A connection is silent most of the time: no buffers then. */
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    /* Nothing is kept of a session for the next one: each client makes a whole handshake. */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_security_level(context, SECURITY_LEVEL);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 &&
        SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) == 1 &&
        SSL_CTX_set_cipher_list(context, CIPHERS) == 1 &&
        SSL_CTX_set_default_verify_paths(context) == 1)
        return context;
    SSL_CTX_free(context);
    return NULL;
}

/* The zone of a link-local address is this host's business, and the dot that ends a name the
 * resolver's; no certificate has either. */
static bool set_host(struct tls_client *tls, const char *host)
{
    X509_VERIFY_PARAM *wanted = SSL_CTX_get0_param(tls->context);

    tls->host = strdup(host);
    if (!tls->host)
        return false;
    tls->host[strcspn(host, "%")] = '\0';
    tls->is_ip = X509_VERIFY_PARAM_set1_ip_asc(wanted, tls->host) == 1;
    if (tls->is_ip)
        return true;
    const size_t len = strlen(tls->host);
    if (len > 1 && tls->host[len - 1] == '.')
        tls->host[len - 1] = '\0';
    X509_VERIFY_PARAM_set_hostflags(wanted, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return X509_VERIFY_PARAM_set1_host(wanted, tls->host, 0) == 1;
}

/* In the place of the system's. A certificate in there is trusted as it is, whoever signed it. */
static int take_ca(SSL_CTX *context, BIO *file)
{
    X509_STORE *store = X509_STORE_new();
    X509 *next = NULL;
    int count = 0;

    if (!store)
        return -1;
    while ((next = pem_next_certificate(file))) {
        count += X509_STORE_add_cert(store, next);
        X509_free(next);
    }
    const bool at_end = pem_is_at_end();
    SSL_CTX_set_cert_store(context, store); /* owned by it */
    (void)X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), X509_V_FLAG_PARTIAL_CHAIN);
    return count > 0 && at_end ? 0 : -1;
}

static int take_certificate(SSL_CTX *context, BIO *file)
{
    X509 *certificate = pem_next_certificate(file);
    bool taken = certificate && SSL_CTX_use_certificate(context, certificate) == 1;

    X509_free(certificate);
    while (taken && (certificate = pem_next_certificate(file))) {
        taken = SSL_CTX_add1_chain_cert(context, certificate) == 1;
        X509_free(certificate);
    }
    return taken && pem_is_at_end() ? 0 : -1;
}

static int take_key(SSL_CTX *context, BIO *file, const char **wrong)
{
    EVP_PKEY *key = pem_read_key(file, wrong);
    int result = -1;

    if (!key)
        return -1;
    if (SSL_CTX_use_PrivateKey(context, key) != 1 || SSL_CTX_check_private_key(context) != 1)
        *wrong = "does not belong to the certificate";
    else
        result = 0;
    EVP_PKEY_free(key);
    return result;
}

static enum tls_failure failure_of_certificate(long result)
{
    switch (result) {
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        return TLS_FAILURE_SELF_SIGNED;
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        return TLS_FAILURE_UNKNOWN_CA;
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return TLS_FAILURE_EXPIRED;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return TLS_FAILURE_NOT_YET_VALID;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        return TLS_FAILURE_WRONG_HOST;
    default:
        return TLS_FAILURE_CERTIFICATE;
    }
}
