/* See pg_resolve.h. One slot a host; a slot of a name owns a request, which lives until its callback came. */
#include "io/pg_resolve.h"

#include <assert.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOST_MAX 256
#define ADDRESS_MAX 64
#define PORT_MAX 16

struct slot {
    uv_getaddrinfo_t request;
    struct hv_pg_resolve *resolve;
    char host[HOST_MAX], address[ADDRESS_MAX], port[PORT_MAX];
    bool is_name, pending;
    int status;              /* of a look-up that ended */
    struct addrinfo *found;
};

struct hv_pg_resolve {
    void (*done)(void *user);
    void (*freed)(void *user);
    void *user;
    int pending;
    bool abandoned;
    size_t count;
    char *hosts, *addresses, *ports, *names; /* built lists */
    struct slot slots[];
};

struct endpoint {
    const char *host, *port;
    char address[ADDRESS_MAX];
};

/* Copies the next item of a comma-separated list. False when it is too long. */
static bool next_item(const char **list, char *out, size_t size) {
    size_t n = strcspn(*list, ",");
    if (n >= size) {
        return false;
    }
    memcpy(out, *list, n);
    out[n] = 0;
    *list += n + ((*list)[n] == ',');
    return true;
}

static size_t count_items(const char *list) {
    size_t n = 1;
    for (; *list != 0; list++) {
        n += *list == ',';
    }
    return n;
}

static bool is_numeric(const char *host) {
    unsigned char binary[16];
    return uv_inet_pton(AF_INET, host, binary) == 0 || uv_inet_pton(AF_INET6, host, binary) == 0;
}

/* Libpq has checked already that the lists fit together: one port for all, or one each. */
static int fill_slots(struct hv_pg_resolve *r, const char *hosts, const char *addresses, const char *ports,
                      struct hv_error *err) {
    bool one_port = strchr(ports, ',') == NULL;
    for (size_t i = 0; i < r->count; i++) {
        struct slot *slot = &r->slots[i];
        const char *port = ports;
        slot->resolve = r;
        if (!next_item(&hosts, slot->host, sizeof slot->host) ||
            !next_item(&addresses, slot->address, sizeof slot->address) ||
            !next_item(one_port ? &port : &ports, slot->port, sizeof slot->port)) {
            return hv_error_set(err, "a host, hostaddr or port of the connection string is too long");
        }
        if (slot->address[0] != 0 || slot->host[0] == 0 || slot->host[0] == '/' || slot->host[0] == '@') {
            continue; /* known, or a Unix socket */
        }
        if (is_numeric(slot->host)) {
            memcpy(slot->address, slot->host, strlen(slot->host) + 1);
        } else {
            slot->is_name = true;
        }
    }
    return 0;
}

static void destroy(struct hv_pg_resolve *r) {
    for (size_t i = 0; i < r->count; i++) {
        if (r->slots[i].found != NULL) {
            uv_freeaddrinfo(r->slots[i].found);
        }
    }
    free(r->hosts);
    free(r->addresses);
    free(r->ports);
    free(r->names);
    void (*freed)(void *user) = r->freed;
    void *user = r->user;
    free(r);
    if (freed != NULL) {
        freed(user);
    }
}

static void on_found(uv_getaddrinfo_t *request, int status, struct addrinfo *found) {
    struct slot *slot = request->data;
    struct hv_pg_resolve *r = slot->resolve;
    slot->pending = false;
    slot->status = status;
    slot->found = found;
    assert(r->pending > 0);
    if (--r->pending > 0) {
        return;
    }
    if (r->abandoned) {
        destroy(r);
    } else {
        r->done(r->user);
    }
}

static void look_up(uv_loop_t *uv, struct slot *slot) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    slot->request.data = slot;
    slot->status = uv_getaddrinfo(uv, &slot->request, on_found, slot->host, NULL, &hints);
    if (slot->status == 0) {
        slot->pending = true;
        slot->resolve->pending++;
    }
}

int hv_pg_resolve_start(uv_loop_t *uv, const PQconninfoOption *options, void (*done)(void *user), void *user,
                        struct hv_pg_resolve **ret, struct hv_error *err) {
    const char *hosts = hv_pg_conninfo_get(options, "host");
    const char *addresses = hv_pg_conninfo_get(options, "hostaddr");
    const char *ports = hv_pg_conninfo_get(options, "port");
    size_t count = count_items(addresses != NULL ? addresses : hosts != NULL ? hosts : "");
    if (count > HV_PG_ENDPOINTS_MAX) {
        return hv_error_set(err, "the connection string names more than %d hosts", HV_PG_ENDPOINTS_MAX);
    }
    struct hv_pg_resolve *r = calloc(1, sizeof *r + count * sizeof r->slots[0]);
    char *names = strdup(hosts != NULL ? hosts : addresses != NULL ? addresses : "local socket");
    if (r == NULL || names == NULL) {
        free(r);
        free(names);
        return hv_error_set(err, "out of memory");
    }
    r->done = done;
    r->user = user;
    r->count = count;
    r->names = names;
    if (fill_slots(r, hosts == NULL ? "" : hosts, addresses == NULL ? "" : addresses,
                   ports == NULL ? "" : ports, err) < 0) {
        destroy(r);
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        if (r->slots[i].is_name) {
            look_up(uv, &r->slots[i]);
        }
    }
    *ret = r;
    return 0;
}

