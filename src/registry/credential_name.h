/*
 * Names of credentials as small numbers, for records and sessions, which are many. A number means
 * the same name for as long as the process lives, whatever a reload does to the credentials.
 */
#ifndef REGISTRY_CREDENTIAL_NAME_H
#define REGISTRY_CREDENTIAL_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CREDENTIAL_NAME_MAX_BYTES 32

/* The name of [auth], which no section may have. */
#define CREDENTIAL_NAME_AUTH "auth"

/* Can this be a section's name, as far as its grammar goes (an ID's, and short)? */
bool credential_name_valid(const char *name, size_t len);

/* The number of a valid name: from 1, the next one if it is new. Returns 0 when memory is out, or
 * after 65535 different names. */
uint16_t credential_name_number(const char *name);

/* The name; "" for 0, which is nobody's. Never NULL, never freed. */
const char *credential_name(uint16_t number);

#endif
