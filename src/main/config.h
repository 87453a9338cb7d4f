/* cliser.ini: every key, its default and its bounds, and what the keys must be together. */
#ifndef MAIN_CONFIG_H
#define MAIN_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "base/settings.h"
#include "registry/credential.h"
#include "session/session.h"
#include "store/store.h"

/* The table of keys, in the order of the file. docs/configuration.md is about the same keys. */
extern const struct setting config_table[];
extern const size_t config_rows;

/* And that of each [credential NAME]. All of its keys can be reloaded. */
extern const struct setting config_credential_table[];
extern const size_t config_credential_rows;

/* Passwords, and the IDs that they are for: [auth], or a [credential NAME]. */
struct config_credential {
    char name[CREDENTIAL_NAME_MAX_BYTES + 1]; /* CREDENTIAL_NAME_AUTH for [auth] */
    unsigned line;                            /* of its header; 0 for [auth] */
    struct settings_list passwords;
    struct settings_list password_files;
    struct settings_list file_passwords; /* what password_files hold */
    struct settings_list ids;            /* globs; unused for [auth], which is for all */
};

/* Everything the file says. The parts are the options of the modules they are named after. */
struct config {
    struct settings_list listen;
    struct settings_list tls_listen;
    char *tls_cert;
    char *tls_key;
    char *tls_client_ca;
    struct tls *tls; /* made of these files; NULL without tls_listen */
    uint64_t backlog;
    bool reuse_port;
    char *user; /* NULL: stay who we are */
    bool seccomp;
    uint64_t drain_ms;
    struct config_credential auth;
    struct config_credential *credentials; /* the sections, in the order of the file */
    size_t credential_count;
    bool shows_passwords; /* everybody on this host may read the file, and a password in it */
    struct sessions_options sessions;
    struct store_options store; /* without node */
    char *control_socket;
    char *control_http; /* NULL: none */
    char *control_token_file;
    char *control_token;    /* what it holds; NULL without the file */
    struct log_options log; /* without program */
};

/*
 * Reads and checks the file. Returns 0, or -1 with every error in *report. Either way *config and
 * *report are to be cleared; path must outlive the report.
 */
int config_load(const char *path, struct config *config, struct settings_report *report);

/*
 * Is the password that everyone knows among the passwords while one of these addresses is reachable
 * from other hosts? Adds an error to the report and returns true if so. For the addresses that are
 * really open at a reload; config_load() has looked at those of the file.
 */
bool config_exposes_shipped_password(const struct config *config,
                                     const struct settings_list *listen,
                                     struct settings_report *report);

/* What needs to hold at the start only: adds errors to the report. Asks the system, and may wait
 * for it. */
void config_check_start(const struct config *config, struct settings_report *report);

/* Wipes the passwords and the token; config_credentials() and config_tokens() can no longer be
 * called. */
void config_forget_passwords(struct config *config);

/* What was made of the certificates, now the caller's. */
struct tls *config_take_tls(struct config *config);

/* The passwords as a set to be handed to sessions_new(). Returns NULL when memory is out. */
struct credentials *config_credentials(const struct config *config);

/* The token for [control] http, for http_new(). Returns NULL when memory is out. */
struct credentials *config_tokens(const struct config *config);

/* Frees what config_load() made, and wipes the passwords. */
void config_clear(struct config *config);

#endif