bool hv_pg_resolve_is_done(const struct hv_pg_resolve *r) {
    return r->pending == 0;
}

const char *hv_pg_resolve_hosts(const struct hv_pg_resolve *r) {
    return r->names;
}

static size_t add_endpoint(struct endpoint *list, size_t count, const struct slot *slot,
                           const struct addrinfo *found) {
    if (count == HV_PG_ENDPOINTS_MAX) {
        return count;
    }
    struct endpoint *e = &list[count];
    *e = (struct endpoint){.host = slot->host, .port = slot->port};
    if (found == NULL) {
        memcpy(e->address, slot->address, sizeof e->address);
    } else if (getnameinfo(found->ai_addr, found->ai_addrlen, e->address, sizeof e->address, NULL, 0,
                           NI_NUMERICHOST) != 0) {
        return count;
    }
    return count + 1;
}

static size_t gather(const struct hv_pg_resolve *r, struct endpoint *list) {
    size_t count = 0;
    for (size_t i = 0; i < r->count; i++) {
        const struct slot *slot = &r->slots[i];
        if (!slot->is_name) {
            count = add_endpoint(list, count, slot, NULL);
        }
        for (const struct addrinfo *a = slot->found; a != NULL; a = a->ai_next) {
            count = add_endpoint(list, count, slot, a);
        }
    }
    return count;
}

static int explain_nothing_found(const struct hv_pg_resolve *r, struct hv_error *err) {
    const struct slot *slot = &r->slots[0];
    return hv_error_set(err, "could not translate host name \"%s\" to address: %s", slot->host,
                        slot->pending ? "the resolver does not answer" : uv_strerror(slot->status));
}

static bool is_endpoint(const struct endpoint *e, const char *text) {
    char own[ADDRESS_MAX + PORT_MAX];
    snprintf(own, sizeof own, "%s %s", e->address, e->port);
    return strcmp(own, text) == 0;
}

/* Begins with what follows the endpoint that hung, and ends with that one, however often it is listed. */
static void reorder(struct endpoint *list, size_t count, const char *hung) {
    size_t first = 0, n = 0;
    while (first < count && !is_endpoint(&list[first], hung)) {
        first++;
    }
    if (first == count) {
        return;
    }
    struct endpoint old[HV_PG_ENDPOINTS_MAX];
    memcpy(old, list, count * sizeof list[0]);
    for (int want_hung = 0; want_hung < 2; want_hung++) {
        for (size_t i = 1; i <= count; i++) {
            const struct endpoint *e = &old[(first + i) % count];
            if (is_endpoint(e, hung) == (want_hung == 1)) {
                list[n++] = *e;
            }
        }
    }
    assert(n == count);
}

static char *append(char *at, const char *text, bool comma) {
    if (comma) {
        *at++ = ',';
    }
    size_t n = strlen(text);
    memcpy(at, text, n + 1);
    return at + n;
}

int hv_pg_resolve_lists(struct hv_pg_resolve *r, const char *hung, struct hv_pg_lists *ret,
                        struct hv_error *err) {
    struct endpoint list[HV_PG_ENDPOINTS_MAX];
    size_t count = gather(r, list);
    if (count == 0) {
        return explain_nothing_found(r, err);
    }
    free(r->hosts);
    free(r->addresses);
    free(r->ports);
    char *host = r->hosts = calloc(count, HOST_MAX);
    char *address = r->addresses = calloc(count, ADDRESS_MAX);
    char *port = r->ports = calloc(count, PORT_MAX);
    if (host == NULL || address == NULL || port == NULL) {
        return hv_error_set(err, "out of memory");
    }
    reorder(list, count, hung);
    for (size_t i = 0; i < count; i++) {
        const struct endpoint *e = &list[i];
        host = append(host, e->host, i > 0);
        address = append(address, e->address, i > 0);
        port = append(port, e->port, i > 0);
    }
    *ret = (struct hv_pg_lists){r->hosts, r->addresses, r->ports};
    return 0;
}

void hv_pg_resolve_free(struct hv_pg_resolve *r, void (*freed)(void *user)) {
    assert(!r->abandoned);
    r->abandoned = true;
    r->freed = freed;
    if (r->pending == 0) {
        destroy(r);
        return;
    }
    for (size_t i = 0; i < r->count; i++) {
        if (r->slots[i].pending) {
            uv_cancel((uv_req_t *)&r->slots[i].request); /* its callback comes in any case */
        }
    }
}
