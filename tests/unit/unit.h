/* What every unit test needs: cmocka with the headers it wants before itself, and shorthands. */
#ifndef TESTS_UNIT_H
#define TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A string literal with its length, for texts with NUL bytes in them. */
#define BYTES(literal) (literal), (sizeof(literal) - 1)

#endif
