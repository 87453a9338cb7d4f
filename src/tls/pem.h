/*
 * Certificates and keys in files of PEM, as an administrator names them in a configuration: read
 * without waiting for anybody, and with words for what is wrong. All leave OpenSSL's queue of
 * errors empty, but pem_next_certificate(), whose last error pem_is_at_end() looks at.
 */
#ifndef TLS_PEM_H
#define TLS_PEM_H

#include <stdbool.h>
#include <stddef.h>

#include <openssl/types.h>

/* What is wrong with a file that pem_next_certificate() finds nothing in. */
#define PEM_NO_CERTIFICATE "has no certificate; it should begin with -----BEGIN CERTIFICATE-----"

/*
 * Opens a regular file; a secret one must be readable by nobody but its owner and group
 * (settings_secret_is_private()). The result is the caller's, to be freed with BIO_free(); NULL
 * with what is wrong in message.
 */
BIO *pem_open(const char *path, bool secret, char *message, size_t message_size);

/* The next certificate, the caller's; NULL when there is none, for whatever reason. */
X509 *pem_next_certificate(BIO *file);

/* Right behind a NULL of pem_next_certificate(): was that the end of the file, and no damage? */
bool pem_is_at_end(void);

/* The private key in the file, the caller's. NULL, with what is wrong in *wrong, when there is none
 * or it has a passphrase: nobody is asked at a terminal. */
EVP_PKEY *pem_read_key(BIO *file, const char **wrong);

#endif
