/*
 * A kernel that has no room: accept4() and adding to an epoll set fail as the file says that
 * CLISER_SOCKETS_CONTROL names, which may change at any time. It holds a struct point for each.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

struct point {
    volatile int32_t error; /* errno of the failure; 0: it works */
    volatile int32_t left;  /* calls that still fail; negative: all */
    volatile int32_t hits;  /* calls that have failed */
};

enum { POINT_ACCEPT, POINT_EPOLL_ADD, POINT_COUNT };

static struct point *points;

__attribute__((constructor)) static void sockets_init(void)
{
    const char *path = getenv("CLISER_SOCKETS_CONTROL");
    const int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

    if (fd < 0)
        return;
    void *mapped =
        mmap(NULL, POINT_COUNT * sizeof(struct point), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED)
        points = mapped;
    close(fd);
}

/* Sets errno when the call is to fail. */
static int fails(int which)
{
    struct point *point = points ? &points[which] : NULL;

    if (!point || point->error == 0 || point->left == 0)
        return 0;
    if (point->left > 0)
        point->left--;
    point->hits++;
    errno = point->error;
    return 1;
}

#define PUBLIC __attribute__((visibility("default")))

typedef int accept4_fn(int, struct sockaddr *, socklen_t *, int);
typedef int epoll_ctl_fn(int, int, int, struct epoll_event *);

PUBLIC int accept4(int fd, struct sockaddr *address, socklen_t *len, int flags)
{
    static accept4_fn *next;

    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "accept4");
    return fails(POINT_ACCEPT) ? -1 : next(fd, address, len, flags);
}

PUBLIC int epoll_ctl(int epoll_fd, int what, int fd, struct epoll_event *event)
{
    static epoll_ctl_fn *next;

    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "epoll_ctl");
    return what == EPOLL_CTL_ADD && fails(POINT_EPOLL_ADD) ? -1 : next(epoll_fd, what, fd, event);
}
