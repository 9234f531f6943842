/* A shim, loaded with LD_PRELOAD. Counts the calls that change a folder. At a chosen call it kills the process, kills it
 * after half of a write, or lets this call and all later ones fail. It also shifts the process's clock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { COUNT, KILL, TEAR, FAIL };

static char folder[PATH_MAX];
static atomic_long calls;
static long target = -1;
static int what, error_number, log_fd = -1;
static long long clock_offset_s;

void faults_arm(const char *path, long at, int action, int error) {
    strncpy(folder, path, sizeof folder - 1);
    atomic_store(&calls, 0);
    target = at, what = action, error_number = error;
}
long faults_calls(void) { return atomic_load(&calls); }
void faults_log(int fd) { log_fd = fd; }
void faults_clock(long long seconds) { clock_offset_s = seconds; }

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int inside(const char *path) {
    size_t length = strlen(folder);
    return length && !strncmp(path, folder, length) && (!path[length] || path[length] == '/');
}

/* Get the path of a descriptor, or of a name relative to one; return whether it is in the folder. */
static int path_of(int fd, const char *name, char *path) {
    char link[64], base[PATH_MAX] = "";
    if (name && name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return inside(path);
    }
    snprintf(link, sizeof link, fd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", fd);
    if (readlink(link, base, sizeof base - 1) < 0) return 0;
    snprintf(path, PATH_MAX, name ? "%s/%s" : "%s", base, name);
    return inside(path);
}

/* Count a call. 0: continue. -1: fail, errno is set. 1: write half, then die. */
static int point(const char *call, int fd, const char *name) {
    char path[PATH_MAX];
    int before = errno;
    if (!folder[0] || !path_of(fd, name, path)) return errno = before, 0;
    long number = atomic_fetch_add(&calls, 1);
    if (log_fd >= 0) dprintf(log_fd, "%s %s\n", call, path);
    errno = before;
    if (target < 0 || number < target) return 0;
    if (what == FAIL) return errno = error_number, -1;
    if (number > target) return 0;
    if (what == TEAR && !strcmp(call, "write")) return 1;
    if (what == KILL || what == TEAR) kill(getpid(), SIGKILL);
    return 0;
}

#define GUARD(call, fd, name) do { if (point(call, fd, name) < 0) return -1; } while (0)

ssize_t write(int fd, const void *data, size_t count) {
    int fate = fd == log_fd ? 0 : point("write", fd, NULL);
    if (fate < 0) return -1;
    if (fate > 0) {
        REAL(write)(fd, data, count / 2);
        kill(getpid(), SIGKILL);
    }
    return REAL(write)(fd, data, count);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    GUARD("writev", fd, NULL);
    return REAL(writev)(fd, parts, count);
}
ssize_t pwrite(int fd, const void *data, size_t count, off_t at) {
    GUARD("pwrite", fd, NULL);
    return REAL(pwrite)(fd, data, count, at);
}
ssize_t pwrite64(int fd, const void *data, size_t count, off64_t at) {
    GUARD("pwrite", fd, NULL);
    return REAL(pwrite64)(fd, data, count, at);
}
int fsync(int fd) {
    GUARD("fsync", fd, NULL);
    return REAL(fsync)(fd);
}
int fdatasync(int fd) {
    GUARD("fsync", fd, NULL);
    return REAL(fdatasync)(fd);
}
int ftruncate(int fd, off_t length) {
    GUARD("truncate", fd, NULL);
    return REAL(ftruncate)(fd, length);
}
int ftruncate64(int fd, off64_t length) {
    GUARD("truncate", fd, NULL);
    return REAL(ftruncate64)(fd, length);
}
int rename(const char *from, const char *to) {
    GUARD("rename", AT_FDCWD, to);
    return REAL(rename)(from, to);
}
int renameat(int from_fd, const char *from, int to_fd, const char *to) {
    GUARD("rename", to_fd, to);
    return REAL(renameat)(from_fd, from, to_fd, to);
}
int unlink(const char *path) {
    GUARD("unlink", AT_FDCWD, path);
    return REAL(unlink)(path);
}
int unlinkat(int fd, const char *path, int flags) {
    GUARD("unlink", fd, path);
    return REAL(unlinkat)(fd, path, flags);
}
int mkdir(const char *path, mode_t mode) {
    GUARD("mkdir", AT_FDCWD, path);
    return REAL(mkdir)(path, mode);
}

#define OPEN(name, first, fd, path, pass)                     \
    int name(first const char *path, int flags, ...) {        \
        mode_t mode = 0;                                      \
        if (flags & (O_CREAT | __O_TMPFILE)) {                \
            va_list rest;                                     \
            va_start(rest, flags);                            \
            mode = va_arg(rest, mode_t);                      \
            va_end(rest);                                     \
            GUARD("create", fd, path);                        \
        }                                                     \
        return REAL(name)(pass path, flags, mode);            \
    }
#define NOTHING
#define AT int at,
#define AT_PASS at,
OPEN(open, NOTHING, AT_FDCWD, path, NOTHING)
OPEN(open64, NOTHING, AT_FDCWD, path, NOTHING)
OPEN(openat, AT, at, path, AT_PASS)
OPEN(openat64, AT, at, path, AT_PASS)

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = REAL(clock_gettime)(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += clock_offset_s;
    return result;
}
