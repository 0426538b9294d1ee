/* A process that gives up its capabilities while a worker of io_uring goes on that was started before: opens files by itself and by the worker. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static int ring;
static struct io_uring_params parameters;
static char *submissions, *completions;
static struct io_uring_sqe *entries;

/* Has the worker open a file; what open(2) returns, or an error below 0. */
static int by_worker(const char *path)
{
    unsigned *tail = (unsigned *)(submissions + parameters.sq_off.tail);
    unsigned *head = (unsigned *)(completions + parameters.cq_off.head);
    unsigned at = *tail & *(unsigned *)(submissions + parameters.sq_off.ring_mask);
    entries[at] = (struct io_uring_sqe){.opcode = IORING_OP_OPENAT, .flags = IOSQE_ASYNC, .fd = AT_FDCWD, .addr = (unsigned long)path};
    ((unsigned *)(submissions + parameters.sq_off.array))[at] = at;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
        return -errno;
    struct io_uring_cqe *all = (struct io_uring_cqe *)(completions + parameters.cq_off.cqes);
    int result = all[*head & *(unsigned *)(completions + parameters.cq_off.ring_mask)].res;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return result;
}

int main(int count, char **paths)
{
    ring = syscall(SYS_io_uring_setup, 8, &parameters);
    if (ring < 0) {
        perror("io_uring");
        return 77;
    }
    int flags = MAP_SHARED | MAP_POPULATE;
    submissions = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, flags, ring, IORING_OFF_SQ_RING);
    completions = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, flags, ring, IORING_OFF_CQ_RING);
    entries = mmap(NULL, 8 * sizeof *entries, PROT_READ | PROT_WRITE, flags, ring, IORING_OFF_SQES);
    if (by_worker(paths[1]) < 0)
        return 2;
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0}};
    if (syscall(SYS_capset, &header, none))
        return 3;
    for (int path = 1; path < count; path++) {
        int own = open(paths[path], O_RDONLY) < 0 ? errno : 0, workers = by_worker(paths[path]);
        printf("%s %s\n", own ? strerrorname_np(own) : "ok", workers < 0 ? strerrorname_np(-workers) : "ok");
    }
    return 0;
}
