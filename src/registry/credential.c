/*
 * A digest under a key drawn for each set makes all comparisons of equal length and tells a reader
 * of our memory nothing that works elsewhere. SipHash-2-4 with 128 bits, since every client costs
 * one: 50 ns, and 600 ns would be BLAKE2b's (measured), which is stronger only against somebody who
 * has the key, and who then reads the passwords as they come anyway.
 *
 * A digest is looked up by its own first bits. How far such a lookup gets depends on bits that
 * nobody without the key can choose or foresee, so its time tells nothing about the passwords, and
 * ten thousand of them cost no more than one. Owns no plain text.
 */
#include "registry/credential.h"

#include "base/hash_index.h"
#include "cliser/proto.h"
#include "registry/glob.h"

#include <sodium.h>

#include <stdlib.h>
#include <string.h>

#define DIGEST_BYTES crypto_shorthash_siphashx24_BYTES

struct credential {
    uint16_t name;        /* its number */
    uint16_t passwords;   /* how many were added */
    struct glob_set *ids; /* NULL: all */
};

struct password {
    unsigned char digest[DIGEST_BYTES];
    struct credential_use use;
};

struct credentials {
    unsigned char key[crypto_shorthash_siphashx24_KEYBYTES];
    struct hash_index by_digest; /* index into passwords, and 1 */
    struct password *passwords;
    size_t password_count;
    size_t password_capacity;
    struct hash_index by_name; /* index into items, and 1 */
    struct credential *items;
    size_t count;
    size_t capacity;
};

static struct password *find(const struct credentials *credentials, const char *text, size_t len);
static struct password *find_digest(const struct credentials *credentials,
                                    const unsigned char *digest);
static struct credential *find_credential(const struct credentials *credentials, uint16_t name);
static void digest_of(const struct credentials *credentials, const char *text, size_t len,
                      unsigned char *digest);
static uint32_t hash_of(const unsigned char *digest);
static int make_room(void **items, size_t count, size_t *capacity, size_t item_bytes);

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
    for (size_t i = 0; i < credentials->count; i++)
        glob_set_free(credentials->items[i].ids);
    hash_index_clear(&credentials->by_digest);
    hash_index_clear(&credentials->by_name);
    free(credentials->passwords);
    free(credentials->items);
    free(credentials);
}

enum credential_result credentials_begin(struct credentials *credentials, const char *name,
                                         const char *ids)
{
    struct credential item = {.name = credential_name_number(name)};

    if (find_credential(credentials, item.name))
        return CREDENTIAL_TAKEN;
    if (item.name == 0 || make_room((void **)&credentials->items, credentials->count,
                                    &credentials->capacity, sizeof(item)) != 0)
        return CREDENTIAL_OUT_OF_MEMORY;
    item.ids = ids ? glob_set_new(ids) : NULL;
    if ((ids && !item.ids) ||
        hash_index_add(&credentials->by_name, item.name, (uint32_t)credentials->count + 1) != 0) {
        glob_set_free(item.ids);
        return CREDENTIAL_OUT_OF_MEMORY;
    }
    credentials->items[credentials->count++] = item;
    return CREDENTIAL_ADDED;
}

enum credential_result credentials_add(struct credentials *credentials, const char *password,
                                       size_t len)
{
    struct password added = {.use = {.logins = 0}};

    if (credentials->count == 0 &&
        credentials_begin(credentials, CREDENTIAL_NAME_AUTH, NULL) != CREDENTIAL_ADDED)
        return CREDENTIAL_OUT_OF_MEMORY;
    struct credential *credential = &credentials->items[credentials->count - 1];
    if (credential->passwords < UINT16_MAX)
        credential->passwords++;
    added.use.who = (struct credential_match){credential->name, credential->passwords};

    digest_of(credentials, password, len, added.digest);
    const struct password *known = find_digest(credentials, added.digest);
    if (known)
        return known->use.who.credential == credential->name ? CREDENTIAL_ADDED : CREDENTIAL_TAKEN;
    if (make_room((void **)&credentials->passwords, credentials->password_count,
                  &credentials->password_capacity, sizeof(added)) != 0 ||
        hash_index_add(&credentials->by_digest, hash_of(added.digest),
                       (uint32_t)credentials->password_count + 1) != 0)
        return CREDENTIAL_OUT_OF_MEMORY;
    credentials->passwords[credentials->password_count++] = added;
    return CREDENTIAL_ADDED;
}

bool credentials_accept(const struct credentials *credentials, const char *line, size_t len)
{
    return find(credentials, line, len) != NULL;
}

uint16_t credentials_owner(const struct credentials *credentials, const char *line, size_t len)
{
    const struct password *password = find(credentials, line, len);

    return password ? password->use.who.credential : 0;
}

bool credentials_log_in(struct credentials *credentials, const char *line, size_t len, int64_t now,
                        struct credential_match *match)
{
    struct password *password = find(credentials, line, len);

    if (!password)
        return false;
    password->use.logins++;
    password->use.last = now;
    *match = password->use.who;
    return true;
}

bool credentials_allow(const struct credentials *credentials, uint16_t credential, const char *id,
                       size_t len)
{
    const struct credential *item = find_credential(credentials, credential);
    char text[PROTO_MAX_ID_BYTES + 1];

    if (!item || len > PROTO_MAX_ID_BYTES)
        return false;
    if (!item->ids)
        return true;
    memcpy(text, id, len);
    text[len] = '\0';
    return glob_set_matches(item->ids, text);
}

bool credentials_use(const struct credentials *credentials, size_t index,
                     struct credential_use *use)
{
    if (index >= credentials->password_count)
        return false;
    *use = credentials->passwords[index].use;
    return true;
}

static struct password *find(const struct credentials *credentials, const char *text, size_t len)
{
    unsigned char digest[DIGEST_BYTES];

    digest_of(credentials, text, len, digest);
    return find_digest(credentials, digest);
}

static struct password *find_digest(const struct credentials *credentials,
                                    const unsigned char *digest)
{
    size_t cursor = 0;
    uint32_t number;

    while ((number = hash_index_next(&credentials->by_digest, hash_of(digest), &cursor)) != 0) {
        struct password *password = &credentials->passwords[number - 1];
        if (sodium_memcmp(password->digest, digest, DIGEST_BYTES) == 0)
            return password;
    }
    return NULL;
}

static struct credential *find_credential(const struct credentials *credentials, uint16_t name)
{
    size_t cursor = 0;
    uint32_t number;

    while ((number = hash_index_next(&credentials->by_name, name, &cursor)) != 0) {
        if (credentials->items[number - 1].name == name)
            return &credentials->items[number - 1];
    }
    return NULL;
}

static void digest_of(const struct credentials *credentials, const char *text, size_t len,
                      unsigned char *digest)
{
    crypto_shorthash_siphashx24(digest, (const unsigned char *)text, len, credentials->key);
}

static uint32_t hash_of(const unsigned char *digest)
{
    uint32_t hash;

    memcpy(&hash, digest, sizeof(hash));
    return hash;
}

/* Room for one more. Returns 0, or -1 when memory is out. */
static int make_room(void **items, size_t count, size_t *capacity, size_t item_bytes)
{
    const size_t wanted = *capacity ? *capacity * 2 : 4;

    if (count < *capacity)
        return 0;
    void *grown = realloc(*items, wanted * item_bytes);
    if (!grown)
        return -1;
    *items = grown;
    *capacity = wanted;
    return 0;
}
