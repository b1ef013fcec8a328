/* harvestd version: ours, and those of the libraries that are loaded (not those it was compiled with). */
#include <librdkafka/rdkafka.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <uv.h>

#include "app/commands.h"

int hv_cmd_version(void) {
    int pq = PQlibVersion();
    printf("harvestd %s\n", HV_VERSION);
    printf("libpq %d.%d\n", pq / 10000, pq % 10000);
    printf("librdkafka %s\n", rd_kafka_version_str());
    printf("libuv %s\n", uv_version_string());
    return 0;
}
