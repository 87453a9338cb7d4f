/* The folder stands in memory where there is such a place: SQLite's files are made and removed
 * some hundred times a second. */
#include "folder.h"

#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

static char path[64];
static int folder_fd = -1;
static int before_fd = -1;

static void remove_folder(void);

const char *folder_path(void)
{
    if (folder_fd >= 0)
        return path;
    snprintf(path, sizeof(path), "%s/cliser-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    fuzz_require(mkdtemp(path));
    folder_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    before_fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    fuzz_require(folder_fd >= 0 && before_fd >= 0);
    fuzz_require(atexit(remove_folder) == 0);
    return path;
}

void folder_put(const char *name, const void *bytes, size_t len)
{
    (void)folder_path();
    const int fd = openat(folder_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    fuzz_require(fd >= 0);
    fuzz_require(len == 0 || write(fd, bytes, len) == (ssize_t)len);
    close(fd);
}

void folder_remove(const char *name)
{
    (void)folder_path();
    (void)unlinkat(folder_fd, name, 0);
}

void folder_enter(void)
{
    (void)folder_path();
    fuzz_require(fchdir(folder_fd) == 0);
}

void folder_leave(void)
{
    fuzz_require(fchdir(before_fd) == 0);
}

static void remove_folder(void)
{
    DIR *folder = fdopendir(folder_fd);
    const struct dirent *entry = NULL;

    while (folder && (entry = readdir(folder)) != NULL)
        (void)unlinkat(folder_fd, entry->d_name, 0);
    if (folder)
        (void)closedir(folder);
    (void)rmdir(path);
}
