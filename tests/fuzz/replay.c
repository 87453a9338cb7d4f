/*
 * Runs a fuzz target on the files of a corpus, without libFuzzer, so that every compiler and every
 * plain test run checks what fuzzing has found once. Says on which file it is, for the case that it
 * is the last one.
 */
#include "fuzz.h"

#include <dirent.h>
#include <sys/stat.h>

#define MAX_FILE_BYTES (4 * 1024 * 1024)

static size_t replayed;

static void replay_file(const char *path);
static void replay_folder(const char *path);
static int is_visible(const struct dirent *entry);

int main(int argc, char **argv)
{
    struct stat info;

    for (int i = 1; i < argc; i++) {
        if (stat(argv[i], &info) != 0) {
            perror(argv[i]);
            return 2;
        }
        if (S_ISDIR(info.st_mode))
            replay_folder(argv[i]);
        else
            replay_file(argv[i]);
    }
    if (replayed == 0) {
        fprintf(stderr, "usage: %s FILE_OR_FOLDER…; there was no file in what was given\n",
                argv[0]);
        return 2;
    }
    printf("%zu inputs replayed\n", replayed);
    return 0;
}

static void replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    char *bytes = malloc(MAX_FILE_BYTES);

    fuzz_require(file && bytes);
    printf("%s\n", path);
    fflush(stdout);
    const size_t size = fread(bytes, 1, MAX_FILE_BYTES, file);
    fclose(file);

    char *exact = fuzz_copy(bytes, size);
    free(bytes);
    (void)LLVMFuzzerTestOneInput((const uint8_t *)exact, size);
    free(exact);
    replayed++;
}

static void replay_folder(const char *folder)
{
    struct dirent **entries = NULL;
    const int count = scandir(folder, &entries, is_visible, alphasort);
    char path[4096];

    fuzz_require(count >= 0);
    for (int i = 0; i < count; i++) {
        const int len = snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name);
        fuzz_require(len > 0 && (size_t)len < sizeof(path));
        replay_file(path);
        free(entries[i]);
    }
    free(entries);
}

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}
