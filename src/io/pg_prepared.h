/* Statements that come often, prepared: the server parses them once a session, and plans them once. Only in a session that is ours alone:
 * a pooler that hands out its server connections by transactions would run one of them where it was never prepared. Should one go unnoticed,
 * the server says so, and from then on everything is sent as it is. A statement that fails for its being prepared is sent again at once:
 * it did nothing. */
#ifndef HV_IO_PG_PREPARED_H
#define HV_IO_PG_PREPARED_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>

#define HV_PG_PREPARED_MAX 24
#define HV_PG_PARAMS_MAX 8

/* Of a statement, binary. */
struct hv_pg_params {
    int count;
    Oid types[HV_PG_PARAMS_MAX];
    const char *values[HV_PG_PARAMS_MAX]; /* NULL is NULL; else in bytes */
    int lengths[HV_PG_PARAMS_MAX];
    char *bytes;
    size_t room;
};

struct hv_pg_statement {
    const char *sql;
    char name[48];
    unsigned times; /* it was prepared in this session */
    bool there;
};

enum hv_pg_step { HV_PG_UNNAMED, HV_PG_PREPARING, HV_PG_EXECUTING };

struct hv_pg_prepared {
    bool off;    /* for good */
    bool usable; /* in this session */
    struct hv_pg_statement list[HV_PG_PREPARED_MAX];
    size_t count;
    enum hv_pg_step step; /* of the statement that was sent last */
    struct hv_pg_statement *latest;
    struct hv_pg_params params;
};

/* A new session. */
void hv_pg_prepared_begin(struct hv_pg_prepared *prepared, bool is_ours);
void hv_pg_prepared_fini(struct hv_pg_prepared *prepared);

/* Sends a statement, or first what prepares it. As PQsendQueryParams with everything binary: returns 1, or 0 when nothing could be sent. The
 * text of a statement stays where and as it is for the time of a session; the parameters are copied. */
int hv_pg_prepared_send(struct hv_pg_prepared *prepared, PGconn *conn, const char *sql, int count, const Oid *types, const char *const *values,
                        const int *lengths);
/* Another statement is sent, not by the call above. */
void hv_pg_prepared_other(struct hv_pg_prepared *prepared);

enum hv_pg_next { HV_PG_ANSWERED, HV_PG_GOES_ON, HV_PG_NOT_SENT };
/* The connection is idle again, with this answer: is it the statement's own? If not, the next step was sent, or could not be. */
enum hv_pg_next hv_pg_prepared_next(struct hv_pg_prepared *prepared, PGconn *conn, const PGresult *answer);

/* What is awaited is not the answer of the statement itself: it was not sent yet. */
bool hv_pg_prepared_is_preparing(const struct hv_pg_prepared *prepared);

#endif
