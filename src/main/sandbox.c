/*
 * Decides which system calls the server may make from its `ready:` line on, and what becomes of
 * others. Three answers, by what the call would mean:
 *
 *   allowed    what our code and the libraries use, below, with the reason;
 *   ENOSYS     every other call, as on a kernel that does not have it: a newer libc tries its new
 *              call, gets that and takes the old one. Nobody's session ends for it, and the kernel
 *              logs it (docs/operations.md);
 *   death      calls that no part of this program makes on any path: whoever makes one is not us.
 *
 * Must not know anything of what the server does otherwise.
 */
#include "main/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

#define ITEMS(array) (sizeof(array) / sizeof((array)[0]))

/* A call that is allowed, or not, by one of its arguments. */
struct call_by_argument {
    int call;
    struct scmp_arg_cmp argument; /* which, how it is compared, with what */
};

static int give_up_capabilities(struct sandbox *sandbox);
static bool kernel_can_filter(void);
static int install_filter(void);
static int set_attributes(scmp_filter_ctx filter);
static int add_calls(scmp_filter_ctx filter, uint32_t action, const int *calls, size_t count);
static int add_calls_by_argument(scmp_filter_ctx filter, uint32_t action,
                                 const struct call_by_argument *calls, size_t count);

/* clang-format off */
/* Each with its variants of other architectures and libcs; what one does not have is left out. */
static const int allowed[] = {
    /* The loop. The last is how the kernel goes on with a wait after SIGSTOP and SIGCONT. */
    SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_ctl), SCMP_SYS(restart_syscall),
    /* The log asks whether a stderr takes a line that it may not make non-blocking. */
    SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(ppoll_time64),
    /* Clients and operators. */
    SCMP_SYS(accept4), SCMP_SYS(recv), SCMP_SYS(recvfrom), SCMP_SYS(recvmsg), SCMP_SYS(send),
    SCMP_SYS(sendto), SCMP_SYS(sendmsg), SCMP_SYS(shutdown), SCMP_SYS(getsockopt),
    SCMP_SYS(setsockopt), SCMP_SYS(getsockname), SCMP_SYS(getpeername),
    /* Those, and files: the registry, configuration, secrets, certificates, /proc, the log. */
    SCMP_SYS(read), SCMP_SYS(readv), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(close),
    SCMP_SYS(open), SCMP_SYS(openat), SCMP_SYS(lseek), SCMP_SYS(_llseek),
    SCMP_SYS(stat), SCMP_SYS(fstat), SCMP_SYS(lstat), SCMP_SYS(newfstatat), SCMP_SYS(statx),
    SCMP_SYS(stat64), SCMP_SYS(fstat64), SCMP_SYS(lstat64), SCMP_SYS(fstatat64),
    /* SQLite: pages, its log, links on the way to its file, as root the owner of files it makes. */
    SCMP_SYS(pread64), SCMP_SYS(pwrite64), SCMP_SYS(fsync), SCMP_SYS(fdatasync),
    SCMP_SYS(ftruncate), SCMP_SYS(ftruncate64), SCMP_SYS(access), SCMP_SYS(faccessat),
    SCMP_SYS(faccessat2), SCMP_SYS(getcwd), SCMP_SYS(readlink), SCMP_SYS(readlinkat),
    SCMP_SYS(fchmod), SCMP_SYS(fchown), SCMP_SYS(fchown32),
    /* The lock against a second server, when the file is opened anew. */
    SCMP_SYS(flock),
    /* SQLite's log, and sockets that are removed at the end. */
    SCMP_SYS(unlink), SCMP_SYS(unlinkat),
    /* A damaged registry that is set aside. */
    SCMP_SYS(rename), SCMP_SYS(renameat), SCMP_SYS(renameat2),
    /* Descriptors counted where the kernel does not tell their number. */
    SCMP_SYS(getdents64),
    /* syslog is connected to again when it was away. */
    SCMP_SYS(connect),
    /* Memory, also such as libraries lock for secrets. */
    SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(mlock),
    SCMP_SYS(munlock), SCMP_SYS(getrandom),
    /* The locks of libc and libraries. */
    SCMP_SYS(futex), SCMP_SYS(futex_time64),
    /* Clocks where the vDSO has none, and SQLite that waits for a lock. */
    SCMP_SYS(clock_gettime), SCMP_SYS(clock_gettime64), SCMP_SYS(gettimeofday), SCMP_SYS(time),
    SCMP_SYS(nanosleep), SCMP_SYS(clock_nanosleep), SCMP_SYS(clock_nanosleep_time64),
    /* Who we are: libsystemd tells systemd, SQLite whether it is root; abort() asks for itself. */
    SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getuid), SCMP_SYS(getuid32), SCMP_SYS(geteuid),
    SCMP_SYS(geteuid32), SCMP_SYS(getgid), SCMP_SYS(getgid32), SCMP_SYS(getegid),
    SCMP_SYS(getegid32),
    /* What we have and use: metrics, a reload; qsort() asks how much memory there is. */
    SCMP_SYS(getrusage), SCMP_SYS(getrlimit), SCMP_SYS(ugetrlimit), SCMP_SYS(setrlimit),
    SCMP_SYS(sysinfo),
    /* Signals, and the end. */
    SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(sigreturn),
    SCMP_SYS(exit_group),
