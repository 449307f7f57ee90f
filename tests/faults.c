/* A layer between a program and its files that fails on purpose: LD_PRELOAD=faults.so, then the environment says
 *   FAULT_BELOW   only files below this folder count
 *   FAULT_CALL    write, sync, open (of new files), rename or unlink
 *   FAULT_AT      which of these calls fails, counted from 1; 0: none, but all are counted
 *   FAULT_HOW     an errno by number; 0 kills the process, a write having written half: a torn write
 *   FAULT_STAYS   1: every later call fails too, as on a full disk
 * fault_calls counts them. It sits below Python, PyTorch's C++ and safetensors' Rust alike. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

int fault_calls;

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value ? value : otherwise;
}

static int below(const char *path) {
    const char *folder = getenv("FAULT_BELOW");
    return folder && path && strncmp(path, folder, strlen(folder)) == 0;
}

static int below_fd(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

static int below_name(const char *name) {
    char path[4096];
    if (name[0] == '/') return below(name);
    if (!getcwd(path, sizeof path - 1) || strlen(path) + strlen(name) + 2 > sizeof path) return 0;
    return below(strcat(strcat(path, "/"), name));
}

/* 1 where this call is to fail */
static int fails(const char *call) {
    if (strcmp(call, setting("FAULT_CALL", ""))) return 0;
    int at = atoi(setting("FAULT_AT", "0")), count = __sync_add_and_fetch(&fault_calls, 1);
    return at && (count == at || (count > at && atoi(setting("FAULT_STAYS", "0"))));
}

/* The failure itself; it comes back only where the process is to live on */
static int fail(void) {
    int how = atoi(setting("FAULT_HOW", "28"));
    if (!how) kill(getpid(), SIGKILL);
    errno = how;
    return -1;
}

#define REAL(name, ...) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    if (!below_fd(fd) || !fails("write")) return real(fd, data, size);
    if (!atoi(setting("FAULT_HOW", "28"))) real(fd, data, size / 2);
    return fail();
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    return below_fd(fd) && fails("write") ? fail() : real(fd, parts, count);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(pwrite64);
    return below_fd(fd) && fails("write") ? fail() : real(fd, data, size, at);
}

int fsync(int fd) {
    REAL(fsync);
    return below_fd(fd) && fails("sync") ? fail() : real(fd);
}

static int open_any(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    return flags & O_CREAT && below_name(path) && fails("open") ? fail() : real(path, flags, mode);
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        return open_any(real, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

int rename(const char *from, const char *to) {
    REAL(rename);
    return below_name(to) && fails("rename") ? fail() : real(from, to);
}

int unlink(const char *path) {
    REAL(unlink);
    return below_name(path) && fails("unlink") ? fail() : real(path);
}
