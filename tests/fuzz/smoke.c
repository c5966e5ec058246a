/*  smoke: puts a fuzz target through its seeds in the ordinary test build: each file of a directory as it
    is, cut at every length, and with every bit of every byte flipped. The target passes by returning;
    the sanitizers' build says when it read where it shouldn't. Input lies in a block of exactly its
    size, so that one byte too far is seen.                                                         */

#include "file.h"
#include "memory.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

enum { MAX_SEED = 1 << 16 };

static void
s_try (const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc (size ? size : 1);
    memcpy (exact, data, size);
    LLVMFuzzerTestOneInput (exact, size);
    free (exact);
}

static size_t
s_seed (const char *path)
{
    tl_error_t err;
    size_t size = 0;
    uint8_t *data = (uint8_t *)tl_file_read (path, MAX_SEED, &size, &err);
    if (!data) {
        fprintf (stderr, "%s\n", err.text);
        exit (1);
    }
    for (size_t cut = 0; cut <= size; cut++)
        s_try (data, cut);
    for (size_t i = 0; i < size; i++)
        for (int bit = 0; bit < 8; bit++) {
            data[i] ^= (uint8_t)(1 << bit);
            s_try (data, size);
            data[i] ^= (uint8_t)(1 << bit);
        }
    free (data);
    return size + 1 + 8 * size;
}

int
main (int argc, char **argv)
{
    size_t seeds = 0, inputs = 0;
    DIR *directory = argc == 2 ? opendir (argv[1]) : NULL;
    if (!directory) {
        fprintf (stderr, "usage: %s DIRECTORY-OF-SEEDS, which must exist\n", argv[0]);
        return 1;
    }
    for (struct dirent *entry = readdir (directory); entry; entry = readdir (directory)) {
        if (entry->d_name[0] == '.')
            continue;
        char *path = tl_format ("%s/%s", argv[1], entry->d_name);
        inputs += s_seed (path);
        seeds++;
        free (path);
    }
    closedir (directory);
    printf ("%zu seeds, %zu inputs\n", seeds, inputs);
    return seeds ? 0 : 1;
}
