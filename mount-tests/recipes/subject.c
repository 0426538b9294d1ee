// A program for docs/RECIPES.md, with a counter, a text, records, a mailbox, and a table with a checksum. It says at which
// address each of them is, obeys one word a line, and ends when its input does.
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

struct record {
    int32_t id;
    float x, y;
    char name[20];
};

struct state {
    uint64_t counter;
    char text[32];
    struct record records[4];
    uint64_t question, answer;
    char mail[64];
    uint64_t sum;
    uint8_t table[256];
};

static struct state *state;

enum { LARGE = 32 << 20 };

static uint64_t sum_of_table(void) {
    uint64_t sum = 0;
    for (int i = 0; i < 256; i++)
        sum = sum * 31 + ((volatile uint8_t *)state->table)[i];
    return sum;
}

// Answers what others write into its memory: the text in capital letters.
static void *serve(void *unused) {
    volatile uint64_t *question = &state->question;
    for (;;) {
        if (*question != state->answer) {
            for (char *c = state->mail; *c; c++)
                if (*c >= 'a' && *c <= 'z')
                    *c -= 'a' - 'A';
            __atomic_store_n(&state->answer, *question, __ATOMIC_RELEASE);
        }
        nanosleep(&(struct timespec){0, 1000000}, 0);
    }
    return unused;
}

// A TiB that nobody has touched, but for a text in the middle.
static void *reserve(void) {
    size_t length = 1UL << 40;
    char *start = mmap(0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start != MAP_FAILED)
        strcpy(start + length / 2, state->text);
    return start;
}

int main(int count, char **words) {
    prctl(PR_SET_PDEATHSIG, 9);
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    state = calloc(1, sizeof *state);
    // In two parts: the text lies nowhere but in the heap.
    snprintf(state->text, sizeof state->text, "token=%s%s", "sword", "fish");
    for (int i = 0; i < 4; i++) {
        state->records[i] = (struct record){i + 1, i + 0.5f, -i - 1, ""};
        snprintf(state->records[i].name, sizeof state->records[i].name, "point %d", i + 1);
    }
    for (int i = 0; i < 256; i++)
        state->table[i] = i * 7;
    state->sum = sum_of_table();
    pthread_t thread;
    if (count > 1 && !strcmp(words[1], "serve"))
        pthread_create(&thread, 0, serve, 0);
    printf("counter=%p text=%p records=%p question=%p mail=%p table=%p\n", (void *)&state->counter, state->text,
           (void *)state->records, (void *)&state->question, state->mail, state->table);
    fflush(stdout);
    char line[64];
    while (scanf("%63s", line) == 1) {
        if (!strcmp(line, "tick"))
            printf("%lu\n", ++*(volatile uint64_t *)&state->counter);
        else if (!strcmp(line, "say"))
            printf("%s\n", state->text);
        else if (!strcmp(line, "mail"))
            printf("%s\n", state->mail);
        else if (!strcmp(line, "grow"))
            printf("%p\n", memset(aligned_alloc(4096, LARGE), 1, LARGE));
        else if (!strcmp(line, "reserve"))
            printf("%p\n", reserve());
        else if (!strcmp(line, "check"))
            printf("%s\n", sum_of_table() == state->sum ? "the checksum is right" : "the checksum is WRONG");
        else
            printf("no such word: %s\n", line);
        fflush(stdout);
    }
}
