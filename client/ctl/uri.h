/* Texts as parts of a URL. Pure. */
#ifndef CTL_URI_H
#define CTL_URI_H

/* Percent-encodes every byte that is not unreserved (letters, digits, - . _ ~), so that the result
 * can stand as one segment of a path or as a value in a query. To be freed. */
char *uri_escape(const char *text);

#endif
