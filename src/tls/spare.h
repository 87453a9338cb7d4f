/*
 * Memory set aside for libevent, where it does not survive that there is none: version 2.1 makes a
 * bufferevent for OpenSSL in several pieces and jumps to address 0 when one is missing.
 */
#ifndef TLS_SPARE_H
#define TLS_SPARE_H

#include <stdbool.h>

/* Libevent takes its memory by way of here from now on; before its first use. Without this the
 * other two do nothing. */
void spare_install(void);

/* Until spare_end(), SPARE_PIECES allocations of libevent, of up to SPARE_BYTES, do not fail.
 * False: there is no memory to set aside. */
bool spare_begin(void);
void spare_end(void);

#define SPARE_PIECES 6
#define SPARE_BYTES  1024

#endif
