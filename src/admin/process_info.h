/* What the kernel knows of this process: processor time, memory and descriptors. */
#ifndef ADMIN_PROCESS_INFO_H
#define ADMIN_PROCESS_INFO_H

#include <stdint.h>

/* What does not change, or cannot be asked for later. */
struct process_start {
    uint64_t time_ms;   /* when the process started, Unix time in milliseconds */
    uint64_t other_fds; /* descriptors beside connections; 0 where the kernel counts them all */
};

/* Of now. What cannot be read is 0. */
struct process_info {
    uint64_t cpu_us; /* user and system */
    uint64_t resident_bytes;
    uint64_t virtual_bytes;
    uint64_t open_fds;
    uint64_t max_fds;
};

/* To be called once, when everything is open but the connections. */
void process_start_note(struct process_start *start);

/* Costs the same whatever is open. connections are those that are open now, of any kind. */
void process_info_read(struct process_info *info, const struct process_start *start,
                       uint64_t connections);

#endif
