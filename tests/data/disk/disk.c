/* A disk that stops or is full, for tests: preloaded into a process, it looks at each call that may change a file below the
 * folder DISK_FOLDER.
 *
 * DISK_STOP=n   the process is killed before the n-th of these calls, as by a power cut.
 * DISK_FULL=f   while the file f exists, every one of them fails as on a full disk.
 *
 * Renames go to the kernel without passing here; the calls before and after them do. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST 4096

static atomic_int calls;
static atomic_char ours[MOST];

/* Whether the call must fail. */
static int before_change(void) {
  const char *stop = getenv("DISK_STOP");
  if (stop && atomic_fetch_add(&calls, 1) + 1 >= atoi(stop)) kill(getpid(), SIGKILL);
  const char *full = getenv("DISK_FULL");
  if (full && access(full, F_OK) == 0) {
    errno = ENOSPC;
    return 1;
  }
  return 0;
}

static int is_below(const char *path) {
  const char *folder = getenv("DISK_FOLDER");
  if (!folder) return 0;
  if (strncmp(path, folder, strlen(folder)) == 0) return 1;
  /* Relative to the folder that git works in. */
  char here[4096];
  return path[0] != '/' && getcwd(here, sizeof here) && strncmp(here, folder, strlen(folder)) == 0;
}

static int opened(int fd, int is_ours) {
  if (fd >= 0 && fd < MOST) atomic_store(&ours[fd], is_ours);
  return fd;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                                   \
  int name(const char *path, int flags, ...) {                       \
    va_list rest;                                                    \
    va_start(rest, flags);                                           \
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0; \
    va_end(rest);                                                    \
    int changes = (flags & O_ACCMODE) != O_RDONLY && is_below(path); \
    if (changes && before_change()) return -1;                       \
    return opened(REAL(name)(path, flags, mode), changes);           \
  }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *bytes, size_t count) {
  if (fd >= 0 && fd < MOST && atomic_load(&ours[fd]) && before_change()) return -1;
  return REAL(write)(fd, bytes, count);
}

int close(int fd) {
  if (fd >= 0 && fd < MOST && atomic_exchange(&ours[fd], 0) && getenv("DISK_STOP")) before_change();
  return REAL(close)(fd);
}

int mkdir(const char *path, mode_t mode) {
  if (is_below(path) && before_change()) return -1;
  return REAL(mkdir)(path, mode);
}
