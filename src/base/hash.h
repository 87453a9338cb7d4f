/*
 * Keyed hashing: SipHash (libsodium) under a key drawn at start, so that nobody outside can choose
 * IDs that collide, and so that numbers made from a counter cannot be foreseen.
 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* Starts libsodium and draws the key. Call once before anything else here. Returns 0, or -1 when
 * the system has no randomness to give. */
int hash_init(void);

/* 64 well-mixed bits from len bytes. */
uint64_t hash_bytes(const void *bytes, size_t len);

/* 64 bits that look random and are the same for the same number until the process ends. */
uint64_t hash_number(uint64_t number);

#endif
