/* See cells.h. */
#include "app/cells.h"

#include <string.h>

#include "base/memory.h"
#include "base/text.h"

bool hv_cell_steers(uint32_t code) {
    bool invisible = (code >= 0x200b && code <= 0x200f) || (code >= 0x2028 && code <= 0x202e) || (code >= 0x2060 && code <= 0x206f);
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || invisible || code == 0xfeff;
}

/* Adds what starts at `bytes`; returns how many bytes that was. */
static size_t add_character(struct hv_text *text, const char *bytes, size_t length) {
    uint32_t code = 0;
    size_t n = hv_utf8_length(bytes, length, &code);
    if (n > 0 && code == '\\') {
        hv_text_puts(text, "\\\\");
        return n;
    }
    if (n > 0 && !hv_cell_steers(code)) {
        hv_text_add(text, bytes, n);
        return n;
    }
    hv_text_printf(text, "\\x%02x", (unsigned char)bytes[0]);
    return 1;
}

const char *hv_cell_text(const char *bytes, size_t length, size_t most, char *out, size_t size) {
    struct hv_text text;
    size_t count = 0;
    hv_text_init(&text, out, size - 3); /* leaves room for "..." */
    for (size_t at = 0; at < length && !text.cut; count++) {
        if (count == most) {
            text.cut = true;
        } else {
            at += add_character(&text, bytes + at, length - at);
        }
    }
    if (text.cut) {
        memcpy(out + text.length, "...", 4);
    }
    return out;
}

size_t hv_cell_width(const char *text) {
    size_t width = 0;
    for (; *text != '\0'; text++) {
        width += (*text & 0xC0) != 0x80;
    }
    return width;
}

void hv_cells_print(FILE *out, hv_cell *cell, const void *user, long rows, int columns) {
    char room[HV_CELL_MAX];
    size_t *width = hv_calloc((size_t)columns, sizeof *width);
    for (int c = 0; c < columns; c++) {
        for (long row = -1; row < rows; row++) {
            size_t needed = hv_cell_width(cell(user, row, c, room));
            width[c] = needed > width[c] ? needed : width[c];
        }
    }
    for (long row = -1; row < rows; row++) {
        for (int c = 0; c < columns; c++) {
            const char *text = cell(user, row, c, room);
            bool last = c + 1 == columns;
            fprintf(out, "%s%*s", text, last ? 1 : (int)(width[c] - hv_cell_width(text)) + 2, last ? "\n" : "");
        }
    }
    free(width);
}
