/*
 * Files that hold secrets: which of them may be trusted, and reading them so that nothing stays in
 * memory but the secret itself. Knows nothing of what a secret is for.
 */
#include "base/settings_secret.h"

#include "base/settings.h"

#include <sodium.h>

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILE_BYTES  (1U << 20) /* far beyond any configuration; keeps /dev/zero out */
#define OTHERS          (S_IRWXO)
#define GROUP_MAY_WRITE (S_IWGRP)

/* Empty: nobody. */
static char trusted_user[256];
static uid_t trusted_uid;

static bool is_trusted(uid_t owner);
static const char *good_owner(char *buf, size_t size);
static char *read_all(int fd, size_t size, const char *path, size_t *len, char *message,
                      size_t message_size);

char *settings_read_secret(const char *path, char *message, size_t message_size)
{
    size_t len = 0;
    mode_t mode = 0;
    char *text = settings_read_file(path, true, &len, &mode, message, message_size);

    if (!text)
        return NULL;
    if (memchr(text, '\0', len)) {
        snprintf(message, message_size, "%s has a NUL byte in it; it should be one line of text",
                 path);
        sodium_memzero(text, len);
        free(text);
        return NULL;
    }
    /* Nobody keeps the other lines, which may hold the password before this one: wipe them here. */
    size_t line_len = strcspn(text, "\n");
    sodium_memzero(text + line_len, len - line_len);
    if (line_len > 0 && text[line_len - 1] == '\r')
        text[--line_len] = '\0';
    if (memchr(text, '\r', line_len)) {
        snprintf(message, message_size,
                 "the first line of %s has a CR in it; no client could send such a password", path);
        settings_free_secret(text);
        return NULL;
    }
    if (text[0] == '\0') {
        snprintf(message, message_size, "the first line of %s is empty; it should be the password",
                 path);
        settings_free_secret(text);
        return NULL;
    }
    return text;
}

int settings_secret_is_private(int fd, const char *path, char *message, size_t size)
{
    struct stat info;
    char owner[32];

    if (fstat(fd, &info) != 0) {
        snprintf(message, size, "%s: cannot be looked at: %s", path, strerror(errno));
        return -1;
    }
    if (!is_trusted(info.st_uid)) {
        snprintf(message, size, "%s: belongs to user %u, who could change it; chown %s %s", path,
                 (unsigned)info.st_uid, good_owner(owner, sizeof(owner)), path);
        return -1;
    }
    if (info.st_mode & OTHERS || info.st_mode & GROUP_MAY_WRITE) {
        const bool by_group_only = !(info.st_mode & OTHERS);

        snprintf(message, size, "%s: %s may %s it (mode %04o); chmod 640 %s", path,
                 by_group_only ? "its group" : "everyone",
                 by_group_only || info.st_mode & S_IWOTH ? "write" : "read",
                 (unsigned)(info.st_mode & 07777), path);
        return -1;
    }
    return 0;
}

void settings_trust_user(const char *user)
{
    const struct passwd *found = user ? getpwnam(user) : NULL;

    snprintf(trusted_user, sizeof(trusted_user), "%s", found ? user : "");
    trusted_uid = found ? found->pw_uid : 0;
}

void settings_free_secret(char *secret)
{
    if (secret)
        sodium_memzero(secret, strlen(secret));
    free(secret);
}

/* Links are followed: systems that mount secrets use them, and the file itself is what counts. */
char *settings_read_file(const char *path, bool secret, size_t *len, mode_t *mode, char *message,
                         size_t message_size)
{
    struct stat info;
    char *text = NULL;
    const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);

    if (fd < 0 || fstat(fd, &info) != 0) {
        snprintf(message, message_size, "%s: cannot be opened: %s", path, strerror(errno));
    } else if (!S_ISREG(info.st_mode) || info.st_size > (off_t)MAX_FILE_BYTES) {
        snprintf(message, message_size, "%s: is not a file of at most 1 MiB", path);
    } else if (!secret || settings_secret_is_private(fd, path, message, message_size) == 0) {
        *mode = info.st_mode;
        text = read_all(fd, (size_t)info.st_size, path, len, message, message_size);
    }
    if (fd >= 0)
        close(fd);
    return text;
}

static char *read_all(int fd, size_t size, const char *path, size_t *len, char *message,
                      size_t message_size)
{
    char *text = calloc(1, size + 1);

    if (!text) {
        snprintf(message, message_size, "%s: out of memory", path);
        return NULL;
    }
    *len = 0;
    while (*len < size) {
        const ssize_t got = read(fd, text + *len, size - *len);
        if (got == 0)
            break;
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            snprintf(message, message_size, "%s: cannot be read: %s", path, strerror(errno));
            sodium_memzero(text, *len);
            free(text);
            return NULL;
        }
        *len += (size_t)got;
    }
    return text;
}

static bool is_trusted(uid_t owner)
{
    return owner == 0 || owner == geteuid() || (trusted_user[0] != '\0' && owner == trusted_uid);
}

/* For chown. Returns buf, or a name that stays. */
static const char *good_owner(char *buf, size_t size)
{
    if (trusted_user[0] != '\0')
        return trusted_user;
    if (geteuid() == 0)
        return "root";
    snprintf(buf, size, "%u", (unsigned)geteuid());
    return buf;
}
