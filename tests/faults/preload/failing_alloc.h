/*
 * The control file of failing_alloc.c: mapped by the program under test and by the test that arms
 * it (tests/faults/failing_alloc.py has the same layout). All numbers are of 64 bits.
 */
#ifndef FAULTS_FAILING_ALLOC_H
#define FAULTS_FAILING_ALLOC_H

#include <stdint.h>

#define FAILING_ALLOC_FILE   "CLISER_FAILING_ALLOC" /* environment: the control file's path */
#define FAILING_ALLOC_READY  UINT64_C(0x636c6973616c6c63)
#define FAILING_ALLOC_FRAMES 40

enum failing_alloc_kind {
    FAILING_ALLOC_HEAP = 1, /* malloc and its family */
    FAILING_ALLOC_MAP = 2,  /* mmap and mremap */
};

struct failing_alloc {
    uint64_t ready;    /* FAILING_ALLOC_READY once the program has the file */
    uint64_t kinds;    /* bits of enum failing_alloc_kind that are counted; 0: disarmed */
    uint64_t first;    /* the first call that fails, from 1 */
    uint64_t spell;    /* so many fail, one after the other */
    uint64_t min_size; /* smaller ones are not counted */
    uint64_t calls;    /* since it was armed, of the main thread */
    uint64_t failed;   /* of these */
    uint64_t size;     /* that the first one that failed asked for */
    uint64_t depth;    /* of its frames */
    uint64_t frames[FAILING_ALLOC_FRAMES]; /* return addresses, innermost first */
};

#endif
