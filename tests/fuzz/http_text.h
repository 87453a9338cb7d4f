/* What has to be true of an answer of the control API, whatever was asked. */
#ifndef FUZZ_HTTP_TEXT_H
#define FUZZ_HTTP_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Is it one JSON value, an object unless it is an error of the library's own? */
void http_text_check_json(const char *text, size_t len);

/* Is it Prometheus' text format 0.0.4: comments, and samples with a name, labels and a number? */
void http_text_check_metrics(const char *text, size_t len);

#endif
