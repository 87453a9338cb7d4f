/* One key per process; the hash itself is libsodium's. */
#include "base/hash.h"

#include <sodium.h>
#include <string.h>

static unsigned char key[crypto_shorthash_KEYBYTES];

int hash_init(void)
{
    if (sodium_init() < 0)
        return -1;
    crypto_shorthash_keygen(key);
    return 0;
}

uint64_t hash_bytes(const void *bytes, size_t len)
{
    unsigned char out[crypto_shorthash_BYTES];
    uint64_t hash;

    crypto_shorthash(out, bytes, len, key);
    memcpy(&hash, out, sizeof(hash));
    return hash;
}

uint64_t hash_number(uint64_t number)
{
    return hash_bytes(&number, sizeof(number));
}
