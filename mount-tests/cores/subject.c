/* A process whose core is taken: threads at known depths with known registers, and memory of each kind. It prints names
   and addresses in one line, and ends when its input does. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define HEAP (1 << 20)

static atomic_int ready, ended;
static atomic_long counted;

static void check(int is_well, const char *what)
{
    if (!is_well) {
        perror(what);
        _exit(3);
    }
}

/* Goes round with its number in registers, the vector ones too: whoever reads these knows whose they are. */
__attribute__((noinline)) static void spin(long number)
{
    atomic_fetch_add(&ready, 1);
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx")) {
        __asm__ volatile("vmovq %0, %%xmm7\n\t"
                         "vpermilpd $0, %%xmm7, %%xmm7\n\t"
                         "vinsertf128 $1, %%xmm7, %%ymm7, %%ymm7\n\t"
                         "mov %0, %%r12\n\t"
                         "1: pause\n\tjmp 1b" ::"r"(number * 0x0101010101010101)
                         : "xmm7", "r12");
    }
#endif
    while (!atomic_load(&ended))
        __asm__ volatile("" ::"r"(number));
}

__attribute__((noinline)) static void sleep_for_ever(long number)
{
    atomic_fetch_add(&ready, 1);
    while (!atomic_load(&ended))
        pause();
    (void)number;
}

__attribute__((noinline)) static int descend(long number, int depth)
{
    volatile long kept = number * 1000 + depth;
    if (depth > 0)
        return descend(number, depth - 1) + (int)kept;
    if (number % 2)
        spin(number);
    sleep_for_ever(number);
    return (int)kept;
}

static void *descend_in_a_thread(void *number)
{
    descend((long)number, (int)(long)number % 5);
    return NULL;
}

static char *map(const char *name, size_t length, int protection, int flags, int file)
{
    char *start = mmap(NULL, length, protection, flags, file, 0);
    check(start != MAP_FAILED, name);
    printf(" %s=%lx", name, (unsigned long)start);
    return start;
}

static void fill(char *start, size_t length, int seed)
{
    for (size_t i = 0; i < length; i++)
        start[i] = (char)(i * 131 + i / PAGE + seed);
}

static int file_of(const char *directory, const char *name, size_t length)
{
    char path[512], *bytes = malloc(length);
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    check(file >= 0, path);
    fill(bytes, length, 7);
    check(write(file, bytes, length) == (ssize_t)length, path);
    free(bytes);
    return file;
}

