/*
 * The passwords that are accepted. Kept as keyed digests only, compared in constant time.
 */
#ifndef REGISTRY_CREDENTIAL_H
#define REGISTRY_CREDENTIAL_H

#include <stdbool.h>
#include <stddef.h>

struct credentials;

/* An empty set, which accepts nothing. Returns NULL when memory is out. */
struct credentials *credentials_new(void);

/* NULL is allowed. */
void credentials_free(struct credentials *credentials);

/* Adds a password of 1 to 128 bytes; several may be valid at once, so that they can be rotated.
 * Returns 0, or -1 when memory is out. */
int credentials_add(struct credentials *credentials, const char *password, size_t len);

/* Is this line one of the passwords? Takes the same time whichever it is or how nearly. */
bool credentials_accept(const struct credentials *credentials, const char *line, size_t len);

#endif
