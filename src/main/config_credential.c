/*
 * Passwords in cliser.ini and in the files that it names: whose they are, which IDs they cover, and
 * that no secret is missing, there twice or known to everyone. What a credential may do is
 * registry/credential.c's.
 */
#include "main/config_credential.h"

#include "base/address.h"
#include "cliser/proto.h"
#include "registry/glob.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The password in the shipped cliser.ini: everyone knows it. */
#define SHIPPED_PASSWORD "cliser"

/* Zeroed before the first password. */
struct password_cursor {
    size_t inline_ones; /* that were passed */
    size_t in_files;
    unsigned line; /* of the last one */
};

static bool check_name(const char *name, size_t len, unsigned line, struct settings_report *report);
static void read_password_files(struct config_credential *credential,
                                struct settings_report *report);
static void check_credential(const struct config *config,
                             const struct config_credential *credential,
                             struct settings_report *report);
static void check_ids(const struct config_credential *credential, struct settings_report *report);
static void check_password(const char *password, unsigned line, struct settings_report *report);
static bool has_error_about(const struct config *config, const struct config_credential *credential,
                            const char *key, const struct settings_report *report);
static void check_owners(const struct config *config, struct settings_report *report);
static unsigned line_of_name(const struct config *config, const char *name);
static void complain_of_owner(const struct credentials *credentials, const char *password,
                              unsigned line, struct settings_report *report);
static bool is_shown(const struct config *config, const struct settings_report *report);
static unsigned shipped_password_line(const struct config *config);
static enum credential_result build(const struct config *config, struct credentials *credentials);
static enum credential_result begin(struct credentials *credentials,
                                    const struct config_credential *credential);
static const struct config_credential *credential_at(const struct config *config, size_t index);
static const char *next_password(const struct config_credential *credential,
                                 struct password_cursor *cursor);
static void forget_passwords(struct config_credential *credential);

/* A section with a bad name is read all the same, for the errors in it. */
void *config_credential_begin(void *out, const char *name, size_t len, unsigned line,
                              struct settings_report *report)
{
    struct config *config = out;
    struct config_credential *credentials =
        realloc(config->credentials, (config->credential_count + 1) * sizeof(*credentials));

    if (!credentials) {
        report->out_of_memory = true;
        return NULL;
    }
    config->credentials = credentials;
    struct config_credential *credential = &credentials[config->credential_count++];
    *credential = (struct config_credential){.line = line};
    if (check_name(name, len, line, report))
        memcpy(credential->name, name, len);
    return credential;
}

void config_credentials_check(struct config *config, struct settings_report *report)
{
    read_password_files(&config->auth, report);
    for (size_t i = 0; i < config->credential_count; i++)
        read_password_files(&config->credentials[i], report);

    if (config->credential_count == 0 &&
        config->auth.passwords.count + config->auth.password_files.count == 0 &&
        settings_line(report, "auth", "password") == 0)
        settings_report_add(report, report->lines > 0 ? report->lines : 1,
                            "the file ends without a password; [auth] needs password = … or "
                            "password_file = …");
    for (size_t i = 0; i <= config->credential_count; i++)
        check_credential(config, credential_at(config, i), report);
    check_owners(config, report);
    if (!config_exposes_shipped_password(config, &config->listen, report))
        (void)config_exposes_shipped_password(config, &config->tls_listen, report);
    config->shows_passwords = is_shown(config, report);
}

struct credentials *config_credentials(const struct config *config)
{
    struct credentials *credentials = credentials_new();

    if (credentials && build(config, credentials) != CREDENTIAL_ADDED) {
        credentials_free(credentials);
        return NULL;
    }
    return credentials;
}

bool config_exposes_shipped_password(const struct config *config,
                                     const struct settings_list *listen,
                                     struct settings_report *report)
{
    struct address address;
    char message[256];
    const unsigned line = shipped_password_line(config);

    for (size_t i = 0; i < listen->count && line != 0; i++) {
        if (address_parse(listen->items[i], &address, message, sizeof(message)) != 0 ||
            address_is_loopback(&address))
            continue;
        settings_report_add(report, line,
                            "this is the password that cliser is shipped with; choose another "
                            "before listening on %s, or listen on 127.0.0.1",
                            listen->items[i]);
        return true;
    }
    return false;
}

void config_credentials_forget(struct config *config)
{
    forget_passwords(&config->auth);
    for (size_t i = 0; i < config->credential_count; i++)
        forget_passwords(&config->credentials[i]);
}

