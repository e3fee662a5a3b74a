/* Count, log, fail or die at the file system calls a process makes below one directory.

   Loaded with LD_PRELOAD. Nothing happens until faults_start() is called (through ctypes), so
   one warm process can fork a child for each fault. Every call is made by its raw number, hence
   no dlsym; 64-bit Linux only. What libc does inside itself (stdio) is not seen: the tests
   compare a replay of the log with the real files to know that nothing was missed. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* The same numbers as in tool.py */
enum op { WRITE = 1, TRUNCATE, CREATE, MKDIR, RENAME, LINK, UNLINK, RMDIR, ALLOCATE, SYNC,
          SYNC_ALL, MMAP, OPEN, MARK };
enum action { NOTHING, KILL_BEFORE, KILL_INSIDE, KILL_AFTER, FAIL, SHORT_WRITE };
enum { FLAG_SYNCED = 1, FLAG_WRITABLE = 2 };

struct record {
    uint32_t op, flags, path, path2; /* the lengths of the paths, which follow, then the data */
    uint64_t offset, length, data;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static int log_fd = -1, action, error_number, sticky;
static long count, target;

void faults_start(const char *directory, int log, int what, long at, int error, int forever)
{
    log_fd = log;
    action = what;
    target = at;
    error_number = error;
    sticky = forever;
    count = 0;
    snprintf(root, sizeof root, "%s", directory);
}

/* No fault from here on (the disk has space again); logging goes on. */
void faults_stop(void) { action = NOTHING; }

long faults_count(void) { return count; }

static void append(struct record *r, const char *path, const char *path2,
                   const struct iovec *data, int parts)
{
    struct iovec all[3 + parts];
    r->path = strlen(path);
    r->path2 = strlen(path2);
    all[0] = (struct iovec){r, sizeof *r};
    all[1] = (struct iovec){(void *)path, r->path};
    all[2] = (struct iovec){(void *)path2, r->path2};
    for (int i = 0; i < parts; i++)
        all[3 + i] = data[i];
    if (log_fd >= 0 && syscall(SYS_writev, log_fd, all, 3 + parts) < 0)
        _exit(97);
}

void faults_mark(const char *text)
{
    struct record r = {.op = MARK};
    pthread_mutex_lock(&mutex);
    append(&r, text, "", NULL, 0);
    pthread_mutex_unlock(&mutex);
}

static int below_root(const char *path)
{
    size_t n = strlen(root);
    return n && !strncmp(path, root, n) && (path[n] == '/' || !path[n]);
}

static int of_fd(int fd, char path[PATH_MAX])
{
    char link[40];
    if (!*root || fd < 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    path[n < 0 ? 0 : n] = 0;
    return n > 0 && below_root(path);
}

static int of_name(int dir, const char *name, char path[PATH_MAX])
{
    char base[PATH_MAX];
    if (!*root || !name)
        return 0;
    int fd, end = 0;
    if (sscanf(name, "/proc/self/fd/%d/%n", &fd, &end) == 1 && end)
        return of_name(fd, name + end, path); /* opened from a directory's descriptor */
    if (*name == '/')
        snprintf(path, PATH_MAX, "%s", name);
    else {
        if (dir == AT_FDCWD) {
            if (!getcwd(base, sizeof base))
                return 0;
        } else {
            char link[40];
            snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
            ssize_t n = readlink(link, base, sizeof base - 1);
            base[n < 0 ? 0 : n] = 0;
        }
        if (snprintf(path, PATH_MAX, "%s/%s", base, name) >= PATH_MAX)
            return 0;
    }
    size_t n = strlen(path); /* "directory/" is "directory" */
    while (n > 1 && path[n - 1] == '/')
        path[--n] = 0;
    return below_root(path);
}

static void die(void) { syscall(SYS_kill, getpid(), SIGKILL); }

/* Take the mutex and the next number. True: the call must fail, errno says how. */
static int enter_write(enum op op, int in_place)
{
    pthread_mutex_lock(&mutex);
    count++;
    int here = count == target;
    if (here && action == KILL_BEFORE)
        die();
    if (action != FAIL && action != SHORT_WRITE)
        return 0;
    if (here && action == SHORT_WRITE && op == WRITE)
        return 0;
    if (!here && !(sticky && count > target))
        return 0;
    if (!here && (op == UNLINK || op == RMDIR || op == TRUNCATE || op == RENAME || op == MMAP))
        return 0;
    /* a full disk also takes what needs no new space */
    if (!here && error_number == ENOSPC && (op == SYNC || in_place))
        return 0;
    pthread_mutex_unlock(&mutex);
    errno = error_number;
    return 1;
}

static int enter(enum op op) { return enter_write(op, 0); }

static long leave(long result, struct record *r, const char *path, const char *path2,
                  const struct iovec *data, int parts)
{
    int saved = errno;
    if (result >= 0)
        append(r, path, path2, data, parts);
    if (count == target && (action == KILL_AFTER || action == KILL_INSIDE))
        die();
    pthread_mutex_unlock(&mutex);
    errno = saved;
    return result;
}

/* One write of any kind; offset -1 is the position of the file. */
static ssize_t do_write(int fd, const struct iovec *iov, int parts, off_t offset)
{
    char path[PATH_MAX];
    if (!of_fd(fd, path))
        return offset < 0 ? syscall(SYS_writev, fd, iov, parts)
                          : syscall(SYS_pwritev, fd, iov, parts, offset, 0);
    int flags = fcntl(fd, F_GETFL);
    struct stat st;
    fstat(fd, &st);
    struct record r = {.op = WRITE, .flags = flags & O_DSYNC ? FLAG_SYNCED : 0};
    r.offset = offset >= 0 ? offset : flags & O_APPEND ? st.st_size : lseek(fd, 0, SEEK_CUR);
    size_t whole = 0, left;
    for (int i = 0; i < parts; i++)
        whole += iov[i].iov_len;
    if (enter_write(WRITE, r.offset + whole <= (uint64_t)st.st_size))
        return -1;
    struct iovec part[parts];
    left = count == target && (action == SHORT_WRITE || action == KILL_INSIDE) ? whole / 2 : whole;
    for (int i = 0; i < parts; i++) {
        part[i] = iov[i];
        if (part[i].iov_len > left)
            part[i].iov_len = left;
        left -= part[i].iov_len;
    }
    ssize_t done = offset < 0 ? syscall(SYS_writev, fd, part, parts)
                              : syscall(SYS_pwritev, fd, part, parts, offset, 0);
    left = r.data = r.length = done < 0 ? 0 : done;
    for (int i = 0; i < parts; i++) {
        if (part[i].iov_len > left)
            part[i].iov_len = left;
        left -= part[i].iov_len;
    }
    return leave(done, &r, path, "", part, parts);
}

ssize_t write(int fd, const void *data, size_t n)
{
    struct iovec iov = {(void *)data, n};
    return do_write(fd, &iov, 1, -1);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off_t offset)
{
    struct iovec iov = {(void *)data, n};
    return do_write(fd, &iov, 1, offset);
}
ssize_t writev(int fd, const struct iovec *iov, int n) { return do_write(fd, iov, n, -1); }
ssize_t pwritev64(int fd, const struct iovec *iov, int n, off_t offset)
{
    return do_write(fd, iov, n, offset);
}
ssize_t pwritev64v2(int fd, const struct iovec *iov, int n, off_t offset, int flags)
{
    (void)flags;
    return do_write(fd, iov, n, offset);
}

static int do_open(int dir, const char *name, int flags, mode_t mode)
{
    char path[PATH_MAX];
    struct stat st;
    if (!of_name(dir, name, path))
        return syscall(SYS_openat, dir, name, flags, mode);
    int exists = !stat(path, &st);
    struct record r = {.op = OPEN};
    if (flags & O_CREAT && !exists)
        r.op = CREATE;
    else if (flags & O_TRUNC && exists && st.st_size)
        r.op = TRUNCATE;
    if (r.op == OPEN) {
        int fd = syscall(SYS_openat, dir, name, flags, mode), saved = errno;
        pthread_mutex_lock(&mutex);
        if (fd >= 0)
            append(&r, path, "", NULL, 0);
        pthread_mutex_unlock(&mutex);
        errno = saved;
        return fd;
    }
    if (enter(r.op))
        return -1;
    return leave(syscall(SYS_openat, dir, name, flags, mode), &r, path, "", NULL, 0);
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open64(const char *name, int flags, ...) { MODE(flags) return do_open(AT_FDCWD, name, flags, mode); }
int openat64(int dir, const char *name, int flags, ...) { MODE(flags) return do_open(dir, name, flags, mode); }
int creat64(const char *name, mode_t mode)
{
    return do_open(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int renameat2(int dir, const char *from, int dir2, const char *to, unsigned flags)
{
    char path[PATH_MAX], path2[PATH_MAX];
    struct record r = {.op = RENAME};
    if (!of_name(dir, from, path) | !of_name(dir2, to, path2))
        return syscall(SYS_renameat2, dir, from, dir2, to, flags);
    if (enter(RENAME))
        return -1;
    return leave(syscall(SYS_renameat2, dir, from, dir2, to, flags), &r, path, path2, NULL, 0);
}
int renameat(int dir, const char *from, int dir2, const char *to) { return renameat2(dir, from, dir2, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int linkat(int dir, const char *from, int dir2, const char *to, int flags)
{
    char path[PATH_MAX], path2[PATH_MAX];
    struct record r = {.op = LINK};
    if (!of_name(dir, from, path) | !of_name(dir2, to, path2))
        return syscall(SYS_linkat, dir, from, dir2, to, flags);
    if (enter(LINK))
        return -1;
    return leave(syscall(SYS_linkat, dir, from, dir2, to, flags), &r, path, path2, NULL, 0);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int dir, const char *name, int flags)
{
    char path[PATH_MAX];
    struct record r = {.op = flags & AT_REMOVEDIR ? RMDIR : UNLINK};
    if (!of_name(dir, name, path))
        return syscall(SYS_unlinkat, dir, name, flags);
    if (enter(r.op))
        return -1;
    return leave(syscall(SYS_unlinkat, dir, name, flags), &r, path, "", NULL, 0);
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdirat(int dir, const char *name, mode_t mode)
{
    char path[PATH_MAX];
    struct record r = {.op = MKDIR};
    if (!of_name(dir, name, path))
        return syscall(SYS_mkdirat, dir, name, mode);
    if (enter(MKDIR))
        return -1;
    return leave(syscall(SYS_mkdirat, dir, name, mode), &r, path, "", NULL, 0);
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int ftruncate64(int fd, off_t length)
{
    char path[PATH_MAX];
    struct record r = {.op = TRUNCATE, .length = length};
    if (!of_fd(fd, path))
        return syscall(SYS_ftruncate, fd, length);
    if (enter(TRUNCATE))
        return -1;
    return leave(syscall(SYS_ftruncate, fd, length), &r, path, "", NULL, 0);
}
int truncate64(const char *name, off_t length)
{
    char path[PATH_MAX];
    struct record r = {.op = TRUNCATE, .length = length};
    if (!of_name(AT_FDCWD, name, path))
        return syscall(SYS_truncate, name, length);
    if (enter(TRUNCATE))
        return -1;
    return leave(syscall(SYS_truncate, name, length), &r, path, "", NULL, 0);
}

int fallocate64(int fd, int mode, off_t offset, off_t length)
{
    char path[PATH_MAX];
    struct record r = {.op = ALLOCATE, .flags = mode, .offset = offset, .length = length};
    if (!of_fd(fd, path))
        return syscall(SYS_fallocate, fd, mode, offset, length);
    if (enter(ALLOCATE))
        return -1;
    return leave(syscall(SYS_fallocate, fd, mode, offset, length), &r, path, "", NULL, 0);
}
int posix_fallocate64(int fd, off_t offset, off_t length)
{
    int saved = errno, result = fallocate64(fd, 0, offset, length) ? errno : 0;
    errno = saved;
    return result;
}

static int do_sync(int fd, enum op op, long number)
{
    char path[PATH_MAX];
    struct record r = {.op = op};
    if (!of_fd(fd, path))
        return syscall(number, fd);
    if (enter(op))
        return -1;
    return leave(syscall(number, fd), &r, path, "", NULL, 0);
}
int fsync(int fd) { return do_sync(fd, SYNC, SYS_fsync); }
int fdatasync(int fd) { return do_sync(fd, SYNC, SYS_fdatasync); }
int syncfs(int fd) { return do_sync(fd, SYNC_ALL, SYS_syncfs); }
void sync(void)
{
    struct record r = {.op = SYNC_ALL};
    if (*root && !enter(SYNC_ALL))
        leave(syscall(SYS_sync), &r, root, "", NULL, 0);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    char path[PATH_MAX];
    struct record r = {.op = MMAP, .offset = offset, .length = length};
    if (flags & MAP_ANONYMOUS || !of_fd(fd, path))
        return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
    if (flags & MAP_SHARED && protection & PROT_WRITE)
        r.flags = FLAG_WRITABLE;
    if (enter(MMAP))
        return MAP_FAILED;
    return (void *)leave(syscall(SYS_mmap, address, length, protection, flags, fd, offset), &r,
                         path, "", NULL, 0);
}

/* On 64 bits each call has two names, and libc a third for write. */
#define ALIAS(name, of) __typeof__(of) name __attribute__((alias(#of)))
ALIAS(__write, write);
ALIAS(pwrite, pwrite64);
ALIAS(__pwrite64, pwrite64);
ALIAS(pwritev, pwritev64);
ALIAS(pwritev2, pwritev64v2);
ALIAS(open, open64);
ALIAS(__open, open64);
ALIAS(__open64, open64);
ALIAS(openat, openat64);
ALIAS(creat, creat64);
ALIAS(ftruncate, ftruncate64);
ALIAS(truncate, truncate64);
ALIAS(fallocate, fallocate64);
ALIAS(posix_fallocate, posix_fallocate64);
ALIAS(mmap, mmap64);
