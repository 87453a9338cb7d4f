/*
 * A disk that fails or is slow, for the files of one database: preloaded into cliserd. The first
 * byte of the file that CLISER_DISK_CONTROL names says what it does, and may change at any time.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum disk_mode {
    DISK_WORKS = '0',
    DISK_WRITE_FAILS = 'w',
    DISK_SYNC_FAILS = 's',
    DISK_OPEN_FAILS = 'o',
    DISK_READ_FAILS = 'r',
    DISK_IS_READ_ONLY = 'e', /* as when a file system was mounted anew after an error */
    DISK_IS_SLOW = 'z',
};

#define SLOW_S 3

static volatile const char *control;

__attribute__((constructor)) static void disk_init(void)
{
    const char *path = getenv("CLISER_DISK_CONTROL");
    const int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

    if (fd < 0)
        return;
    void *mapped = mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED)
        control = mapped;
    close(fd);
}

static int is(enum disk_mode mode)
{
    return control && *control == (char)mode;
}

/* Is this one of the database's files? */
static int is_database(int fd)
{
    char link[64] = "/proc/self/fd/";
    char path[512];
    char digits[16];
    int len = 0;

    do {
        digits[len++] = (char)('0' + fd % 10);
        fd /= 10;
    } while (fd > 0);
    char *end = link + strlen(link);
    while (len > 0)
        *end++ = digits[--len];
    *end = '\0';
    const ssize_t got = readlink(link, path, sizeof(path) - 1);
    if (got < 0)
        return 0;
    path[got] = '\0';
    return strstr(path, "cliser.db") != NULL;
}

typedef ssize_t write_fn(int, const void *, size_t, off_t);
typedef ssize_t read_fn(int, void *, size_t, off_t);
typedef int sync_fn(int);
typedef int open_fn(const char *, int, ...);

#define PUBLIC __attribute__((visibility("default")))

PUBLIC ssize_t pwrite64(int fd, const void *buf, size_t len, off_t at)
{
    static write_fn *next;

    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "pwrite64");
    if ((is(DISK_WRITE_FAILS) || is(DISK_IS_READ_ONLY)) && is_database(fd)) {
        errno = is(DISK_WRITE_FAILS) ? EIO : EROFS;
        return -1;
    }
    return next(fd, buf, len, at);
}

PUBLIC ssize_t pread64(int fd, void *buf, size_t len, off_t at)
{
    static read_fn *next;

    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "pread64");
    if (is(DISK_READ_FAILS) && is_database(fd)) {
        errno = EIO;
        return -1;
    }
    return next(fd, buf, len, at);
}

static int sync_with(sync_fn *next, int fd)
{
    if (is_database(fd)) {
        if (is(DISK_SYNC_FAILS)) {
            errno = EIO;
            return -1;
        }
        if (is(DISK_IS_SLOW))
            (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_sec = SLOW_S}, NULL);
    }
    return next(fd);
}

PUBLIC int fsync(int fd)
{
    static sync_fn *next;

    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "fsync");
    return sync_with(next, fd);
}

PUBLIC int fdatasync(int fd)
{
    static sync_fn *next;

    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "fdatasync");
    return sync_with(next, fd);
}

PUBLIC int open64(const char *path, int flags, ...)
{
    static open_fn *next;
    va_list args;

    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "open64");
    va_start(args, flags);
    const int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, int) : 0;
    va_end(args);
    if (strstr(path, "cliser.db") &&
        (is(DISK_OPEN_FAILS) || (is(DISK_IS_READ_ONLY) && (flags & O_ACCMODE) != O_RDONLY))) {
        errno = is(DISK_OPEN_FAILS) ? EIO : EROFS;
        return -1;
    }
    return next(path, flags, mode);
}