#ifdef SANITIZED
    /* The sanitizers, whose leak detector stops us from a process that it makes at our end. */
    SCMP_SYS(clone), SCMP_SYS(ptrace), SCMP_SYS(wait4), SCMP_SYS(sigaltstack), SCMP_SYS(prctl),
    SCMP_SYS(sched_yield), SCMP_SYS(tgkill), SCMP_SYS(pipe), SCMP_SYS(pipe2), SCMP_SYS(getppid),
    SCMP_SYS(getdents), SCMP_SYS(exit),
#endif
};

#define FCNTL(command)                                                                             \
    {SCMP_SYS(fcntl), {1, SCMP_CMP_EQ, (command), 0}},                                             \
    {SCMP_SYS(fcntl64), {1, SCMP_CMP_EQ, (command), 0}}

static const struct call_by_argument allowed_by_argument[] = {
    /* syslog, systemd; clients' sockets are accepted, and made by nobody. */
    {SCMP_SYS(socket), {0, SCMP_CMP_EQ, AF_UNIX, 0}},
    {SCMP_SYS(socket), {0, SCMP_CMP_EQ, AF_INET, 0}},
    {SCMP_SYS(socket), {0, SCMP_CMP_EQ, AF_INET6, 0}},
    /* libevent asks how much there is to read; stdio, whether it writes to a terminal. */
    {SCMP_SYS(ioctl), {1, SCMP_CMP_EQ, FIONREAD, 0}},
    {SCMP_SYS(ioctl), {1, SCMP_CMP_EQ, TCGETS, 0}},
    /* Flags, SQLite's locks, and descriptors that it moves away from those of stdio. */
    FCNTL(F_GETFD), FCNTL(F_SETFD), FCNTL(F_GETFL), FCNTL(F_SETFL), FCNTL(F_GETLK), FCNTL(F_SETLK),
    FCNTL(F_SETLKW), FCNTL(F_DUPFD_CLOEXEC),
    /* Memory is never code. */
    {SCMP_SYS(mmap), {2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0}},
    {SCMP_SYS(mmap2), {2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0}},
    {SCMP_SYS(mprotect), {2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0}},
    /* A reload may raise our limit of descriptors, and nobody else's. */
    {SCMP_SYS(prlimit64), {0, SCMP_CMP_EQ, 0, 0}},
};

static const int deadly[] = {
    /* Other programs, and other processes' insides. */
    SCMP_SYS(execve), SCMP_SYS(execveat), SCMP_SYS(process_vm_readv), SCMP_SYS(process_vm_writev),
    SCMP_SYS(pidfd_getfd), SCMP_SYS(kcmp),
#ifndef SANITIZED
    SCMP_SYS(ptrace),
#endif
    /* The kernel's own insides. */
    SCMP_SYS(bpf), SCMP_SYS(perf_event_open), SCMP_SYS(userfaultfd), SCMP_SYS(init_module),
    SCMP_SYS(finit_module), SCMP_SYS(delete_module), SCMP_SYS(kexec_load),
    SCMP_SYS(kexec_file_load), SCMP_SYS(iopl), SCMP_SYS(ioperm), SCMP_SYS(modify_ldt),
    SCMP_SYS(keyctl), SCMP_SYS(add_key), SCMP_SYS(request_key),
    /* What the host is made of. The server orders others to shut down and never its own host. */
    SCMP_SYS(mount), SCMP_SYS(umount2), SCMP_SYS(move_mount), SCMP_SYS(fsopen), SCMP_SYS(fsmount),
    SCMP_SYS(open_tree), SCMP_SYS(mount_setattr), SCMP_SYS(pivot_root), SCMP_SYS(chroot),
    SCMP_SYS(unshare), SCMP_SYS(setns), SCMP_SYS(open_by_handle_at), SCMP_SYS(mknod),
    SCMP_SYS(mknodat), SCMP_SYS(reboot), SCMP_SYS(swapon), SCMP_SYS(swapoff),
    SCMP_SYS(settimeofday), SCMP_SYS(clock_settime), SCMP_SYS(sethostname), SCMP_SYS(acct),
    SCMP_SYS(quotactl), SCMP_SYS(personality),
    /* Somebody else's rights: we have become who we are. */
    SCMP_SYS(setuid), SCMP_SYS(setreuid), SCMP_SYS(setresuid), SCMP_SYS(setfsuid), SCMP_SYS(setgid),
    SCMP_SYS(setregid), SCMP_SYS(setresgid), SCMP_SYS(setfsgid), SCMP_SYS(setgroups),
    SCMP_SYS(capset),
};

static const struct call_by_argument deadly_by_argument[] = {
    /* AF_PACKET, AF_ALG, AF_VSOCK and the like. AF_NETLINK itself is answered with ENOSYS: libc
     * asks it when it resolves names, and can do without. */
    {SCMP_SYS(socket), {0, SCMP_CMP_GT, AF_NETLINK, 0}},
};
/* clang-format on */