/* One mapping for each rule of what is dumped. */
static void map_all(const char *directory)
{
    const int both = PROT_READ | PROT_WRITE;
    fill(map("anonymous", 16 * PAGE, both, MAP_PRIVATE | MAP_ANONYMOUS, -1), 4 * PAGE, 1);
    /* MAP_NORESERVE: else the kernel puts it together with its neighbours. */
    map("untouched", 16 * PAGE, both, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
    char *kept = map("dontdump", 16 * PAGE, both, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    fill(kept, 16 * PAGE, 2);
    check(madvise(kept, 16 * PAGE, MADV_DONTDUMP) == 0, "MADV_DONTDUMP");
    char *hidden = map("noaccess", 16 * PAGE, both, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    fill(hidden, 16 * PAGE, 3);
    check(mprotect(hidden, 16 * PAGE, PROT_NONE) == 0, "mprotect");
    fill(map("shared", 16 * PAGE, both, MAP_SHARED | MAP_ANONYMOUS, -1), 8 * PAGE, 4);
    int memory = memfd_create("subject", 0);
    check(ftruncate(memory, 16 * PAGE) == 0, "ftruncate");
    fill(map("memfd", 16 * PAGE, both, MAP_SHARED, memory), 8 * PAGE, 5);
    int plain = file_of(directory, "plain", 16 * PAGE);
    map("file_shared", 16 * PAGE, both, MAP_SHARED, plain);
    map("file_private", 16 * PAGE, both, MAP_PRIVATE, plain);
    char *written = map("file_written", 16 * PAGE, both, MAP_PRIVATE, plain);
    written[5 * PAGE] = 'w';
    /* The file ends in its second page: what comes later cannot be read by anybody. */
    int brief = file_of(directory, "brief", PAGE + 100);
    char *past = map("past_end", 8 * PAGE, both, MAP_PRIVATE, brief);
    past[5] = 'w';
    char *guarded = map("guarded", 8 * PAGE, both, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    fill(guarded, 8 * PAGE, 6);
    /* MADV_GUARD_INSTALL, Linux 6.13. */
    printf(" has_guard=%x", madvise(guarded + 2 * PAGE, PAGE, 102) == 0);
    char *heap = malloc(HEAP);
    fill(heap, HEAP, 8);
    printf(" heap=%lx", (unsigned long)heap);
}

static void serve(void)
{
    char byte;
    printf("\n");
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        ;
    _exit(0);
}

/* Many mappings: each second page of an area is read-only. */
static void split(long count)
{
    char *start = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(start != MAP_FAILED, "mmap");
    for (long i = 0; i < count; i += 2)
        check(mprotect(start + i * PAGE, PAGE, PROT_READ) == 0, "mprotect (vm.max_map_count)");
    start[PAGE] = 'a';
    start[(count - 1) * PAGE] = 'z';
    printf("start=%lx", (unsigned long)start);
}

static void *come_and_go(void *unused)
{
    (void)unused;
    usleep(2000);
    return NULL;
}

static void *start_again_and_again(void *unused)
{
    pthread_t other;
    (void)unused;
    for (;;)
        if (pthread_create(&other, NULL, come_and_go, NULL) == 0)
            pthread_join(other, NULL);
    return NULL;
}

static void count_signal(int number)
{
    (void)number;
    atomic_fetch_add(&counted, 1);
}

/* Says how many signals have come, whenever it is asked, and goes on. */
static void count_signals(void)
{
    struct sigaction action = {.sa_handler = count_signal, .sa_flags = SA_RESTART};
    check(sigaction(SIGRTMIN, &action, NULL) == 0, "sigaction");
    char byte;
    printf("number=%x\n", SIGRTMIN);
    fflush(stdout);
    while (read(0, &byte, 1) > 0) {
        printf("%ld\n", atomic_load(&counted));
        fflush(stdout);
    }
    _exit(0);
}

/* The child shares the memory, and the parent waits in the kernel until it has ended. */
static void wait_for_a_child(void)
{
    pthread_t other;
    check(pthread_create(&other, NULL, descend_in_a_thread, (void *)2) == 0, "pthread_create");
    printf("parent=%x", getpid());
    fflush(stdout);
    if (vfork() == 0)
        serve();
    _exit(0);
}

static void *serve_in_a_thread(void *unused)
{
    char path[64], state = 0;
    (void)unused;
    /* Until the first one is a zombie. */
    while (state != 'Z') {
        snprintf(path, sizeof path, "/proc/self/task/%d/stat", getpid());
        FILE *stat = fopen(path, "r");
        check(stat && fscanf(stat, "%*d (%*[^)]) %c", &state) == 1, path);
        fclose(stat);
    }
    descend_in_a_thread((void *)0);
    return NULL;
}

static void *wait_for_input(void *unused)
{
    (void)unused;
    serve();
    return NULL;
}

int main(int count, char **words)
{
    const char *state = count > 1 ? words[1] : "";
    const char *directory = count > 2 ? words[2] : "/nonexistent";
    long number = count > 3 ? atol(words[3]) : 0;
    pthread_t other;
    if (!strcmp(state, "signals"))
        count_signals();
    if (!strcmp(state, "vfork"))
        wait_for_a_child();
    if (!strcmp(state, "split"))
        split(number);
    if (!strcmp(state, "memory"))
        map_all(directory);
    if (!strcmp(state, "churn"))
        for (long i = 0; i < number; i++)
            check(pthread_create(&other, NULL, start_again_and_again, NULL) == 0, "pthread_create");
    if (!strcmp(state, "threads") || !strcmp(state, "memory")) {
        for (long i = 1; i <= number; i++)
            check(pthread_create(&other, NULL, descend_in_a_thread, (void *)i) == 0, "pthread_create");
        while (atomic_load(&ready) < number)
            usleep(100);
        /* They have said so just before they take their registers. */
        usleep(10000);
    }
    if (!strcmp(state, "sleepers")) {
        for (long i = 1; i <= number; i++)
            check(pthread_create(&other, NULL, descend_in_a_thread, (void *)(2 * i)) == 0, "pthread_create");
        while (atomic_load(&ready) < number)
            usleep(100);
    }
    if (!strcmp(state, "first-ends")) {
        check(pthread_create(&other, NULL, serve_in_a_thread, NULL) == 0, "pthread_create");
        check(pthread_create(&other, NULL, wait_for_input, NULL) == 0, "pthread_create");
        pthread_exit(NULL);
    }
    serve();
}
