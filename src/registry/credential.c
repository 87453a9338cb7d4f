/*
 * A digest under a key drawn for each set makes all comparisons of equal length and tells a reader
 * of our memory nothing that works elsewhere. Owns no plain text.
 */
#include "registry/credential.h"

#include <sodium.h>

#include <stdlib.h>
#include <string.h>

#define DIGEST_BYTES crypto_generichash_BYTES

struct credentials {
    unsigned char key[crypto_generichash_KEYBYTES];
    unsigned char (*digests)[DIGEST_BYTES];
    size_t count;
};

struct credentials *credentials_new(void)
{
    struct credentials *credentials = calloc(1, sizeof(*credentials));

    if (credentials)
        crypto_generichash_keygen(credentials->key);
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
    crypto_generichash(digests[credentials->count], DIGEST_BYTES, (const unsigned char *)password,
                       len, credentials->key, sizeof(credentials->key));
    credentials->count++;
    return 0;
}

bool credentials_accept(const struct credentials *credentials, const char *line, size_t len)
{
    unsigned char digest[DIGEST_BYTES];
    int found = 0;

    crypto_generichash(digest, sizeof(digest), (const unsigned char *)line, len, credentials->key,
                       sizeof(credentials->key));
    /* No early end: which password matched is nobody's business. */
    for (size_t i = 0; i < credentials->count; i++)
        found |= sodium_memcmp(digest, credentials->digests[i], sizeof(digest)) == 0;
    return found != 0;
}
