/* A shutdown order as the API has it: what its state means, and how it is shown. */
#ifndef CTL_ORDER_H
#define CTL_ORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <jansson.h>

#include "say.h"

struct api;

/* Are all waves over, for whatever reason? False as well when there never was an order. */
bool order_is_over(const json_t *order);
bool order_has_state(const json_t *order, const char *state);

/* "12 clients", "1 client". Returns buf of ORDER_TEXT_BYTES. */
#define ORDER_TEXT_BYTES 48
const char *order_clients(uint64_t count, char *buf);

/* The patterns of a wave with ", " between them. To be freed. */
char *order_patterns(const json_t *wave);

/* Where an order is shown. */
struct order_page {
    FILE *out;
    size_t width; /* 0: nothing is cut */
    bool colours;
};

/* For stdout as it is. */
struct order_page order_page_stdout(void);

/* One line about the whole, without its end. To be freed. */
char *order_headline(const json_t *order);

/* The waves from first on, count of them, and a sum when there are several in the order. */
void order_print_waves(const json_t *order, size_t first, size_t count,
                       const struct order_page *page);

/* All of it: headline, waves, and how long it holds. */
void order_print(const json_t *order, const struct order_page *page);

/* Asks for the IDs of those still up, all pages, into an array of texts, which is to be freed.
 * Returns NULL after having said what is wrong. */
json_t *order_ask_still_up(struct api *api);

/* Prints them: on a terminal the first of them only. */
void order_print_still_up(const json_t *ids, bool all);

/* The exit status for an order that is over or not. */
enum ctl_exit order_exit(const json_t *order);

#endif