int sandbox_enter(bool seccomp, struct sandbox *sandbox, char *message, size_t message_size)
{
    *sandbox = (struct sandbox){.seccomp = "off", .no_new_privs = "yes", .capabilities = "none"};
    if (give_up_capabilities(sandbox) != 0) {
        snprintf(message, message_size, "cannot give up capabilities: %s", strerror(errno));
        return -1;
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        snprintf(message, message_size, "cannot give up new privileges: %s", strerror(errno));
        return -1;
    }
    if (!seccomp)
        return 0;
    if (!kernel_can_filter()) {
        sandbox->seccomp = "unavailable";
        return 0;
    }

    const int error = install_filter();
    if (error != 0) {
        snprintf(message, message_size,
                 "cannot install the filter of system calls: %s; [server] seccomp = no starts "
                 "without it",
                 strerror(-error));
        return -1;
    }
    sandbox->seccomp = "on";
    sandbox->is_filtered = true;
    return 0;
}

/* Those that systemd gave us for our ports (AmbientCapabilities=). Whoever became another user has
 * none any more. */
static int give_up_capabilities(struct sandbox *sandbox)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct had[_LINUX_CAPABILITY_U32S_3];
    const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{.effective = 0}};

    if (geteuid() == 0) {
        sandbox->capabilities = "kept";
        return 0;
    }
    if (syscall(SYS_capget, &header, had) != 0)
        return -1;
    /* Where there are none, a host may refuse even to be asked to take them. */
    if (memcmp(had, none, sizeof(had)) == 0)
        return 0;
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    return (int)syscall(SYS_capset, &header, none);
}

static bool kernel_can_filter(void)
{
    const uint32_t action = SECCOMP_RET_KILL_PROCESS;

    return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

/* Returns 0 or a negative errno. */
static int install_filter(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
    int error;

    if (!filter)
        return -ENOMEM;
    error = set_attributes(filter);
    if (error == 0)
        error = add_calls(filter, SCMP_ACT_ALLOW, allowed, ITEMS(allowed));
    if (error == 0)
        error = add_calls_by_argument(filter, SCMP_ACT_ALLOW, allowed_by_argument,
                                      ITEMS(allowed_by_argument));
#ifndef SANITIZED
    /* abort() and raise(): to ourselves only. */
    const struct call_by_argument to_self = {SCMP_SYS(tgkill),
                                             {0, SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0}};

    if (error == 0)
        error = add_calls_by_argument(filter, SCMP_ACT_ALLOW, &to_self, 1);
#endif
    if (error == 0)
        error = add_calls(filter, SCMP_ACT_KILL_PROCESS, deadly, ITEMS(deadly));
    if (error == 0)
        error = add_calls_by_argument(filter, SCMP_ACT_KILL_PROCESS, deadly_by_argument,
                                      ITEMS(deadly_by_argument));
    if (error == 0)
        error = seccomp_load(filter);
    seccomp_release(filter);
    return error;
}

static int set_attributes(scmp_filter_ctx filter)
{
    static const struct {
        enum scmp_filter_attr attribute;
        uint32_t value;
    } wanted[] = {
        /* Calls by the numbers of another architecture, such as 32-bit ones. */
        {SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS},
        /* The kernel logs what it refuses. */
        {SCMP_FLTATR_CTL_LOG, 1},
        /* Kernels before 5.16 would switch on a mitigation for processes that run strangers' code
         * (speculative store bypass). We run none, and it is dear. */
        {SCMP_FLTATR_CTL_SSB, 1},
        /* A tree instead of a chain of 100 comparisons. */
        {SCMP_FLTATR_CTL_OPTIMIZE, 2},
        /* Errors as the kernel gives them. */
        {SCMP_FLTATR_API_SYSRAWRC, 1},
    };

    for (size_t i = 0; i < ITEMS(wanted); i++) {
        const int error = seccomp_attr_set(filter, wanted[i].attribute, wanted[i].value);

        /* A kernel without logging or without that mitigation filters as well. */
        if (error != 0 && error != -EOPNOTSUPP)
            return error;
    }
    return 0;
}

static int add_calls(scmp_filter_ctx filter, uint32_t action, const int *calls, size_t count)
{
    int error = 0;

    /* Those that this architecture does not have are no error, and nothing. */
    for (size_t i = 0; i < count && error == 0; i++)
        error = seccomp_rule_add(filter, action, calls[i], 0);
    return error;
}

static int add_calls_by_argument(scmp_filter_ctx filter, uint32_t action,
                                 const struct call_by_argument *calls, size_t count)
{
    int error = 0;

    for (size_t i = 0; i < count && error == 0; i++) {
        error = seccomp_rule_add_array(filter, action, calls[i].call, 1, &calls[i].argument);
        /* Where the calls of sockets are all one (socketcall: x86 with 32 bits, s390x, ppc64le),
         * their arguments cannot be looked at, and the first answer stays. */
        if (error == -EEXIST)
            error = 0;
    }
    return error;
}
