/*
 * The passwords that are accepted, and which IDs each of them covers. Passwords are kept as keyed
 * digests only.
 */
#ifndef REGISTRY_CREDENTIAL_H
#define REGISTRY_CREDENTIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "registry/credential_name.h"

/* What comparing one ID with the globs of one credential may cost (sum of glob_weight()): 15 us, if
 * they are short. */
#define CREDENTIAL_MAX_WEIGHT 1000

struct credentials;

enum credential_result {
    CREDENTIAL_ADDED,
    CREDENTIAL_TAKEN,         /* the set has this name, or this password in another credential */
    CREDENTIAL_OUT_OF_MEMORY, /* or out of numbers for names */
};

/* Which credential a password belongs to, and which of its passwords it is. */
struct credential_match {
    uint16_t credential; /* number of its name */
    uint16_t password;   /* from 1, in the order in which they were added, 65535 for all beyond */
};

/* What has happened to a password since the set was made. */
struct credential_use {
    struct credential_match who;
    uint64_t logins;
    int64_t last; /* Unix seconds; 0: never */
};

/* An empty set, which accepts nothing. Returns NULL when memory is out. */
struct credentials *credentials_new(void);

/* NULL is allowed. */
void credentials_free(struct credentials *credentials);

/*
 * Begins a credential: the passwords that are added next are its. ids are globs, separated by
 * commas, that glob_check() takes, or NULL for all IDs; name is a valid one.
 */
enum credential_result credentials_begin(struct credentials *credentials, const char *name,
                                         const char *ids);

/* Adds a password of 1 to 128 bytes; several may be valid at once, so that they can be rotated. One
 * that the same credential has already is counted, and that is all. Before credentials_begin() the
 * credential is CREDENTIAL_NAME_AUTH, for all IDs. */
enum credential_result credentials_add(struct credentials *credentials, const char *password,
                                       size_t len);

/* Is this line one of the passwords? Takes the same time however nearly it is one, and however many
 * there are. */
bool credentials_accept(const struct credentials *credentials, const char *line, size_t len);

/* The number of the name of the credential that has this password; 0 if none has. */
uint16_t credentials_owner(const struct credentials *credentials, const char *line, size_t len);

/* As credentials_accept(), for a client that logs in now (Unix seconds): says in *match whom by,
 * and counts it. */
bool credentials_log_in(struct credentials *credentials, const char *line, size_t len, int64_t now,
                        struct credential_match *match);

/* May who came with a password of this credential have this valid ID? No, if the set has no such
 * credential: a reload may have taken it away meanwhile. */
bool credentials_allow(const struct credentials *credentials, uint16_t credential, const char *id,
                       size_t len);

/* The index-th password, from 0 in the order of adding. Returns false when there is none. */
bool credentials_use(const struct credentials *credentials, size_t index,
                     struct credential_use *use);

#endif
