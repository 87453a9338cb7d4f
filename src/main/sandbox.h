/* What is left to the server once everything is open: no privileges, and only the system calls that
 * it needs. */
#ifndef MAIN_SANDBOX_H
#define MAIN_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>

/* What holds from now on, as words for the log. */
struct sandbox {
    bool is_filtered;
    const char *seccomp;      /* on, off, or unavailable: this kernel cannot filter */
    const char *no_new_privs; /* yes */
    const char *capabilities; /* none; kept: we are root and stay it */
};

/*
 * Gives up, for good, what is not needed after the start: capabilities (unless we are root), new
 * privileges, and with seccomp all system calls that are not in the list. To be called once, in the
 * only thread, when everything is open. Returns 0; or -1 with what is wrong in message, and then
 * the program should end, since part of it may hold already.
 */
int sandbox_enter(bool seccomp, struct sandbox *sandbox, char *message, size_t message_size);

#endif
