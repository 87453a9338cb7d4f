/*
 * OpenSSL, as far as a server needs it. What is allowed is said here and not left to the host's
 * openssl.cnf. OpenSSL keeps errors in a queue of the thread: each function leaves it empty, so
 * that nobody's error is taken for the next one's. Knows nothing of sessions.
 */
#include "net/tls.h"

#include "tls/pem.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* For TLS 1.2: forward secrecy and authenticated encryption. All that 1.3 has is like that. */
#define CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20"
/* What keys are agreed on by, all of them cheap: a peer may not choose what it costs us. P-384
 * takes five times as long as all of a handshake with P-256 (measured, OpenSSL 3.0). */
#if OPENSSL_VERSION_NUMBER >= 0x30500000L
#define GROUPS "X25519MLKEM768:X25519:P-256"
#else
#define GROUPS "X25519:P-256"
#endif
/* OpenSSL's measure for keys and digests: 112 bits, so RSA has 2048 and SHA-1 is out. */
#define SECURITY_LEVEL 2
/* What a client's certificates may take, while they are read: its own and some above it. */
#define MAX_PEER_CHAIN_BYTES (16 * 1024)
/* Tickets after a full handshake: one client, one connection. */
#define TICKETS 1
/* Certificates in a file, which somebody else may have written. */
#define MAX_CHAIN 16

struct tls {
    SSL_CTX *context;
    int64_t expires; /* Unix seconds */
};

/* Where tls_new() is, and where it puts what is wrong. */
struct loading {
    struct tls *tls;
    const struct tls_options *options;
    char *message;
    size_t message_size;
};

static char last_reason[160];

static SSL_CTX *new_context(void);
static int load_certificate(struct loading *loading);
static int load_chain(struct loading *loading, STACK_OF(X509) * chain);
static int check_validity(struct loading *loading, X509 *certificate);
static int load_key(struct loading *loading);
static int load_client_ca(struct loading *loading);
static int say(struct loading *loading, const char *path, const char *what);
static int64_t seconds_of(const ASN1_TIME *at);
static bool common_name_is(const X509 *certificate, const char *name, size_t len);
static bool alternative_name_is(const X509 *certificate, const char *name, size_t len);
static ssize_t result_of(SSL *ssl, int result, size_t bytes);
static void note_reason(void);

struct tls *tls_new(const struct tls_options *options, enum tls_file *file, char *message,
                    size_t message_size)
{
    struct tls *tls = calloc(1, sizeof(*tls));
    struct loading loading = {
        .tls = tls, .options = options, .message = message, .message_size = message_size};

    *file = TLS_CERT;
    if (tls)
        tls->context = new_context();
    if (!tls || !tls->context) {
        snprintf(message, message_size, "out of memory");
        goto failed;
    }
    if (load_certificate(&loading) != 0)
        goto failed;
    *file = TLS_KEY;
    if (load_key(&loading) != 0)
        goto failed;
    *file = TLS_CLIENT_CA;
    if (options->client_ca && load_client_ca(&loading) != 0)
        goto failed;
    return tls;

failed:
    ERR_clear_error();
    tls_free(tls);
    return NULL;
}

void tls_free(struct tls *tls)
{
    if (!tls)
        return;
    SSL_CTX_free(tls->context);
    free(tls);
}

int64_t tls_expires(const struct tls *tls)
{
    return tls->expires;
}

SSL *tls_accept(struct tls *tls, int fd)
{
    SSL *ssl = SSL_new(tls->context);

    if (ssl && SSL_set_fd(ssl, fd) == 1) {
        SSL_set_accept_state(ssl);
        return ssl;
    }
    SSL_free(ssl);
    ERR_clear_error();
    return NULL;
}

enum tls_step tls_take_step(SSL *ssl)
{
    ERR_clear_error();
    errno = 0;
    const int result = SSL_do_handshake(ssl);
    const int error = SSL_get_error(ssl, result);

    switch (error) {
    case SSL_ERROR_NONE:
        return TLS_DONE;
    case SSL_ERROR_WANT_READ:
        return TLS_WANTS_READ;
    case SSL_ERROR_WANT_WRITE:
        return TLS_WANTS_WRITE;
    case SSL_ERROR_ZERO_RETURN:
        errno = 0;
        return TLS_PEER_GONE;
    case SSL_ERROR_SYSCALL:
        ERR_clear_error();
        return TLS_PEER_GONE;
    default:
        note_reason();
        return TLS_FAILED;
    }
}

const char *tls_reason(void)
{
    return last_reason;
}

