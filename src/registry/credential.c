/*
 * A digest under a key drawn for each set makes all comparisons of equal length and tells a reader
 * of our memory nothing that works elsewhere. SipHash with 128 bits, since every client costs one,
 * and who does not know the key can only guess. Owns no plain text.
 */
#include "registry/credential.h"

#include <sodium.h>

#include <stdlib.h>
#include <string.h>

#define DIGEST_BYTES crypto_shorthash_siphashx24_BYTES

struct credentials {
    unsigned char key[crypto_shorthash_siphashx24_KEYBYTES];
    unsigned char (*digests)[DIGEST_BYTES];
    size_t count;
};

static void digest_of(const struct credentials *credentials, const char *text, size_t len,
                      unsigned char *digest);

struct credentials *credentials_new(void)
{
    struct credentials *credentials = calloc(1, sizeof(*credentials));

    if (credentials)
        randombytes_buf(credentials->key, sizeof(credentials->key));
    return credentials;
}

void credentials_free(struct credentials *credentials)
{
    if (!credentials)
        return;
    sodium_memzero(credentials->key, sizeof(credentials->key));
    free(credentials->digests);
    free(credentials);
}

int credentials_add(struct credentials *credentials, const char *password, size_t len)
{
    unsigned char(*digests)[DIGEST_BYTES] =
        realloc(credentials->digests, (credentials->count + 1) * sizeof(*digests));

    if (!digests)
        return -1;
    credentials->digests = digests;
    digest_of(credentials, password, len, digests[credentials->count]);
    credentials->count++;
    return 0;
}

bool credentials_accept(const struct credentials *credentials, const char *line, size_t len)
{
    unsigned char digest[DIGEST_BYTES];
    int found = 0;

    digest_of(credentials, line, len, digest);
    /* No early end: which password matched is nobody's business. */
    for (size_t i = 0; i < credentials->count; i++)
        found |= sodium_memcmp(digest, credentials->digests[i], sizeof(digest)) == 0;
    return found != 0;
}

static void digest_of(const struct credentials *credentials, const char *text, size_t len,
                      unsigned char *digest)
{
    crypto_shorthash_siphashx24(digest, (const unsigned char *)text, len, credentials->key);
}
