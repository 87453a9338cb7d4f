/*
 * Reads /proc/self and what the system calls tell. Decides how descriptors are counted without
 * walking through them: a million take a second. Knows nothing of metrics.
 */
#include "admin/process_info.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define OWN_FDS   "/proc/self/fd"

#define MS_PER_S  UINT64_C(1000)
#define US_PER_S  UINT64_C(1000000)
#define NS_PER_MS UINT64_C(1000000)

/* Of /proc/self/stat, from 1; the second, the program's name, may hold blanks. */
#define STAT_NAME       2
#define STAT_START_TIME 22

static uint64_t start_time_ms(void);
static uint64_t clock_ms(clockid_t clock);
static uint64_t fds_by_kernel(void);
static uint64_t fds_by_walking(void);
static const char *read_text(const char *path, char *buf, size_t size);

void process_start_note(struct process_start *start)
{
    *start = (struct process_start){.time_ms = start_time_ms()};
    if (fds_by_kernel() == 0)
        start->other_fds = fds_by_walking();
}

void process_info_read(struct process_info *info, const struct process_start *start,
                       uint64_t connections)
{
    char buf[256];
    uint64_t virtual_pages = 0;
    uint64_t resident_pages = 0;
    struct rusage usage;
    struct rlimit limit;

    *info = (struct process_info){
        .open_fds = start->other_fds > 0 ? start->other_fds + connections : fds_by_kernel(),
    };
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        info->max_fds = limit.rlim_cur;
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        info->cpu_us =
            ((uint64_t)usage.ru_utime.tv_sec + (uint64_t)usage.ru_stime.tv_sec) * US_PER_S +
            (uint64_t)usage.ru_utime.tv_usec + (uint64_t)usage.ru_stime.tv_usec;
    if (read_text("/proc/self/statm", buf, sizeof(buf)) &&
        sscanf(buf, "%" SCNu64 " %" SCNu64, &virtual_pages, &resident_pages) == 2) {
        const uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
        info->virtual_bytes = virtual_pages * page_bytes;
        info->resident_bytes = resident_pages * page_bytes;
    }
}

/* The kernel counts from the boot. Asked for once only: when the wall clock is set, the process has
 * not been started again. */
static uint64_t start_time_ms(void)
{
    const uint64_t boot_ms = clock_ms(CLOCK_REALTIME) - clock_ms(CLOCK_BOOTTIME);
    char buf[1024];
    uint64_t ticks = 0;

    if (!read_text("/proc/self/stat", buf, sizeof(buf)))
        return 0;
    const char *field = strrchr(buf, ')');
    for (int i = STAT_NAME; field && i < STAT_START_TIME; i++)
        field = strchr(field + 1, ' ');
    if (!field || sscanf(field, " %" SCNu64, &ticks) != 1)
        return 0;
    return boot_ms + ticks * MS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK);
}

static uint64_t clock_ms(clockid_t clock)
{
    struct timespec time;

    if (clock_gettime(clock, &time) != 0)
        return 0;
    return (uint64_t)time.tv_sec * MS_PER_S + (uint64_t)time.tv_nsec / NS_PER_MS;
}

/* Linux tells since 6.2; 0 before. */
static uint64_t fds_by_kernel(void)
{
    struct stat info;

    return stat(OWN_FDS, &info) == 0 && info.st_size > 0 ? (uint64_t)info.st_size : 0;
}

static uint64_t fds_by_walking(void)
{
    DIR *dir = opendir(OWN_FDS);
    const struct dirent *entry;
    uint64_t count = 0;

    if (!dir)
        return 0;
    while ((entry = readdir(dir)) != NULL)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count - 1; /* the one by which the folder was read */
}

/* Returns buf, or NULL. */
static const char *read_text(const char *path, char *buf, size_t size)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return NULL;
    const ssize_t got = read(fd, buf, size - 1);
    close(fd);
    if (got < 0)
        return NULL;
    buf[got] = '\0';
    return buf;
}
