/* Fresh identities, from libuuid. */
#ifndef HV_IO_IDENT_H
#define HV_IO_IDENT_H

#include <stdint.h>

/* A random (version 4) UUID. */
void hv_ident_new(uint8_t out[16]);

#endif
