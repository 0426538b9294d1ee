/* A process to be looked at, in a state that decides who may: it prints its number, and ends when its input does.
   And one that looks at others (`judge`). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static void serve(unsigned long address)
{
    char line[64], byte;
    int length = snprintf(line, sizeof line, "%d %lx\n", (int)getpid(), address);
    if (write(1, line, length) != length)
        _exit(1);
    while (read(0, &byte, 1) > 0)
        ;
    _exit(0);
}

static void *wait_as_root(void *unused)
{
    for (;;)
        pause();
    return unused;
}

/* Of the calling thread alone: the C library's functions change all threads. */
static void become(long id)
{
    if (syscall(SYS_setresgid, id, id, id) || syscall(SYS_setresuid, id, id, id))
        _exit(2);
    prctl(PR_SET_DUMPABLE, 1);
}

/* Opens a file, and says what came of it. */
static int verdict(char *said, const char *path, int flags)
{
    int file = open(path, flags);
    strcpy(said, file >= 0 ? "ok" : strerrorname_np(errno));
    return file;
}

/* What is the same whoever asks: the last bytes of the stack, by /proc and by both files of the mount. */
static const char *compare(const char *link, int memory, int mapping, int space, int flags)
{
    char target[PATH_MAX] = "", bytes[3][256];
    unsigned long start, end;
    if (readlink(link, target, sizeof target - 1) < 0 || sscanf(target, "%lx-%lx", &start, &end) != 2)
        return "no link";
    if (pread(memory, bytes[0], 256, end - 256) != 256 || pread(mapping, bytes[1], 256, end - start - 256) != 256 ||
        pread(space, bytes[2], 256, end - 256) != 256)
        return "short";
    if (memcmp(bytes[0], bytes[1], 256) || memcmp(bytes[0], bytes[2], 256))
        return "different";
    if (flags == O_RDWR && (pwrite(mapping, bytes[0], 1, end - start - 256) != 1 || pwrite(space, bytes[0], 1, end - 256) != 1))
        return "not written";
    return "same";
}

/* What the kernel says of /proc/PID/mem, and what the mount says of its files, for each process. */
static int judge(const char *mount, char **pids)
{
    for (; *pids; pids++)
        for (int flags = O_RDONLY; flags <= O_RDWR; flags += O_RDWR - O_RDONLY) {
            char memory[64], link[PATH_MAX], whole[PATH_MAX], said[3][32];
            snprintf(memory, sizeof memory, "/proc/%s/mem", *pids);
            snprintf(link, sizeof link, "%s/%s/stack", mount, *pids);
            snprintf(whole, sizeof whole, "%s/mem/%s", mount, *pids);
            int files[] = {verdict(said[0], memory, flags), verdict(said[1], link, flags), verdict(said[2], whole, flags)};
            int all = files[0] >= 0 && files[1] >= 0 && files[2] >= 0;
            printf("%s %s %s %s %s %s\n", *pids, flags == O_RDONLY ? "read" : "write", said[0], said[1], said[2],
                   all ? compare(link, files[0], files[1], files[2], flags) : "same");
            for (int file = 0; file < 3; file++)
                if (files[file] >= 0)
                    close(files[file]);
        }
    return 0;
}

/* The first bytes of a file. */
static int show(const char *path)
{
    char bytes[8];
    int file = open(path, O_RDONLY);
    if (file < 0 || read(file, bytes, sizeof bytes) != sizeof bytes) {
        perror(path);
        return 1;
    }
    printf("%.8s\n", bytes);
    return 0;
}

int main(int count, char **words)
{
    const char *state = count > 1 ? words[1] : "plain";
    long id = count > 2 ? atol(words[2]) : 0;
    if (!strcmp(state, "judge"))
        return judge(words[2], words + 3);
    if (!strcmp(state, "show"))
        return show(words[2]);
    if (!strcmp(state, "hidden"))
        prctl(PR_SET_DUMPABLE, 0);
    if (!strcmp(state, "thread")) {
        pthread_t other;
        if (pthread_create(&other, NULL, wait_as_root, NULL))
            return 2;
        become(id);
    }
    if (!strcmp(state, "vfork") && vfork() > 0)
        _exit(0);
    if (!strcmp(state, "mapped")) {
        /* A file of root's that the process has mapped, and has no descriptor of. */
        int file = open(words[3], O_RDONLY);
        char *bytes = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, file, 0);
        if (bytes == MAP_FAILED)
            return 2;
        close(file);
        become(id);
        serve((unsigned long)bytes);
    }
    serve(0);
}
