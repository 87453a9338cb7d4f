/*
 * Loaded into cliserd (LD_PRELOAD): plays whoever has got into the server. On SIGWINCH, which the
 * server ignores, it tries the system call that the variable ATTEMPT names and writes what came of
 * it. The calls are given arguments with which they do nothing even where they are allowed. Two
 * further names, no_filter and no_memory, are of hosts that cannot filter.
 */
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NOWHERE "/no/such/program"

/* What seccomp.h has as well, whose types it does not matter here. */
int seccomp_load(void *filter);

static char *const nothing[] = {NULL};
static _Alignas(4096) char page[4096];

static bool is_called(const char *name)
{
    const char *attempt = getenv("ATTEMPT");

    return attempt && strcmp(attempt, name) == 0;
}

static long make_attempt(const char *name)
{
    const struct {
        const char *name;
        long arguments[7]; /* the call first */
    } attempts[] = {
        {"execve", {SYS_execve, (long)NOWHERE, (long)nothing, (long)nothing}},
        {"execveat", {SYS_execveat, -1, (long)NOWHERE, (long)nothing, (long)nothing}},
        {"ptrace", {SYS_ptrace, PTRACE_ATTACH, -1}},
        {"process_vm_readv", {SYS_process_vm_readv, -1}},
        {"bpf", {SYS_bpf, -1}},
        {"unshare", {SYS_unshare}},
        {"setuid", {SYS_setuid, (long)getuid()}},
        {"reboot", {SYS_reboot}},
        {"packet_socket", {SYS_socket, AF_PACKET, SOCK_RAW, 0}},
        {"netlink_socket", {SYS_socket, AF_NETLINK, SOCK_RAW, 0}},
        {"inet_socket", {SYS_socket, AF_INET, SOCK_STREAM, 0}},
        {"bind", {SYS_bind, -1}},
        {"listen", {SYS_listen, -1}},
        {"clone", {SYS_clone, -1}},
        {"kill", {SYS_kill, getpid(), 0}},
        {"kill_thread_of_other", {SYS_tgkill, getppid(), getppid(), 0}},
        {"kill_own_thread", {SYS_tgkill, getpid(), getpid(), 0}},
        {"code_from_nothing",
         {SYS_mmap, 0, sizeof(page), PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1}},
        {"code_from_data", {SYS_mprotect, (long)page, sizeof(page), PROT_READ | PROT_EXEC}},
        {"prctl", {SYS_prctl, PR_GET_NO_NEW_PRIVS}},
        {"terminal_input", {SYS_ioctl, -1, 0x5412 /* TIOCSTI */}},
        {"signals_by_descriptor", {SYS_fcntl, 2, 8 /* F_SETOWN */, getpid()}},
        {"limit_of_other", {SYS_prlimit64, getppid(), 7, 0, 0}},
        {"io_uring", {SYS_io_uring_setup}},
        {"chmod", {SYS_fchmodat, -1, (long)"", 0}},
    };

    for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++) {
        const long *arguments = attempts[i].arguments;

        if (strcmp(name, attempts[i].name) == 0)
            return syscall(arguments[0], arguments[1], arguments[2], arguments[3], arguments[4],
                           arguments[5], arguments[6]);
    }
#ifdef __x86_64__
    /* getpid() by its number of 32-bit programs. */
    if (strcmp(name, "call_of_32_bits") == 0) {
        long result = 20;

        __asm__ volatile("int $0x80" : "+a"(result) : : "memory");
        return result;
    }
#endif
    abort();
}

static void attempt_on_signal(int number)
{
    char text[96];
    const char *name = getenv("ATTEMPT");

    (void)number;
    errno = 0;
    (void)make_attempt(name);
    const int len = snprintf(text, sizeof(text), "attempt %s: %s\n", name,
                             errno == 0 ? "done" : strerrorname_np(errno));
    if (write(STDERR_FILENO, text, (size_t)len) != len)
        abort();
}

__attribute__((constructor)) static void attempt_prepare(void)
{
    signal(SIGWINCH, attempt_on_signal);
}

/* A kernel that knows no filters. */
long syscall(long number, ...)
{
    static long (*real)(long, ...);
    long arguments[6];
    va_list list;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "syscall");
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        arguments[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_seccomp && is_called("no_filter")) {
        errno = ENOSYS;
        return -1;
    }
    return real(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4],
                arguments[5]);
}

/* One that has no memory for this one. */
int seccomp_load(void *filter)
{
    int (*real)(void *);

    if (is_called("no_memory"))
        return -ENOMEM;
    *(void **)&real = dlsym(RTLD_NEXT, "seccomp_load");
    return real(filter);
}
