/*
 * The page for operators' browsers: its files, which the build has put into the program. What is in
 * them is the business of dashboard/, whose build writes the C file that defines these; without the
 * page dashboard_off.c does (-DCLISER_DASHBOARD=OFF).
 */
#ifndef ADMIN_DASHBOARD_H
#define ADMIN_DASHBOARD_H

#include <stddef.h>

struct dashboard_file {
    const char *path; /* "/" is the page itself */
    const char *type; /* of the content */
    const char *etag; /* with its quotes; another one for other bytes */
    const unsigned char *bytes;
    size_t len;
};

extern const struct dashboard_file dashboard_files[];
extern const size_t dashboard_file_count; /* 0 without the page */

/* The page may use nothing but the files beside it, and is nobody's part. */
#define DASHBOARD_POLICY                                                                           \
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "                    \
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

/* The file at this path, or NULL. */
const struct dashboard_file *dashboard_find(const char *path);

#endif
