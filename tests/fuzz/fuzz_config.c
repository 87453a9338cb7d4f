/*
 * cliser.ini: the input is the file. What is accepted, written down again from the table of keys,
 * must be accepted and be the same; and has no key that is not in the table, by a second look at
 * its lines. What is refused has at least one error, and each of them a line of the file and a
 * text of one line.
 */
#include "main/config.h"

#include "base/units.h"

#include "folder.h"
#include "fuzz.h"

#include <inttypes.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_FILE_BYTES 16384
/* inih takes no longer line; a list item of a continued line may want one when it has its key. */
#define MAX_INI_LINE 190

static char file_path[64];
static char again_path[64];
static int file_fd = -1;
static int again_fd = -1;

static void prepare(void);
static int open_file(const char *name, char *path, size_t size);
static void rewrite(int fd, const void *bytes, size_t size);
static void check_accepted(const struct config *config, const char *text, size_t len);
static void check_refused(const struct settings_report *report, const char *text, size_t len);
static void check_keys(char *text);
static bool serialise(FILE *out, const struct config *config);
static bool put_value(FILE *out, const struct setting *row, const void *place);
static bool put_line(FILE *out, const char *key, const char *value);
static size_t password_count(const struct config_credential *credential);
static const struct setting *find_key(const char *section, const char *key);
static void check_same_credential(const struct config_credential *left,
                                  const struct config_credential *right);
static void check_same_list(const struct settings_list *left, const struct settings_list *right);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config config;
    struct settings_report report;

    if (size > MAX_FILE_BYTES)
        return -1;
    prepare();
    rewrite(file_fd, data, size);
    folder_enter();

    const int result = config_load(file_path, &config, &report);
    fuzz_require((result == 0) == settings_report_is_empty(&report));
    if (result == 0)
        check_accepted(&config, (const char *)data, size);
    else
        check_refused(&report, (const char *)data, size);
    settings_report_clear(&report);
    config_clear(&config);
    folder_leave();
    return 0;
}

/* The files that seeds name, in a folder of our own, so that no input reads anything else. */
static void prepare(void)
{
    static const char password[] = "correct horse\n";
    static const char token[] = "token-of-20-characters\n";

    if (file_fd >= 0)
        return;
    folder_put("password", password, strlen(password));
    folder_put("token", token, strlen(token));
    folder_put("empty", "", 0);
    file_fd = open_file("file", file_path, sizeof(file_path));
    again_fd = open_file("again", again_path, sizeof(again_path));
}

static int open_file(const char *name, char *path, size_t size)
{
    const int fd = memfd_create(name, MFD_CLOEXEC);

    fuzz_require(fd >= 0);
    snprintf(path, size, "/proc/self/fd/%d", fd);
    return fd;
}

static void rewrite(int fd, const void *bytes, size_t size)
{
    fuzz_require(ftruncate(fd, 0) == 0);
    fuzz_require(size == 0 || pwrite(fd, bytes, size, 0) == (ssize_t)size);
}

static void check_accepted(const struct config *config, const char *text, size_t len)
{
    struct config again;
    struct settings_report report;
    char *written = NULL;
    size_t written_len = 0;
    char *copy = fuzz_string(text, len);

    fuzz_require(memchr(text, '\0', len) == NULL);
    fuzz_require(config->listen.count > 0);
    fuzz_require(password_count(&config->auth) > 0 || config->credential_count > 0);
    for (size_t i = 0; i < config->credential_count; i++) {
        fuzz_require(password_count(&config->credentials[i]) > 0);
        fuzz_require(config->credentials[i].ids.count > 0);
    }
    fuzz_require(!config->control_http || config->control_token);
    check_keys(copy);
    free(copy);

    FILE *out = open_memstream(&written, &written_len);
    fuzz_require(out);
    const bool is_writable = serialise(out, config);
    fuzz_require(fclose(out) == 0);
    if (is_writable) {
        rewrite(again_fd, written, written_len);
        if (config_load(again_path, &again, &report) != 0) {
            settings_report_print(&report, "again");
            fuzz_require(!"what was accepted is accepted when it is written down again");
        }
        for (size_t i = 0; i < config_rows; i++)
            fuzz_require(settings_equal(&config_table[i], config, &again));
        check_same_list(&config->auth.file_passwords, &again.auth.file_passwords);
        fuzz_require(config->credential_count == again.credential_count);
        for (size_t i = 0; i < config->credential_count; i++)
            check_same_credential(&config->credentials[i], &again.credentials[i]);
        fuzz_require(!config->control_token == !again.control_token);
        settings_report_clear(&report);
        config_clear(&again);
    }
    free(written);
}

