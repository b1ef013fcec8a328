/* What the headers of libharvest share: how an error is told. */
#ifndef HARVEST_ERROR_H
#define HARVEST_ERROR_H

#define HARVEST_API __attribute__((visibility("default")))

#define HARVEST_ERROR_MAX 4096 /* bytes */

/* One error, for a person: what went wrong, what was expected, what to do; of a configuration all troubles, a line each.
 * The caller owns the structure; a function that takes one as `err` writes it when it fails and leaves it alone when it
 * succeeds. err may be NULL. */
struct harvest_error {
    char text[HARVEST_ERROR_MAX]; /* UTF-8, NUL-terminated, cut to fit; never holds a secret */
};

#endif
