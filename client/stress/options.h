/* The command line of cliser-stress. */
#ifndef STRESS_OPTIONS_H
#define STRESS_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "sources.h"

/* Texts point into argv or are constants. */
struct stress_options {
    const char *server;
    uint64_t clients;
    uint64_t rate; /* a second; 0: as fast as inflight allows */
    uint64_t inflight;
    uint64_t hold_ms;
    uint64_t timeout_ms;
    uint32_t silent; /* thousandths of a percent */
    bool churn;
    const char *password;
    const char *id_prefix;
    struct sources sources; /* count 0: not given */
    bool tls;
    bool insecure;         /* the server's certificate is not verified */
    const char *ca;        /* NULL: the system's */
    const char *cert;      /* NULL: none */
    const char *key;       /* together with it */
    const char *json_path; /* NULL: none, "-": standard output */
};

enum options_result {
    OPTIONS_RUN,
    OPTIONS_DONE,  /* help or version was shown */
    OPTIONS_WRONG, /* said on stderr */
};

enum options_result options_parse(int argc, char **argv, struct stress_options *options);

#endif
