/* For builds with -fsanitize=thread only: librdkafka uses C11's threads, which the sanitizer does not know; it crashes in threads that were
 * made by thrd_create. These stand before glibc's and do the same by POSIX threads, which it knows. */
#ifdef __SANITIZE_THREAD__
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <threads.h>

#define SHIM __attribute__((visibility("default")))

_Static_assert(sizeof(mtx_t) >= sizeof(pthread_mutex_t) && sizeof(cnd_t) >= sizeof(pthread_cond_t), "as in glibc");

static int result(int error) {
    return error == 0 ? thrd_success : error == ETIMEDOUT ? thrd_timedout : error == EBUSY ? thrd_busy : thrd_error;
}

SHIM void call_once(once_flag *flag, void (*call)(void)) {
    pthread_once((pthread_once_t *)flag, call);
}

SHIM int thrd_create(thrd_t *thread, thrd_start_t start, void *arg) {
    return result(pthread_create(thread, NULL, (void *(*)(void *))(uintptr_t)start, arg));
}

SHIM int thrd_join(thrd_t thread, int *value) {
    void *got;
    int error = pthread_join(thread, &got);
    if (value != NULL) {
        *value = (int)(intptr_t)got;
    }
    return result(error);
}

SHIM int thrd_detach(thrd_t thread) {
    return result(pthread_detach(thread));
}

SHIM int mtx_init(mtx_t *mutex, int type) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, type & mtx_recursive ? PTHREAD_MUTEX_RECURSIVE : PTHREAD_MUTEX_NORMAL);
    return result(pthread_mutex_init((pthread_mutex_t *)mutex, &attributes));
}

SHIM void mtx_destroy(mtx_t *mutex) {
    pthread_mutex_destroy((pthread_mutex_t *)mutex);
}

SHIM int mtx_lock(mtx_t *mutex) {
    return result(pthread_mutex_lock((pthread_mutex_t *)mutex));
}

SHIM int mtx_trylock(mtx_t *mutex) {
    return result(pthread_mutex_trylock((pthread_mutex_t *)mutex));
}

SHIM int mtx_unlock(mtx_t *mutex) {
    return result(pthread_mutex_unlock((pthread_mutex_t *)mutex));
}

SHIM int cnd_init(cnd_t *condition) {
    return result(pthread_cond_init((pthread_cond_t *)condition, NULL));
}

SHIM void cnd_destroy(cnd_t *condition) {
    pthread_cond_destroy((pthread_cond_t *)condition);
}

SHIM int cnd_signal(cnd_t *condition) {
    return result(pthread_cond_signal((pthread_cond_t *)condition));
}

SHIM int cnd_broadcast(cnd_t *condition) {
    return result(pthread_cond_broadcast((pthread_cond_t *)condition));
}

SHIM int cnd_wait(cnd_t *condition, mtx_t *mutex) {
    return result(pthread_cond_wait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex));
}

SHIM int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until) {
    return result(pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, until));
}
#else
typedef int hv_not_empty;
#endif
