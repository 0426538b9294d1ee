/*
 * The target of the attacks on identity: one program after another under one number.
 *
 *     target KIND LAYOUT CONTROL GENERATION PLAIN SETUID
 *
 * Each program is a generation. It lies at fixed addresses, those of the one before it: it is linked statically and
 * without PIE. It fills what is read with its number, says in the file CONTROL that it is ready, waits until each
 * worker has opened it, and a moment longer. Then it counts the words that were written by a worker whose handle is of
 * another generation, and makes way for the next one:
 *
 *     exec     by an exec
 *     shared   by an exec, while a child keeps the old address space
 *     vfork    it is a child that shares the address space of its parent, which it leaves by an exec
 *     setuid   by an exec of the copy SETUID, which belongs to root, and from there of PLAIN again
 *     exit     by its end; the next one has another number
 *     reuse    by its end; the next one has its number
 *
 * LAYOUT is "random", or "fixed": code and stack lie at the same place in each generation.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Words of CONTROL; see control.rs. */
enum { READY, PID, WORKERS, ROUNDS, DONE, WRONG, WRONG_VALUE, WRONG_GENERATION, ARRIVED, MISSED, READ, SEEK, WRITE, ACKS };

enum { PAGE = 4096, WORDS = PAGE / 8, READ_PAGES = 16, WRITE_PAGES = 64, BALLAST_PAGES = 1024 };

/* How long a generation waits for the workers. */
static const double LONGEST_WAIT = 0.25;

/* In the part of the program that is zeros at first: it is there as soon as the kernel has laid out the program. */
static struct {
    volatile uint64_t read[READ_PAGES * WORDS];
    /* Touched by every other generation: data, or a hole. */
    volatile uint64_t seek[WORDS];
    volatile uint64_t after[WORDS];
    volatile uint64_t write[WRITE_PAGES * WORDS];
    volatile char ballast[BALLAST_PAGES * PAGE];
} area __attribute__((aligned(4096)));

static volatile uint64_t *control;
static char **words;
static const char *kind;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static void fail(const char *what) {
    perror(what);
    _exit(1);
}

static int is(const char *name) { return strcmp(kind, name) == 0; }

/* Fills what is read; what is to be written begins as zeros. */
static void fill(uint64_t generation) {
    for (size_t at = 0; at < READ_PAGES * WORDS; at++) area.read[at] = generation;
    if (generation % 2 == 0) area.seek[0] = generation;
    /* What takes the kernel a while to take away: longer than a writer between its check and its write. */
    for (size_t at = 0; at < sizeof area.ballast; at += PAGE) area.ballast[at] = 1;
}

static void begin(uint64_t generation) {
    /* Where Yama would forbid to look. */
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    control[READ] = (uintptr_t)area.read;
    control[SEEK] = (uintptr_t)area.seek;
    control[WRITE] = (uintptr_t)area.write;
    control[PID] = syscall(SYS_getpid);
    __atomic_store_n(&control[READY], generation, __ATOMIC_SEQ_CST);
}

/* Waits until each worker has tried to open this generation, and a moment longer. */
static void stay(uint64_t generation) {
    double until = now() + LONGEST_WAIT;
    for (uint64_t worker = 0; worker < control[WORKERS]; worker++) {
        while (control[ACKS + worker] != generation) {
            if (now() > until) {
                control[MISSED]++;
                goto ready;
            }
            usleep(50);
        }
    }
ready:
    until = now() + (generation * 2654435761u % 400) * 1e-6;
    while (now() < until) sched_yield();
}

/* Counts what was written: the upper part of each value is the generation that the writer's handle is of. */
static void count(uint64_t generation) {
    for (size_t at = 0; at < WRITE_PAGES * WORDS; at++) {
        uint64_t value = area.write[at];
        if (value == 0) continue;
        if (value >> 16 == generation) {
            control[ARRIVED]++;
        } else {
            control[WRONG]++;
            control[WRONG_VALUE] = value;
            control[WRONG_GENERATION] = generation;
        }
    }
}

static void end(uint64_t generation) {
    stay(generation);
    __atomic_store_n(&control[READY], 0, __ATOMIC_SEQ_CST);
    count(generation);
}

