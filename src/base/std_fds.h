/* Descriptors 0, 1 and 2. */
#ifndef BASE_STD_FDS_H
#define BASE_STD_FDS_H

/*
 * Opens /dev/null for each of the three that the program was started without: else the next socket
 * or file would get that number, and what is written to stderr would go into it. Call first of all.
 */
void std_fds_fill(void);

#endif