static void check_refused(const struct settings_report *report, const char *text, size_t len)
{
    unsigned lines = 1;
    char shown[1024];

    fuzz_require(!report->out_of_memory && report->count > 0);
    for (size_t i = 0; i < len; i++)
        lines += text[i] == '\n';
    for (size_t i = 0; i < report->count; i++) {
        const char *message = report->errors[i].text;

        fuzz_require(report->errors[i].line <= lines);
        fuzz_require(report->errors[i].line > 0 || report->count == 1);
        fuzz_require(i == 0 || report->errors[i].line >= report->errors[i - 1].line);
        fuzz_require(message && message[0] != '\0' && !strchr(message, '\n'));
        settings_report_text(report, i, shown, sizeof(shown));
        fuzz_require(strncmp(shown, file_path, strlen(file_path)) == 0);
    }
}

/* By a look at the lines alone. */
static void check_keys(char *text)
{
    char *rest = strncmp(text, "\xef\xbb\xbf", 3) == 0 ? text + 3 : text;
    char *section = NULL;
    bool has_key = false;
    char *line = NULL;

    while ((line = strsep(&rest, "\n")) != NULL) {
        const size_t blank = strspn(line, " \t\r\f\v");
        char *begin = line + blank;

        if (*begin == '\0' || *begin == ';' || *begin == '#')
            continue;
        if (blank > 0 && has_key)
            continue; /* more of the key before */
        if (*begin == '[') {
            section = begin + 1;
            section[strcspn(section, "]")] = '\0';
            has_key = false;
            continue;
        }
        char *key = begin;
        size_t key_len = strcspn(key, "=:");
        fuzz_require(key[key_len] != '\0' && section);
        while (key_len > 0 && strchr(" \t\r\f\v", key[key_len - 1]))
            key_len--;
        key[key_len] = '\0';
        fuzz_require(find_key(section, key));
        has_key = true;
    }
}

/* In the table, or for [credential NAME] in that of credentials. */
static const struct setting *find_key(const char *section, const char *key)
{
    static const char named[] = "credential";
    const size_t len = strlen(named);

    if (strncmp(section, named, len) == 0 && strchr(" \t", section[len]))
        return settings_find(config_credential_table, config_credential_rows, named, key);
    return settings_find(config_table, config_rows, section, key);
}

/* Returns false for what cannot be written down in lines that are short enough. */
static bool serialise(FILE *out, const struct config *config)
{
    const char *section = "";

    for (size_t i = 0; i < config_rows; i++) {
        const struct setting *row = &config_table[i];

        if (strcmp(section, row->section) != 0)
            fprintf(out, "[%s]\n", row->section);
        section = row->section;
        if (!put_value(out, row, (const char *)config + row->offset))
            return false;
    }
    for (size_t i = 0; i < config->credential_count; i++) {
        const struct config_credential *credential = &config->credentials[i];

        fprintf(out, "[credential %s]\n", credential->name);
        for (size_t j = 0; j < config_credential_rows; j++) {
            const struct setting *row = &config_credential_table[j];

            if (!put_value(out, row, (const char *)credential + row->offset))
                return false;
        }
    }
    return true;
}

static bool put_value(FILE *out, const struct setting *row, const void *place)
{
    char number[UNITS_TEXT_BYTES];
    const char *value = NULL;

    switch (row->type) {
    case SETTING_BOOL:
        value = *(const bool *)place ? "yes" : "no";
        break;
    case SETTING_NUMBER:
        snprintf(number, sizeof(number), "%" PRIu64, *(const uint64_t *)place);
        value = number;
        break;
    case SETTING_DURATION:
        value = row->word && *(const uint64_t *)place == SETTING_NEVER
                    ? row->word
                    : units_format_duration(*(const uint64_t *)place, number);
        break;
    case SETTING_CHOICE:
        value = row->choices[*(const int *)place];
        break;
    case SETTING_TEXT:
        value = *(char *const *)place;
        if (!value)
            return true;
        break;
    case SETTING_LIST:
    case SETTING_LINES: {
        const struct settings_list *list = place;
        for (size_t i = 0; i < list->count; i++) {
            if (!put_line(out, row->key, list->items[i]))
                return false;
        }
        return true;
    }
    }
    return put_line(out, row->key, value);
}

/* Without a blank before the value, which could make a ; in it the begin of a comment. */
static bool put_line(FILE *out, const char *key, const char *value)
{
    fprintf(out, "%s=%s\n", key, value);
    return strlen(key) + strlen(value) < MAX_INI_LINE;
}

static void check_same_list(const struct settings_list *left, const struct settings_list *right)
{
    fuzz_require(left->count == right->count);
    for (size_t i = 0; i < left->count; i++)
        fuzz_require(strcmp(left->items[i], right->items[i]) == 0);
}

static size_t password_count(const struct config_credential *credential)
{
    return credential->passwords.count + credential->file_passwords.count;
}

static void check_same_credential(const struct config_credential *left,
                                  const struct config_credential *right)
{
    fuzz_require(strcmp(left->name, right->name) == 0);
    for (size_t i = 0; i < config_credential_rows; i++)
        fuzz_require(settings_equal(&config_credential_table[i], left, right));
    check_same_list(&left->file_passwords, &right->file_passwords);
}