static int is_last(uint64_t generation) { return generation >= control[ROUNDS]; }

/* Runs `program` as the generation in place of this one. Calls nothing that allocates: others may share our memory. */
static void run(const char *program, uint64_t generation) {
    char number[] = "000000000000";
    for (size_t at = sizeof number - 1; at-- > 0; generation /= 10) number[at] = '0' + generation % 10;
    /* As long as the one before, so that the stack begins where it did. */
    char *arguments[] = {"target", words[1], words[2], words[3], number, words[5], words[6], NULL};
    char *none[] = {NULL};
    execve(program, arguments, none);
    _exit(9);
}

/* A child's stack, in memory that it shares with us. */
static char stack[64 << 10] __attribute__((aligned(16)));

/* Keeps the address space of a generation until the next but one is there. */
static int keep(void *argument) {
    uint64_t generation = (uintptr_t)argument;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct timespec pause = {0, 200 * 1000};
    for (int turn = 0; turn < 5000; turn++) {
        if (control[READY] > generation + 1 || control[DONE]) break;
        syscall(SYS_nanosleep, &pause, NULL);
    }
    syscall(SYS_exit, 0);
    return 0;
}

static int leave(void *argument) {
    uint64_t generation = (uintptr_t)argument;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    begin(generation);
    stay(generation);
    __atomic_store_n(&control[READY], 0, __ATOMIC_SEQ_CST);
    run(words[5], generation + 1);
    return 0;
}

/* A child that is a copy of us, with this number, where it is one. */
static pid_t copy(pid_t number) {
    struct clone_args arguments = {.exit_signal = SIGCHLD};
    if (number != 0) {
        arguments.set_tid = (uintptr_t)&number;
        arguments.set_tid_size = 1;
    }
    return syscall(SYS_clone3, &arguments, sizeof arguments);
}

static void serve_children(uint64_t generation) {
    pid_t number = 0;
    signal(SIGCHLD, SIG_DFL);
    for (; !is_last(generation); generation++) {
        pid_t child = copy(is("reuse") ? number : 0);
        if (child < 0) fail("clone3");
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            fill(generation);
            begin(generation);
            end(generation);
            _exit(0);
        }
        number = child;
        if (waitpid(child, NULL, 0) != child) fail("waitpid");
    }
}

/* Each child shares our memory, and leaves it by an exec; then it is the next generation, which ends. */
static void serve_sharers(uint64_t generation) {
    signal(SIGCHLD, SIG_DFL);
    for (; !is_last(generation); generation += 2) {
        fill(generation);
        pid_t child = clone(leave, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, (void *)(uintptr_t)generation);
        if (child < 0) fail("clone");
        if (waitpid(child, NULL, 0) != child) fail("waitpid");
        count(generation);
        memset((void *)area.write, 0, sizeof area.write);
    }
}

int main(int number, char **given) {
    if (number != 7) return 2;
    words = given;
    kind = words[1];
    uint64_t generation = strtoull(words[4], NULL, 10);
    int fd = open(words[3], O_RDWR);
    if (fd < 0) fail(words[3]);
    control = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (control == MAP_FAILED) fail("mmap");
    close(fd);
    if (generation == 0) {
        /* The first one only prepares what its successors keep. */
        if (strcmp(words[2], "fixed") == 0) personality(ADDR_NO_RANDOMIZE);
        signal(SIGCHLD, SIG_IGN);
        run(words[5], 1);
    }
    if (is("exit") || is("reuse")) {
        serve_children(generation);
    } else if (is("vfork") && generation == 1) {
        serve_sharers(generation + 1);
    } else {
        fill(generation);
        begin(generation);
        end(generation);
        if (is("vfork")) return 0;
        if (!is_last(generation)) {
            int is_setuid = is("setuid") && geteuid() == getuid();
            if (!is_setuid && is("setuid") && setresuid(getuid(), getuid(), getuid()) != 0) fail("setresuid");
            if (is("shared"))
                clone(keep, stack + sizeof stack, CLONE_VM | SIGCHLD, (void *)(uintptr_t)generation);
            run(words[is_setuid ? 6 : 5], generation + 1);
        }
    }
    control[DONE] = 1;
    return 0;
}