ssize_t tls_receive(SSL *ssl, void *bytes, size_t size)
{
    size_t got = 0;

    ERR_clear_error(); /* a bufferevent may have left some */
    errno = 0;
    const int result = SSL_read_ex(ssl, bytes, size, &got);
    return result_of(ssl, result, got);
}

ssize_t tls_send(SSL *ssl, const void *bytes, size_t len)
{
    size_t sent = 0;

    ERR_clear_error();
    errno = 0;
    const int result = SSL_write_ex(ssl, bytes, len, &sent);
    return result_of(ssl, result, sent);
}

bool tls_has_more(const SSL *ssl)
{
    return SSL_pending(ssl) > 0;
}

bool tls_wants_write(const SSL *ssl)
{
    return SSL_want_write(ssl);
}

void tls_say_end(SSL *ssl)
{
    if (SSL_is_init_finished(ssl) && !(SSL_get_shutdown(ssl) & SSL_SENT_SHUTDOWN))
        (void)SSL_shutdown(ssl);
    ERR_clear_error();
}

bool tls_covers(const SSL *ssl, const char *id, size_t len)
{
    return !(SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER) ||
           tls_certificate_names(SSL_get0_peer_certificate(ssl), id, len);
}

bool tls_certificate_names(const X509 *certificate, const char *name, size_t len)
{
    const bool names = certificate && (common_name_is(certificate, name, len) ||
                                       alternative_name_is(certificate, name, len));

    ERR_clear_error();
    return names;
}

static SSL_CTX *new_context(void)
{
    static const unsigned char session_context[] = "cliserd";
    static char groups[] = GROUPS; /* OpenSSL's macro casts to char * */
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());

    if (!context)
        return NULL;
    /* A peer that goes without a word of TLS has ended like one that closes its TCP: our lines say
     * themselves where they end. */
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_IGNORE_UNEXPECTED_EOF |
                                     SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    /* Most clients are silent most of the time: no buffers then. And a line that the socket did not
     * take is sent from wherever it has been kept. */
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* A read ends with the record it has read, also one that brings no bytes for us. Otherwise a
     * peer that sends nothing but updates of its keys would keep us in there. */
    SSL_CTX_clear_mode(context, SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_security_level(context, SECURITY_LEVEL);
    SSL_CTX_set_max_cert_list(context, MAX_PEER_CHAIN_BYTES);
    /* Who comes back shows a ticket; nothing is remembered here. */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 &&
        SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) == 1 &&
        SSL_CTX_set_cipher_list(context, CIPHERS) == 1 &&
        SSL_CTX_set1_groups_list(context, groups) == 1 &&
        SSL_CTX_set_num_tickets(context, TICKETS) == 1 &&
        SSL_CTX_set_session_id_context(context, session_context, sizeof(session_context) - 1) == 1)
        return context;
    SSL_CTX_free(context);
    return NULL;
}

static int load_certificate(struct loading *loading)
{
    const char *path = loading->options->cert;
    STACK_OF(X509) *chain = sk_X509_new_null();
    BIO *file = pem_open(path, false, loading->message, loading->message_size);
    int result = -1;

    loading->tls->expires = INT64_MAX;
    for (X509 *next = NULL; chain && file && sk_X509_num(chain) < MAX_CHAIN;) {
        next = pem_next_certificate(file);
        if (!next)
            break;
        if (sk_X509_push(chain, next) == 0)
            X509_free(next);
    }
    if (chain && file) {
        const bool at_end = pem_is_at_end();

        if (sk_X509_num(chain) == 0)
            (void)say(loading, path, PEM_NO_CERTIFICATE);
        else if (!at_end)
            (void)say(loading, path, "is damaged behind its first certificate");
        else
            result = load_chain(loading, chain);
    }
    BIO_free(file);
    sk_X509_pop_free(chain, X509_free);
    return result;
}

/* The first one is ours; each further one has issued the one before it. */
static int load_chain(struct loading *loading, STACK_OF(X509) * chain)
{
    const char *path = loading->options->cert;
    SSL_CTX *context = loading->tls->context;

    for (int i = 0; i < sk_X509_num(chain); i++) {
        X509 *certificate = sk_X509_value(chain, i);

        if (i > 0 && X509_check_issued(certificate, sk_X509_value(chain, i - 1)) != X509_V_OK)
            return say(loading, path,
                       "has certificates in another order than each one before the one that issued "
                       "it");
        if (check_validity(loading, certificate) != 0)
            return -1;
        const int taken = i == 0 ? SSL_CTX_use_certificate(context, certificate)
                                 : (int)SSL_CTX_add1_chain_cert(context, certificate);
        if (taken != 1) {
            char what[sizeof(last_reason) + 96];

            note_reason();
            snprintf(what, sizeof(what),
                     "is refused (%s); keys should have 2048 bits (RSA) or 256 (ECDSA), "
                     "signatures SHA-256",
                     last_reason);
            return say(loading, path, what);
        }
    }
    return 0;
}