static bool check_name(const char *name, size_t len, unsigned line, struct settings_report *report)
{
    if (len == 0) {
        settings_report_add(report, line, "a credential needs a name, such as [credential web]");
        return false;
    }
    if (!credential_name_valid(name, len)) {
        settings_report_add(report, line,
                            "the name of a credential has 1 to %d of A-Z a-z 0-9 . _ : @ -, as in "
                            "[credential web]",
                            CREDENTIAL_NAME_MAX_BYTES);
        return false;
    }
    if (len == strlen(CREDENTIAL_NAME_AUTH) && memcmp(name, CREDENTIAL_NAME_AUTH, len) == 0) {
        settings_report_add(report, line,
                            CREDENTIAL_NAME_AUTH " is what clients of [auth] come with; choose "
                                                 "another name");
        return false;
    }
    return true;
}

static void read_password_files(struct config_credential *credential,
                                struct settings_report *report)
{
    const struct settings_list *files = &credential->password_files;
    char message[512];

    for (size_t i = 0; i < files->count; i++) {
        char *password = settings_read_secret(files->items[i], message, sizeof(message));

        if (!password) {
            settings_report_add(report, files->lines[i], "password_file: %s", message);
            continue;
        }
        if (settings_list_add(&credential->file_passwords, password, files->lines[i]) != 0)
            settings_report_add(report, files->lines[i], "password_file: out of memory");
        settings_free_secret(password);
    }
}

static void check_credential(const struct config *config,
                             const struct config_credential *credential,
                             struct settings_report *report)
{
    struct password_cursor cursor = {.line = 0};
    const char *password;

    while ((password = next_password(credential, &cursor)) != NULL)
        check_password(password, cursor.line, report);
    if (credential->line == 0)
        return;
    check_ids(credential, report);
    if (credential->passwords.count + credential->password_files.count == 0 &&
        !has_error_about(config, credential, "password", report))
        settings_report_add(report, credential->line,
                            "this section has no password; it needs password = … or "
                            "password_file = …");
    if (credential->ids.count == 0 && !has_error_about(config, credential, "ids", report))
        settings_report_add(report, credential->line,
                            "this section has no ids; it needs ids = …, such as ids = web-*, "
                            "nas-1; * is for all");
}

static void check_ids(const struct config_credential *credential, struct settings_report *report)
{
    const struct settings_list *ids = &credential->ids;
    char message[256];
    size_t weight = 0;

    for (size_t i = 0; i < ids->count; i++) {
        const char *glob = ids->items[i];

        if (glob_check(glob, message, sizeof(message)) != 0) {
            settings_report_add(report, ids->lines[i], "ids: %s", message);
        } else if (!glob_is_closed(glob)) {
            settings_report_add(report, ids->lines[i],
                                "ids: \"%s\" has a [ without a ], and would match no ID; [a-c] "
                                "is one of a, b, c",
                                glob);
        } else if (!glob_is_plain(glob)) {
            const size_t before = weight;
            weight += glob_weight(glob);
            if (before <= CREDENTIAL_MAX_WEIGHT && weight > CREDENTIAL_MAX_WEIGHT)
                settings_report_add(report, ids->lines[i],
                                    "ids: comparing each ID with so many patterns takes too long; "
                                    "use fewer or shorter ones, or IDs without * ? [");
        }
    }
}

static void check_password(const char *password, unsigned line, struct settings_report *report)
{
    if (!proto_password_valid(password, strlen(password)))
        settings_report_add(report, line, "this password has %zu bytes; it should have 1 to %d",
                            strlen(password), PROTO_MAX_PASSWORD_BYTES);
}

/* A key that is wrong is not missing as well. */
static bool has_error_about(const struct config *config, const struct config_credential *credential,
                            const char *key, const struct settings_report *report)
{
    const struct config_credential *next = credential + 1;
    const bool is_last = next == config->credentials + config->credential_count;

    for (size_t i = 0; i < report->count; i++) {
        const struct settings_error *error = &report->errors[i];
        if (error->line > credential->line && (is_last || error->line < next->line) &&
            strncmp(error->text, key, strlen(key)) == 0)
            return true;
    }
    return false;
}

/* Each name stands there once, and each password belongs to one of them. As build(), but for IDs,
 * which may be wrong, and goes on behind an error. */
static void check_owners(const struct config *config, struct settings_report *report)
{
    struct credentials *credentials = credentials_new();
    enum credential_result result = credentials ? CREDENTIAL_ADDED : CREDENTIAL_OUT_OF_MEMORY;

    for (size_t i = 0; i <= config->credential_count && result != CREDENTIAL_OUT_OF_MEMORY; i++) {
        const struct config_credential *credential = credential_at(config, i);
        struct password_cursor cursor = {.line = 0};
        const char *password;

        if (credential->name[0] == '\0')
            continue; /* its name is wrong */
        result = credentials_begin(credentials, credential->name, NULL);
        if (result == CREDENTIAL_TAKEN) {
            settings_report_add(report, credential->line,
                                "[credential %s] stands in line %u already; put all its keys there",
                                credential->name, line_of_name(config, credential->name));
            continue;
        }
        while (result != CREDENTIAL_OUT_OF_MEMORY &&
               (password = next_password(credential, &cursor)) != NULL) {
            result = credentials_add(credentials, password, strlen(password));
            if (result == CREDENTIAL_TAKEN)
                complain_of_owner(credentials, password, cursor.line, report);
        }
    }
    report->out_of_memory |= result == CREDENTIAL_OUT_OF_MEMORY;
    credentials_free(credentials);
}

