/*
 * For LD_PRELOAD: lets the n-th allocation of a program's main thread fail, and any number after
 * it. A test arms it through a file that both map (failing_alloc.h); without that file, or while it
 * is not armed, every call goes on to whoever comes next: libc, or a sanitizer. Libraries are
 * reached as well, since they call the same malloc. Allocates nothing of its own.
 */
#include "failing_alloc.h"

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What asks before main, while the next functions are still being looked up. */
#define EARLY_BYTES 4096

static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    int (*posix_memalign)(void **, size_t, size_t);
    void *(*aligned_alloc)(size_t, size_t);
    void *(*mmap)(void *, size_t, int, int, int, off_t);
    void *(*mremap)(void *, size_t, size_t, int, ...);
} next;

/* The leak checker's, if there is one. */
void __lsan_disable(void) __attribute__((weak));
void __lsan_enable(void) __attribute__((weak));

static struct failing_alloc *control;
static pthread_t main_thread;
static bool is_recording;

/* dlsym() gives a pointer to data; POSIX says that it may hold a function's address. */
static void look_up(const char *name, void *function, size_t size)
{
    void *found = dlsym(RTLD_NEXT, name);

    memcpy(function, &found, size);
}

#define LOOK_UP(name) look_up(#name, &next.name, sizeof(next.name))

static void find_next(void)
{
    if (next.mremap)
        return;
    LOOK_UP(malloc);
    LOOK_UP(calloc);
    LOOK_UP(realloc);
    LOOK_UP(posix_memalign);
    LOOK_UP(aligned_alloc);
    LOOK_UP(mmap);
    LOOK_UP(mremap);
}

__attribute__((constructor)) static void map_control_file(void)
{
    const char *path = getenv(FAILING_ALLOC_FILE);
    void *frames[2];

    find_next();
    if (!path)
        return;
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *mapped = next.mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped == MAP_FAILED)
        return;
    if (__lsan_disable)
        __lsan_disable();
    (void)backtrace(frames, 2); /* the first one loads a library, which is never given back */
    if (__lsan_enable)
        __lsan_enable();
    main_thread = pthread_self();
    control = mapped;
    __atomic_store_n(&control->ready, FAILING_ALLOC_READY, __ATOMIC_SEQ_CST);
}

static void record(size_t size)
{
    void *frames[FAILING_ALLOC_FRAMES];

    is_recording = true;
    const int depth = backtrace(frames, FAILING_ALLOC_FRAMES);
    for (int i = 0; i < depth; i++)
        control->frames[i] = (uint64_t)(uintptr_t)frames[i];
    control->size = size;
    control->depth = (uint64_t)depth;
    is_recording = false;
}

/* Is this call to fail? Counts it. */
static bool fails(enum failing_alloc_kind kind, size_t size)
{
    if (!control || is_recording || !pthread_equal(pthread_self(), main_thread) ||
        !(__atomic_load_n(&control->kinds, __ATOMIC_SEQ_CST) & kind) || size < control->min_size)
        return false;

    const uint64_t call = __atomic_add_fetch(&control->calls, 1, __ATOMIC_SEQ_CST);
    if (call < control->first || call - control->first >= control->spell)
        return false;
    if (control->failed == 0)
        record(size);
    __atomic_add_fetch(&control->failed, 1, __ATOMIC_SEQ_CST);
    errno = ENOMEM;
    return true;
}

void *malloc(size_t size)
{
    find_next();
    return fails(FAILING_ALLOC_HEAP, size) ? NULL : next.malloc(size);
}

void *calloc(size_t count, size_t size)
{
    static char early[EARLY_BYTES] __attribute__((aligned(16)));
    static size_t early_used;

    if (!next.calloc) { /* dlsym() itself may ask for something; it is never freed */
        const size_t wanted = (count * size + 15) & ~(size_t)15;
        if (wanted > sizeof(early) - early_used)
            return NULL;
        early_used += wanted;
        return early + early_used - wanted;
    }
    return fails(FAILING_ALLOC_HEAP, count * size) ? NULL : next.calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    find_next();
    return size > 0 && fails(FAILING_ALLOC_HEAP, size) ? NULL : next.realloc(old, size);
}

void *reallocarray(void *old, size_t count, size_t size)
{
    size_t bytes = 0;

    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(old, bytes);
}

int posix_memalign(void **place, size_t alignment, size_t size)
{
    find_next();
    return fails(FAILING_ALLOC_HEAP, size) ? ENOMEM : next.posix_memalign(place, alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    find_next();
    return fails(FAILING_ALLOC_HEAP, size) ? NULL : next.aligned_alloc(alignment, size);
}

/* A sanitizer's own would not come back to malloc(). */
char *strndup(const char *text, size_t most)
{
    const size_t len = strnlen(text, most);
    char *copy = malloc(len + 1);

    if (!copy)
        return NULL;
    memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

char *strdup(const char *text)
{
    return strndup(text, strlen(text));
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    find_next();
    return fails(FAILING_ALLOC_MAP, size) ? MAP_FAILED
                                          : next.mmap(address, size, protection, flags, fd, offset);
}

void *mmap64(void *address, size_t size, int protection, int flags, int fd, off64_t offset)
{
    return mmap(address, size, protection, flags, fd, (off_t)offset);
}

void *mremap(void *old, size_t old_size, size_t size, int flags, ...)
{
    void *wanted = NULL;
    va_list args;

    find_next();
    va_start(args, flags);
    if (flags & MREMAP_FIXED)
        wanted = va_arg(args, void *);
    va_end(args);
    return fails(FAILING_ALLOC_MAP, size) ? MAP_FAILED
                                          : next.mremap(old, old_size, size, flags, wanted);
}
