/* Tables on a terminal, of texts that come from applications: nothing of them may steer it. */
#ifndef HV_APP_CELLS_H
#define HV_APP_CELLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define HV_CELL_MAX 1024 /* bytes of a cell, its NUL included */

/* Is this a control character, or one that hides or turns round what stands beside it? */
bool hv_cell_steers(uint32_t code);

/* One line of at most `most` characters, "..." behind it when there are more; what is not printable as \xNN, a backslash as \\. Returns out. */
const char *hv_cell_text(const char *bytes, size_t length, size_t most, char *out, size_t size);

/* Characters of valid UTF-8. */
size_t hv_cell_width(const char *text);

/* Prints rows below each other, columns two blanks apart, the first row being the names of the columns. cell(user, row, column, out) returns the text
 * (out has HV_CELL_MAX bytes and need not be used); row -1 is that of names. */
typedef const char *hv_cell(const void *user, long row, int column, char *out);
void hv_cells_print(FILE *out, hv_cell *cell, const void *user, long rows, int columns);

#endif