/* Of those with this name, the first section. */
static unsigned line_of_name(const struct config *config, const char *name)
{
    size_t i = 0;

    while (strcmp(config->credentials[i].name, name) != 0)
        i++;
    return config->credentials[i].line;
}

static void complain_of_owner(const struct credentials *credentials, const char *password,
                              unsigned line, struct settings_report *report)
{
    const char *name = credential_name(credentials_owner(credentials, password, strlen(password)));
    const bool is_auth = strcmp(name, CREDENTIAL_NAME_AUTH) == 0;

    settings_report_add(report, line,
                        "this is the password of [%s%s] as well; each credential needs its own, "
                        "since it says which one a client came with",
                        is_auth ? "" : "credential ", name);
}

/* The shipped password is known anyway. */
static bool is_shown(const struct config *config, const struct settings_report *report)
{
    if (!(report->mode & S_IROTH))
        return false;
    for (size_t i = 0; i <= config->credential_count; i++) {
        const struct settings_list *passwords = &credential_at(config, i)->passwords;

        for (size_t j = 0; j < passwords->count; j++) {
            if (strcmp(passwords->items[j], SHIPPED_PASSWORD) != 0)
                return true;
        }
    }
    return false;
}

/* The line of the shipped password, or 0. */
static unsigned shipped_password_line(const struct config *config)
{
    for (size_t i = 0; i <= config->credential_count; i++) {
        struct password_cursor cursor = {.line = 0};
        const char *password;

        while ((password = next_password(credential_at(config, i), &cursor)) != NULL) {
            if (strcmp(password, SHIPPED_PASSWORD) == 0)
                return cursor.line;
        }
    }
    return 0;
}

/* Fills the empty set. Returns CREDENTIAL_TAKEN when a name or a password stands there twice, which
 * config_load() has found. */
static enum credential_result build(const struct config *config, struct credentials *credentials)
{
    enum credential_result result = CREDENTIAL_ADDED;

    for (size_t i = 0; i <= config->credential_count && result == CREDENTIAL_ADDED; i++) {
        const struct config_credential *credential = credential_at(config, i);
        struct password_cursor cursor = {.line = 0};
        const char *password;

        result = begin(credentials, credential);
        while (result == CREDENTIAL_ADDED &&
               (password = next_password(credential, &cursor)) != NULL)
            result = credentials_add(credentials, password, strlen(password));
    }
    return result;
}

static enum credential_result begin(struct credentials *credentials,
                                    const struct config_credential *credential)
{
    enum credential_result result = CREDENTIAL_OUT_OF_MEMORY;
    char *globs = NULL;
    size_t len = 0;
    FILE *out = NULL;

    if (credential->line == 0)
        return credentials_begin(credentials, credential->name, NULL);
    out = open_memstream(&globs, &len);
    for (size_t i = 0; out && i < credential->ids.count; i++)
        fprintf(out, "%s%s", i > 0 ? "," : "", credential->ids.items[i]);
    if (out && fclose(out) == 0)
        result = credentials_begin(credentials, credential->name, globs);
    free(globs);
    return result;
}

/* [auth], and then the sections. */
static const struct config_credential *credential_at(const struct config *config, size_t index)
{
    return index == 0 ? &config->auth : &config->credentials[index - 1];
}

/* The passwords of a credential in the order of their lines, wherever they are; NULL behind the
 * last one. */
static const char *next_password(const struct config_credential *credential,
                                 struct password_cursor *cursor)
{
    const struct settings_list *inline_ones = &credential->passwords;
    const struct settings_list *in_files = &credential->file_passwords;
    const size_t i = cursor->inline_ones;
    const size_t j = cursor->in_files;

    if (i < inline_ones->count &&
        (j == in_files->count || inline_ones->lines[i] < in_files->lines[j])) {
        cursor->inline_ones++;
        cursor->line = inline_ones->lines[i];
        return inline_ones->items[i];
    }
    if (j == in_files->count)
        return NULL;
    cursor->in_files++;
    cursor->line = in_files->lines[j];
    return in_files->items[j];
}

static void forget_passwords(struct config_credential *credential)
{
    settings_list_clear(&credential->passwords);
    settings_list_clear(&credential->file_passwords);
}
