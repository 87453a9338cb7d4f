/*
 * What cliser-agent was told to do: its command line over its ini file over the defaults, checked
 * as a whole. One table describes the keys of [agent] and the options that have the same names.
 */
#ifndef CLIENT_AGENT_CONFIG_H
#define CLIENT_AGENT_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "endpoint.h"
#include "tls.h"

/* All text is owned. */
struct agent_config {
    char *server;
    char *id;
    char *password_file;
    char *on_shutdown; /* NULL: only say what would be done */
    uint64_t shutdown_delay_ms;
    bool once;
    bool use_tls;
    char *ca;   /* NULL: this system's CAs vouch for the server */
    char *cert; /* NULL: none is shown */
    char *key;

    /* Worked out from the above. */
    struct endpoint endpoint;
    char *password;
    struct tls_client *tls; /* NULL: plain TCP */
};

enum agent_config_verdict {
    AGENT_CONFIG_RUN,
    AGENT_CONFIG_DONE,  /* --help or --version was answered */
    AGENT_CONFIG_WRONG, /* everything that is wrong was printed to stderr */
};

/* Fills the zeroed *config. Whatever the verdict, it is to be cleared by agent_config_clear(). */
enum agent_config_verdict agent_config_read(struct agent_config *config, int argc, char **argv);

/* Frees the texts and what TLS needs, and wipes the password. */
void agent_config_clear(struct agent_config *config);

#endif
