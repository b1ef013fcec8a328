/* The SQL of the table of parked records, for `harvestd schema --park`. */
#ifndef HV_APP_CMD_SCHEMA_PARK_H
#define HV_APP_CMD_SCHEMA_PARK_H

#include <stdio.h>

/* `table` as the user wrote it, and quoted for SQL. Prints what makes <table>_parked; can be run again. */
void hv_schema_print_park(FILE *out, const char *table, const char *quoted);

/* 'text', for SQL. */
void hv_schema_print_literal(FILE *out, const char *text);

/* What harvestd needs to park, and what who runs `harvestd park` needs; `role` quoted. */
void hv_schema_print_park_grants(FILE *out, const char *table, const char *quoted, const char *role);
void hv_schema_print_operator_grants(FILE *out, const char *table, const char *quoted, const char *role);

#endif
