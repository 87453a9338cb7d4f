/* Reading whole files without leaving them in memory. Private to the reader of settings. */
#ifndef BASE_SETTINGS_SECRET_H
#define BASE_SETTINGS_SECRET_H

#include <stdbool.h>
#include <stddef.h>

#include <sys/types.h>

/*
 * Reads a regular file of at most 1 MiB; never waits, not even for a FIFO. With secret it has to be
 * private (settings_secret_is_private()). Returns *len bytes and a NUL on the heap, to be wiped and
 * freed by the caller, or NULL with "path: what is wrong" in message. *mode is as stat() has it.
 */
char *settings_read_file(const char *path, bool secret, size_t *len, mode_t *mode, char *message,
                         size_t message_size);

#endif
