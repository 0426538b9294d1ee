/* A client of a mount that goes by the C library alone; also built for 32 bits without large-file
 * support, where numbers of inodes, positions and sizes must fit into 32 bits.
 *
 *   client walk DIR       reads names, attributes and first bytes of all that is in DIR
 *   client positions DIR  goes back to each position of a walk while the directory changes
 *   client rewind DIR     names DIR's entries, again for each line of its input
 *   client handle DIR PATH opens PATH by its handle, again for each line of its input
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char line[4096];

static int next_line(void)
{
    fflush(stdout);
    return fgets(line, sizeof(line), stdin) != NULL;
}

static DIR *open_or_exit(const char *path)
{
    DIR *dir = opendir(path);
    if (dir == NULL) {
        printf("opendir %s: %s\n", path, strerror(errno));
        exit(1);
    }
    return dir;
}

/* The next entry; an error is said, and is no end. */
static struct dirent *next(DIR *dir)
{
    errno = 0;
    struct dirent *entry = readdir(dir);
    if (entry == NULL && errno != 0) {
        printf("readdir: %s\n", strerror(errno));
        exit(1);
    }
    return entry;
}

static void look_at(const char *dir, const char *name)
{
    char path[4096];
    struct stat status;
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    if (lstat(path, &status) != 0) {
        printf("lstat %s: %s\n", name, strerror(errno));
        return;
    }
    if (!S_ISREG(status.st_mode) || status.st_size == 0)
        return;
    int file = open(path, O_RDONLY);
    if (file < 0) {
        printf("open %s: %s\n", name, strerror(errno));
        return;
    }
    if (read(file, path, 1) != 1)
        printf("read %s: %s\n", name, strerror(errno));
    close(file);
}

static int walk(const char *path)
{
    DIR *dir = open_or_exit(path);
    struct dirent *entry;
    int count = 0;
    while ((entry = next(dir)) != NULL) {
        look_at(path, entry->d_name);
        count++;
    }
    printf("entries %d\n", count);
    return 0;
}

static int positions(const char *path)
{
    enum { MOST = 100000 };
    static long places[MOST + 1];
    static char *names[MOST];
    DIR *dir = open_or_exit(path);
    int count = 0;
    struct dirent *entry;
    places[0] = telldir(dir);
    while (count < MOST && (entry = next(dir)) != NULL) {
        names[count++] = strdup(entry->d_name);
        places[count] = telldir(dir);
    }
    printf("entries %d\n", count);
    if (!next_line())
        return 1;
    /* Position 0 begins a new walk: the others stay what they were. */
    for (int i = count - 1; i > 0; i--) {
        seekdir(dir, places[i]);
        entry = next(dir);
        if (entry == NULL || strcmp(entry->d_name, names[i]) != 0) {
            printf("at %d: %s, not %s\n", i, entry ? entry->d_name : "the end", names[i]);
            return 1;
        }
    }
    seekdir(dir, places[count]);
    if (next(dir) != NULL) {
        printf("something past the end\n");
        return 1;
    }
    printf("same\n");
    return 0;
}

static int again(const char *path)
{
    DIR *dir = open_or_exit(path);
    do {
        struct dirent *entry;
        while ((entry = next(dir)) != NULL)
            printf("%s ", entry->d_name);
        printf("\n");
        rewinddir(dir);
    } while (next_line());
    return 0;
}

static int handle(const char *mount, const char *path)
{
    struct {
        struct file_handle head;
        unsigned char rest[MAX_HANDLE_SZ];
    } it = {.head = {.handle_bytes = MAX_HANDLE_SZ}};
    int id, root = open(mount, O_RDONLY | O_DIRECTORY);
    if (root < 0 || name_to_handle_at(AT_FDCWD, path, &it.head, &id, 0) != 0) {
        printf("name_to_handle_at: %s\n", strerror(errno));
        return 1;
    }
    do {
        int file = open_by_handle_at(root, &it.head, O_RDONLY);
        unsigned char byte;
        if (file < 0)
            printf("open_by_handle_at: %s\n", strerror(errno));
        else if (read(file, &byte, 1) != 1)
            printf("read: %s\n", strerror(errno));
        else
            printf("byte %d\n", byte);
        if (file >= 0)
            close(file);
    } while (next_line());
    return 0;
}

int main(int count, char **words)
{
    if (count == 3 && strcmp(words[1], "walk") == 0)
        return walk(words[2]);
    if (count == 3 && strcmp(words[1], "positions") == 0)
        return positions(words[2]);
    if (count == 3 && strcmp(words[1], "rewind") == 0)
        return again(words[2]);
    if (count == 4 && strcmp(words[1], "handle") == 0)
        return handle(words[2], words[3]);
    return 2;
}
