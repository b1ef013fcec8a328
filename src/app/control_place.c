/* See control_place.h. */
#include "app/control_place.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 16, LOCK_TRIES = 300, LOCK_PAUSE_US = 10000 };

static struct sockaddr_un address_of(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    assert(strlen(path) < sizeof address.sun_path); /* the setting's range sees to it */
    memcpy(address.sun_path, path, strlen(path));
    return address;
}

static int connect_to(int fd, const char *path) {
    const struct sockaddr_un address = address_of(path);
    return connect(fd, (const struct sockaddr *)&address, sizeof address);
}

/* Between looking whether somebody lives there and taking the place no other daemon may do the same. The directory is locked, since a file
 * for that would stay behind. Without the right to read it, or when somebody sits on the lock, it goes without. */
static int lock_directory(const char *path) {
    char directory[sizeof((struct sockaddr_un *)NULL)->sun_path];
    const char *slash = strrchr(path, '/');
    snprintf(directory, sizeof directory, "%.*s", slash == NULL || slash == path ? 1 : (int)(slash - path), slash == NULL ? "." : path);
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; fd >= 0 && i < LOCK_TRIES && flock(fd, LOCK_EX | LOCK_NB) != 0; i++) {
        usleep(LOCK_PAUSE_US);
    }
    return fd;
}

/* Makes room. 0 when nothing is in the way any more. */
static int clear_place(const char *path, struct hv_error *err) {
    struct stat there;
    if (lstat(path, &there) != 0) {
        return 0; /* what is wrong but for that it is missing, bind tells */
    }
    if (!S_ISSOCK(there.st_mode)) {
        return hv_error_set(err, "control_socket: %s is there and is no socket; remove it, or name another path", path);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int bad = fd < 0 || connect_to(fd, path) != 0 ? errno : 0;
    if (fd >= 0) {
        close(fd);
    }
    if (bad == 0 || bad == EAGAIN) {
        return hv_error_set(err, "control_socket: another daemon serves %s; give each a path of its own", path);
    }
    if (bad != ECONNREFUSED && bad != ENOENT) {
        return hv_error_set(err, "control_socket: whether another daemon serves %s cannot be told: %s", path, strerror(bad));
    }
    if (bad == ECONNREFUSED && unlink(path) != 0 && errno != ENOENT) {
        return hv_error_set(err, "control_socket: %s was left behind by a daemon that is gone, and cannot be removed: %s", path, strerror(errno));
    }
    return 0;
}

static int bind_to(int fd, const char *path, struct hv_error *err) {
    const struct sockaddr_un address = address_of(path);
    /* The file gets the mode of the socket: it is closed to others from its first moment on. */
    if (fchmod(fd, 0600) != 0 || bind(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        return hv_error_set(err, "control_socket: %s cannot be made: %s%s", path, strerror(errno),
                            errno == ENOENT ? "; its directory has to be there" : errno == EACCES ? "; the directory has to be this user's" : "");
    }
    return 0;
}

static int take_place(int fd, const char *path, struct hv_control_place *ret, struct hv_error *err) {
    struct stat ours;
    if (clear_place(path, err) != 0 || bind_to(fd, path, err) != 0) {
        return -1;
    }
    if (lstat(path, &ours) != 0 || listen(fd, BACKLOG) != 0) {
        hv_error_set(err, "control_socket: nobody can be listened to at %s: %s", path, strerror(errno));
        unlink(path);
        return -1;
    }
    *ret = (struct hv_control_place){path, ours.st_dev, ours.st_ino};
    return 0;
}

int hv_control_bind(const char *path, struct hv_control_place *ret, struct hv_error *err) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return hv_error_set(err, "control_socket: no socket: %s", strerror(errno));
    }
    int lock = lock_directory(path);
    int bad = take_place(fd, path, ret, err);
    if (lock >= 0) {
        close(lock);
    }
    if (bad != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

void hv_control_unbind(const struct hv_control_place *place) {
    struct stat there;
    if (lstat(place->path, &there) == 0 && there.st_dev == place->device && there.st_ino == place->inode) {
        unlink(place->path);
    }
}

static int tell_unreachable(const char *path, int bad, struct hv_error *err) {
    switch (bad) {
    case ENOENT:
    case ECONNREFUSED:
    case ENOTDIR:
        return hv_error_set(err, "nobody listens at %s: harvestd does not run with this configuration, or was started before control_socket was set",
                            path);
    case EACCES:
    case EPERM:
        return hv_error_set(err, "%s is not open to this user: run it as the user that harvestd runs as, or as root", path);
    case EAGAIN:
        return hv_error_set(err, "harvestd does not answer at %s: it is stopped, or very busy", path);
    default:
        return hv_error_set(err, "no way to harvestd at %s: %s", path, strerror(bad));
    }
}

int hv_control_connect(const char *path, hv_time patience, struct hv_error *err) {
    const struct timeval limit = {.tv_sec = patience / 1000000, .tv_usec = patience % 1000000};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return hv_error_set(err, "no socket: %s", strerror(errno));
    }
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) != 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) != 0 ||
        connect_to(fd, path) != 0) {
        int bad = errno;
        close(fd);
        return tell_unreachable(path, bad, err);
    }
    return fd;
}