static int check_validity(struct loading *loading, X509 *certificate)
{
    const int64_t ends = seconds_of(X509_get0_notAfter(certificate));
    const int64_t begins = seconds_of(X509_get0_notBefore(certificate));
    const int64_t now = (int64_t)time(NULL);
    char what[96];
    char day[32];
    struct tm utc;

    if (ends < loading->tls->expires)
        loading->tls->expires = ends;
    if (now >= begins && now < ends)
        return 0;
    const time_t at = (time_t)(now < begins ? begins : ends);
    (void)gmtime_r(&at, &utc);
    (void)strftime(day, sizeof(day), "%Y-%m-%d %H:%M UTC", &utc);
    snprintf(what, sizeof(what), now < begins ? "is not valid before %s" : "has expired on %s",
             day);
    return say(loading, loading->options->cert, what);
}

static int load_key(struct loading *loading)
{
    const char *path = loading->options->key;
    BIO *file = pem_open(path, true, loading->message, loading->message_size);
    const char *wrong = "";

    if (!file)
        return -1;
    EVP_PKEY *key = pem_read_key(file, &wrong);
    BIO_free(file);
    if (!key)
        return say(loading, path, wrong);
    const bool taken = SSL_CTX_use_PrivateKey(loading->tls->context, key) == 1 &&
                       SSL_CTX_check_private_key(loading->tls->context) == 1;
    EVP_PKEY_free(key);
    return taken ? 0 : say(loading, path, "does not belong to the certificate in tls_cert");
}

static int load_client_ca(struct loading *loading)
{
    const char *path = loading->options->client_ca;
    SSL_CTX *context = loading->tls->context;
    BIO *file = pem_open(path, false, loading->message, loading->message_size);

    if (!file)
        return -1;
    BIO_free(file);
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(path);
    if (!names || SSL_CTX_load_verify_file(context, path) != 1) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        return say(loading, path, PEM_NO_CERTIFICATE);
    }
    SSL_CTX_set_client_CA_list(context, names); /* owned by it */
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return 0;
}

static int say(struct loading *loading, const char *path, const char *what)
{
    snprintf(loading->message, loading->message_size, "%s %s", path, what);
    return -1;
}

static int64_t seconds_of(const ASN1_TIME *at)
{
    struct tm utc;

    return ASN1_TIME_to_tm(at, &utc) == 1 ? (int64_t)timegm(&utc) : 0;
}

static bool common_name_is(const X509 *certificate, const char *name, size_t len)
{
    const X509_NAME *subject = X509_get_subject_name(certificate);
    bool found = false;

    for (int at = -1; !found;) {
        at = X509_NAME_get_index_by_NID(subject, NID_commonName, at);
        if (at < 0)
            break;
        unsigned char *text = NULL;
        const int text_len =
            ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
        found = text_len >= 0 && (size_t)text_len == len && memcmp(text, name, len) == 0;
        if (text_len >= 0)
            OPENSSL_free(text);
    }
    return found;
}

static bool alternative_name_is(const X509 *certificate, const char *name, size_t len)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    bool found = false;

    for (int i = 0; !found && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *entry = sk_GENERAL_NAME_value(names, i);

        if (entry->type != GEN_DNS)
            continue;
        const ASN1_STRING *text = entry->d.dNSName;
        found = (size_t)ASN1_STRING_length(text) == len &&
                memcmp(ASN1_STRING_get0_data(text), name, len) == 0;
    }
    GENERAL_NAMES_free(names);
    return found;
}

static ssize_t result_of(SSL *ssl, int result, size_t bytes)
{
    if (result == 1)
        return (ssize_t)bytes;
    switch (SSL_get_error(ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return -1;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL:
        ERR_clear_error();
        return errno == 0 ? 0 : -1;
    default:
        note_reason();
        errno = EPROTO;
        return -1;
    }
}

/* Takes the errors out of the queue; the first one is where it began. */
static void note_reason(void)
{
    const unsigned long error = ERR_get_error();
    const char *reason = ERR_reason_error_string(error);

    snprintf(last_reason, sizeof(last_reason), "%s", reason ? reason : "unknown");
    ERR_clear_error();
}
