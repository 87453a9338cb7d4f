/* [auth] and the [credential NAME] sections. Private to config.c; config.h has what others use. */
#ifndef MAIN_CONFIG_CREDENTIAL_H
#define MAIN_CONFIG_CREDENTIAL_H

#include "main/config.h"

/* The begin of a section with a name, for struct settings_named: out is the struct config. */
void *config_credential_begin(void *out, const char *name, size_t len, unsigned line,
                              struct settings_report *report);

/* Reads the files of passwords and checks all credentials; adds every error to the report. */
void config_credentials_check(struct config *config, struct settings_report *report);

/* Wipes and frees their passwords. */
void config_credentials_forget(struct config *config);

#endif
