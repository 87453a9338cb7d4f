/* Reading and printing the API's objects. What is not there, or of another type, is empty or 0: a
 * newer or older server should not stop a command that needs something else of it. */
#ifndef CTL_FIELDS_H
#define CTL_FIELDS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <jansson.h>

const char *field_text(const json_t *object, const char *key);
int64_t field_int(const json_t *object, const char *key);

/* As field_int(), with 0 for what is negative. */
uint64_t field_count(const json_t *object, const char *key);
bool field_true(const json_t *object, const char *key);

/* Is it there, and not null? */
bool field_given(const json_t *object, const char *key);

/* Writes a value on one line, with the same fields in the same order. */
void field_print_line(const json_t *value, FILE *out);

#endif
