/* A process that notices what is done to its first thread: in a loop that keeps all registers, or in one system call after the other.
   It counts in a file that the test reads, and ends with status 1 and a line where something is other than it must be. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t *count;
static volatile uint64_t handled;
/* So large that it has a store of its own, and is tracked. */
static char large[4 << 20];

static void wrong(const char *what)
{
    fprintf(stderr, "wrong: %s (%s)\n", what, strerror(errno));
    _exit(1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* All general registers but the pointer of the stack, two of the vectors, and the flags that comparisons set. */
static void spin(void)
{
    uint64_t bad = 0, rounds = 200000;
    __asm__ volatile(
        "sub $256, %%rsp\n"
        "mov %1, (%%rsp)\n"
        "mov %%rbx, 8(%%rsp)\n mov %%rbp, 16(%%rsp)\n"
        "mov $1, %%rax\n mov $2, %%rbx\n mov $3, %%rcx\n mov $4, %%rdx\n mov $5, %%rsi\n mov $6, %%rdi\n mov $7, %%rbp\n"
        "mov $8, %%r8\n mov $9, %%r9\n mov $10, %%r10\n mov $11, %%r11\n mov $12, %%r12\n mov $13, %%r13\n mov $14, %%r14\n"
        "movq %%r8, %%xmm0\n movq %%r9, %%xmm15\n"
        "1:\n"
        "stc\n nop\n nop\n nop\n nop\n nop\n nop\n nop\n nop\n jnc 2f\n"
        "cmp $1, %%rax\n jne 2f\n cmp $2, %%rbx\n jne 2f\n cmp $3, %%rcx\n jne 2f\n cmp $4, %%rdx\n jne 2f\n"
        "cmp $5, %%rsi\n jne 2f\n cmp $6, %%rdi\n jne 2f\n cmp $7, %%rbp\n jne 2f\n cmp $8, %%r8\n jne 2f\n"
        "cmp $9, %%r9\n jne 2f\n cmp $10, %%r10\n jne 2f\n cmp $11, %%r11\n jne 2f\n cmp $12, %%r12\n jne 2f\n"
        "cmp $13, %%r13\n jne 2f\n cmp $14, %%r14\n jne 2f\n"
        "movq %%xmm0, %%r15\n cmp $8, %%r15\n jne 2f\n movq %%xmm15, %%r15\n cmp $9, %%r15\n jne 2f\n"
        "decq (%%rsp)\n jnz 1b\n"
        "xor %%eax, %%eax\n jmp 3f\n"
        "2: mov $1, %%eax\n"
        "3: mov 8(%%rsp), %%rbx\n mov 16(%%rsp), %%rbp\n"
        "add $256, %%rsp\n"
        : "=&a"(bad)
        : "r"(rounds)
        : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm15", "memory", "cc");
    if (bad)
        wrong("a register");
}

static void sleep_(void)
{
    double begun = now();
    struct timespec time = {0, 20 * 1000 * 1000};
    if (nanosleep(&time, NULL) != 0)
        wrong("nanosleep");
    if (now() - begun < 0.02)
        wrong("nanosleep was short");
}

static void poll_(void)
{
    sigset_t mask, before, after;
    struct timespec time = {0, 20 * 1000 * 1000};
    sigfillset(&mask);
    pthread_sigmask(SIG_BLOCK, NULL, &before);
    double begun = now();
    if (ppoll(NULL, 0, &time, &mask) != 0)
        wrong("ppoll");
    if (now() - begun < 0.02)
        wrong("ppoll was short");
    pthread_sigmask(SIG_BLOCK, NULL, &after);
    if (memcmp(&before, &after, 8) != 0)
        wrong("the mask of signals after ppoll");
}

static void futex_(void)
{
    int word = 0;
    struct timespec time = {0, 20 * 1000 * 1000};
    double begun = now();
    long answer = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &time, NULL, 0);
    if (answer != -1 || errno != ETIMEDOUT)
        wrong("futex");
    if (now() - begun < 0.02)
        wrong("futex was short");
}

static int pipes[2];

static void *writer(void *unused)
{
    for (uint64_t number = 0;; number++) {
        if (write(pipes[1], &number, sizeof number) != sizeof number)
            wrong("write");
        usleep(2000);
    }
    return unused;
}

static void read_(void)
{
    static uint64_t expected;
    uint64_t number;
    if (read(pipes[0], &number, sizeof number) != sizeof number || number != expected++)
        wrong("read");
}

static void handle(int signal)
{
    (void)signal;
    handled++;
}

/* Each of the signals comes while it waits for one, and ends its waiting. */
static void suspend(void)
{
    sigset_t none;
    sigemptyset(&none);
    uint64_t before = handled;
    if (sigsuspend(&none) != -1 || errno != EINTR)
        wrong("sigsuspend");
    if (handled != before + 1)
        wrong("sigsuspend without a signal");
}

static void *sender(void *unused)
{
    pid_t pid = getpid();
    /* One at a time, and each is handled before the next is sent. */
    for (uint64_t sent = 0;;) {
        if (handled >= sent) {
            sent++;
            syscall(SYS_tgkill, pid, pid, SIGUSR1);
        }
        usleep(500);
    }
    return unused;
}

static void trapped(int signal)
{
    (void)signal;
    handled++;
}

/* Step by step: each instruction ends with a signal. */
static void step(void)
{
    uint64_t before = handled;
    __asm__ volatile("pushf\n orl $0x100, (%%rsp)\n popf\n nop\n nop\n nop\n nop\n pushf\n andl $~0x100, (%%rsp)\n popf\n" ::: "memory", "cc");
    if (handled < before + 5)
        wrong("steps");
}

/* Without the vDSO, which nobody may run any more. */
static void raw_sleep(void)
{
    struct timespec time = {0, 5 * 1000 * 1000};
    if (syscall(SYS_nanosleep, &time, NULL) != 0)
        wrong("nanosleep");
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*step)(void);
    } states[] = {{"spin", spin}, {"sleep", sleep_}, {"poll", poll_}, {"futex", futex_}, {"read", read_}, {"suspend", suspend}, {"step", step}, {"unexecutable", raw_sleep}};
    if (argc != 3)
        return 2;
    int file = open(argv[2], O_RDWR | O_CREAT, 0600);
    if (ftruncate(file, 4096) != 0)
        wrong("ftruncate");
    count = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    memset(large, 1, sizeof large);
    pthread_t thread;
    if (strcmp(argv[1], "read") == 0) {
        if (pipe(pipes) != 0)
            wrong("pipe");
        pthread_create(&thread, NULL, writer, NULL);
    }
    if (strcmp(argv[1], "suspend") == 0) {
        sigset_t one;
        sigemptyset(&one);
        sigaddset(&one, SIGUSR1);
        pthread_sigmask(SIG_BLOCK, &one, NULL);
        struct sigaction action = {.sa_handler = handle};
        sigaction(SIGUSR1, &action, NULL);
        pthread_create(&thread, NULL, sender, NULL);
    }
    if (strcmp(argv[1], "step") == 0) {
        struct sigaction action = {.sa_handler = trapped};
        sigaction(SIGTRAP, &action, NULL);
    }
    if (strcmp(argv[1], "unexecutable") == 0) {
        /* It is protected as a whole or not at all. */
        void *vdso = (void *)getauxval(AT_SYSINFO_EHDR);
        size_t length = 4096;
        while (mprotect(vdso, length, PROT_READ) != 0 && length < 65536)
            length += 4096;
    }
    puts("ready");
    fflush(stdout);
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        while (strcmp(states[i].name, argv[1]) == 0) {
            states[i].step();
            ++*count;
        }
    return 2;
}
