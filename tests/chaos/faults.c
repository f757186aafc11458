/* A library for LD_PRELOAD: the n-th system call on a file below one folder fails, or the process is killed there.

   Whoever makes the call is caught: Python, Arrow, their C libraries. Environment, read at the first such call and again
   by faults_arm():

   FAULTS_FOLDER  the folder, absolute; unset: nothing is counted
   FAULTS_CALLS   which calls are counted, e.g. "write,fsync"; see names[]
   FAULTS_AT      from 1; 0: none fails
   FAULTS_UNTIL   the last one that fails; 0: all from FAULTS_AT on
   FAULTS_ACTION  a number: that errno; "before" or "after": SIGKILL before or after the call
   FAULTS_RANK    only in this rank of an MPI job (PMI_RANK)
   FAULTS_LOG     a file to which "NUMBER CALL PATH" is appended for each counted call
*/
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

/* "release" closes a file that was opened to be read, or a folder. */
enum call { CREATE, OPEN, WRITE, FSYNC, CLOSE, RELEASE, RENAME, MKDIR, UNLINK, TOUCH, CALLS };
static const char *const names[CALLS] = {"create",  "open",   "write", "fsync",  "close",
                                         "release", "rename", "mkdir", "unlink", "touch"};

#define DESCRIPTORS 65536
static _Atomic unsigned char tracked[DESCRIPTORS]; /* files below the folder: 1 + CREATE or OPEN */
static char folder[PATH_MAX];
static size_t folder_length;
static unsigned counted_calls;
static long first, last;
static int code, kills_before, kills_after, log_fd = -1;
static atomic_long count;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void read_environment(void) {
  const char *path = getenv("FAULTS_FOLDER"), *calls = getenv("FAULTS_CALLS"), *action = getenv("FAULTS_ACTION");
  const char *at = getenv("FAULTS_AT"), *until = getenv("FAULTS_UNTIL"), *log = getenv("FAULTS_LOG");
  const char *wanted_rank = getenv("FAULTS_RANK"), *rank = getenv("PMI_RANK");
  folder_length = 0;
  if (!path || !calls || (wanted_rank && (!rank || strcmp(rank, wanted_rank))))
    return;
  snprintf(folder, sizeof folder, "%s", path);
  folder_length = strlen(folder);
  counted_calls = 0;
  for (int i = 0; i < CALLS; i++) {
    const char *found = calls;
    size_t length = strlen(names[i]);
    while ((found = strstr(found, names[i]))) {
      if ((found == calls || found[-1] == ',') && (found[length] == ',' || !found[length]))
        counted_calls |= 1u << i;
      found += length;
    }
  }
  first = at ? atol(at) : 0;
  last = until && atol(until) ? atol(until) : LONG_MAX;
  kills_before = action && !strcmp(action, "before");
  kills_after = action && !strcmp(action, "after");
  code = action && !kills_before && !kills_after ? atoi(action) : 0;
  log_fd = log ? (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
  count = 0;
}

void faults_arm(void) { read_environment(); }

static int is_below(const char *path) {
  return folder_length && !strncmp(path, folder, folder_length) && (path[folder_length] == '/' || !path[folder_length]);
}

/* The absolute path of what a call names. */
static const char *absolute(int at, const char *path, char *buffer) {
  char base[PATH_MAX], link[64];
  pthread_once(&once, read_environment);
  if (!folder_length || path[0] == '/')
    return path;
  snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
  ssize_t length = readlink(link, base, sizeof base - 1);
  base[length > 0 ? length : 0] = 0;
  /* A longer path than there can be would be cut; it would be refused anyway. */
  if (snprintf(buffer, PATH_MAX, "%s/%s", base, path) < 0)
    return path;
  return buffer;
}

static int is_tracked(int fd) { return fd >= 0 && fd < DESCRIPTORS && tracked[fd]; }

/* Counts a call; 1 if it has to fail, with errno set. */
static int fails(enum call call, const char *path, int fd) {
  char named[PATH_MAX], link[64], line[PATH_MAX + 64];
  if (!(counted_calls & (1u << call)))
    return 0;
  long number = atomic_fetch_add(&count, 1) + 1;
  if (log_fd >= 0) {
    if (!path) {
      snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
      ssize_t length = readlink(link, named, sizeof named - 1);
      named[length > 0 ? length : 0] = 0;
      path = named;
    }
    int length = snprintf(line, sizeof line, "%ld %s %s\n", number, names[call], path);
    syscall(SYS_write, log_fd, line, (size_t)length);
  }
  if (!first || number < first || number > last)
    return 0;
  if (kills_before)
    kill(getpid(), SIGKILL);
  if (code)
    errno = code;
  return code != 0;
}

static void survive(enum call call) {
  if (kills_after && (counted_calls & (1u << call)) && first && atomic_load(&count) >= first)
    kill(getpid(), SIGKILL);
}

#define REAL(type, name, ...)                                                                                          \
  static type (*real)(__VA_ARGS__);                                                                                    \
  if (!real)                                                                                                           \
  real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static int opened(int (*real)(int, const char *, int, ...), int at, const char *path, int flags, mode_t mode) {
  char buffer[PATH_MAX];
  const char *full = absolute(at, path, buffer);
  enum call call = flags & (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC) ? CREATE : OPEN;
  int below = is_below(full);
  if (below && fails(call, full, -1))
    return -1;
  int fd = real(at, path, flags, mode);
  if (fd >= 0 && fd < DESCRIPTORS)
    tracked[fd] = below ? 1 + call : 0;
  if (below)
    survive(call);
  return fd;
}

static mode_t mode_of(int flags, va_list arguments) {
  return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

#define OPENING(name, ...)                                                                                             \
  va_list arguments;                                                                                                   \
  va_start(arguments, flags);                                                                                          \
  mode_t mode = mode_of(flags, arguments);                                                                             \
  va_end(arguments);                                                                                                   \
  static int (*real)(int, const char *, int, ...);                                                                     \
  if (!real)                                                                                                           \
    real = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, name);                                               \
  return opened(real, __VA_ARGS__, path, flags, mode)

int open(const char *path, int flags, ...) { OPENING("openat", AT_FDCWD); }
int open64(const char *path, int flags, ...) { OPENING("openat64", AT_FDCWD); }
int openat(int at, const char *path, int flags, ...) { OPENING("openat", at); }
int openat64(int at, const char *path, int flags, ...) { OPENING("openat64", at); }

DIR *opendir(const char *path) {
  REAL(DIR *, opendir, const char *);
  char buffer[PATH_MAX];
  const char *full = absolute(AT_FDCWD, path, buffer);
  if (is_below(full) && fails(OPEN, full, -1))
    return NULL;
  return real(path);
}

int close(int fd) {
  REAL(int, close, int);
  int ours = is_tracked(fd);
  enum call call = ours && tracked[fd] == 1 + OPEN ? RELEASE : CLOSE;
  /* The descriptor is gone whatever is answered (close(2)). */
  int failed = ours && fails(call, NULL, fd), error = errno;
  if (ours)
    tracked[fd] = 0;
  int result = real(fd);
  if (failed) {
    errno = error;
    return -1;
  }
  if (ours)
    survive(call);
  return result;
}

#define ON_DESCRIPTOR(type, name, call, parameters, ...)                                                               \
  type name parameters {                                                                                               \
    static type(*real) parameters;                                                                                     \
    if (!real)                                                                                                         \
      real = (type(*) parameters)dlsym(RTLD_NEXT, #name);                                                              \
    int ours = is_tracked(fd);                                                                                         \
    if (ours && fails(call, NULL, fd))                                                                                 \
      return -1;                                                                                                       \
    type result = real(__VA_ARGS__);                                                                                   \
    if (ours)                                                                                                          \
      survive(call);                                                                                                   \
    return result;                                                                                                     \
  }

ON_DESCRIPTOR(ssize_t, write, WRITE, (int fd, const void *data, size_t size), fd, data, size)
ON_DESCRIPTOR(ssize_t, pwrite, WRITE, (int fd, const void *data, size_t size, off_t at), fd, data, size, at)
ON_DESCRIPTOR(ssize_t, pwrite64, WRITE, (int fd, const void *data, size_t size, off64_t at), fd, data, size, at)
ON_DESCRIPTOR(int, ftruncate, WRITE, (int fd, off_t size), fd, size)
ON_DESCRIPTOR(int, ftruncate64, WRITE, (int fd, off64_t size), fd, size)
ON_DESCRIPTOR(int, fsync, FSYNC, (int fd), fd)
ON_DESCRIPTOR(int, fdatasync, FSYNC, (int fd), fd)

#define ON_PATH(name, call, at, path, parameters, ...)                                                                 \
  int name parameters {                                                                                                \
    static int(*real) parameters;                                                                                      \
    if (!real)                                                                                                         \
      real = (int(*) parameters)dlsym(RTLD_NEXT, #name);                                                               \
    char buffer[PATH_MAX];                                                                                             \
    const char *full = path ? absolute(at, path, buffer) : "";                                                         \
    int below = is_below(full);                                                                                        \
    if (below && fails(call, full, -1))                                                                                \
      return -1;                                                                                                       \
    int result = real(__VA_ARGS__);                                                                                    \
    if (below)                                                                                                         \
      survive(call);                                                                                                   \
    return result;                                                                                                     \
  }

ON_PATH(rename, RENAME, AT_FDCWD, to, (const char *from, const char *to), from, to)
ON_PATH(renameat, RENAME, at, to, (int old, const char *from, int at, const char *to), old, from, at, to)
ON_PATH(link, RENAME, AT_FDCWD, to, (const char *from, const char *to), from, to)
ON_PATH(linkat, RENAME, at, to, (int old, const char *from, int at, const char *to, int flags), old, from, at, to, flags)
ON_PATH(mkdir, MKDIR, AT_FDCWD, path, (const char *path, mode_t mode), path, mode)
ON_PATH(mkdirat, MKDIR, at, path, (int at, const char *path, mode_t mode), at, path, mode)
ON_PATH(unlink, UNLINK, AT_FDCWD, path, (const char *path), path)
ON_PATH(unlinkat, UNLINK, at, path, (int at, const char *path, int flags), at, path, flags)
ON_PATH(rmdir, UNLINK, AT_FDCWD, path, (const char *path), path)
ON_PATH(utimensat, TOUCH, at, path, (int at, const char *path, const struct timespec times[2], int flags), at, path, times, flags)
