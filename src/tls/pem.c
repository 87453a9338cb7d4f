/*
 * Reads PEM by OpenSSL. Decides which files are read at all; what the certificates are good for is
 * for those to say who use them.
 */
#include "tls/pem.h"

#include "base/settings.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int no_passphrase(char *buf, int size, int writing, void *user);

BIO *pem_open(const char *path, bool secret, char *message, size_t message_size)
{
    /* Opening a FIFO would wait. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat info;
    BIO *file = NULL;

    ERR_clear_error();
    if (fd < 0 || fstat(fd, &info) != 0)
        snprintf(message, message_size, "cannot read %s: %s", path, strerror(errno));
    else if (!S_ISREG(info.st_mode))
        snprintf(message, message_size, "%s is no file", path);
    else if (!secret || settings_secret_is_private(fd, path, message, message_size) == 0) {
        file = BIO_new_fd(fd, BIO_CLOSE);
        if (!file)
            snprintf(message, message_size, "%s cannot be read: out of memory", path);
        ERR_clear_error();
    }
    if (!file && fd >= 0)
        close(fd);
    return file;
}

X509 *pem_next_certificate(BIO *file)
{
    ERR_clear_error();
    return PEM_read_bio_X509(file, NULL, no_passphrase, NULL);
}

bool pem_is_at_end(void)
{
    const unsigned long error = ERR_peek_last_error();

    ERR_clear_error();
    return ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
}

EVP_PKEY *pem_read_key(BIO *file, const char **wrong)
{
    ERR_clear_error();
    EVP_PKEY *key = PEM_read_bio_PrivateKey(file, NULL, no_passphrase, NULL);

    if (!key && (ERR_GET_REASON(ERR_peek_error()) == PEM_R_BAD_PASSWORD_READ ||
                 ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_BAD_PASSWORD_READ))
        *wrong = "needs a passphrase; it should be a key without one";
    else if (!key)
        *wrong = "has no private key; it should begin with -----BEGIN PRIVATE KEY-----";
    ERR_clear_error();
    return key;
}

static int no_passphrase(char *buf, int size, int writing, void *user)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)user;
    return -1;
}
