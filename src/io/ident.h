/* Fresh identities, from libuuid. */
#ifndef HV_IO_IDENT_H
#define HV_IO_IDENT_H

#include <stdint.h>

#define HV_IDENT_TEXT 37 /* bytes of the text, NUL included */

/* A random (version 4) UUID. */
void hv_ident_new(uint8_t out[16]);

/* Its text in lower case, 8-4-4-4-12 hexadecimal digits. */
void hv_ident_text(const uint8_t uuid[16], char out[HV_IDENT_TEXT]);

#endif
