#include "memory.h"

#include <limits.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn static void
s_out_of_memory (size_t size)
{
    fprintf (stderr,
             "trunkline: out of memory: %zu bytes were refused by the system; use a smaller model, "
             "batch_size or max_length, or a machine with more memory\n",
             size);
    exit (1);
}

void *
tl_alloc (size_t size)
{
    void *memory = calloc (1, size ? size : 1);
    if (!memory)
        s_out_of_memory (size);
    return memory;
}

void *
tl_alloc_aligned (size_t size)
{
    void *memory = NULL;
    if (posix_memalign (&memory, 64, size ? size : 1) != 0)
        s_out_of_memory (size);
    return memory;
}

void
tl_memory_keep (void)
{
    enum { OWN_MAPPING = 4 << 20 }; //  larger ones leave no holes in the heap
    mallopt (M_MMAP_THRESHOLD, OWN_MAPPING);
    mallopt (M_TRIM_THRESHOLD, INT_MAX);
}

char *
tl_strdup (const char *text)
{
    char *copy = strdup (text);
    if (!copy)
        s_out_of_memory (strlen (text) + 1);
    return copy;
}

char *
tl_format (const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start (args, format);
    int length = vasprintf (&text, format, args);
    va_end (args);
    if (length < 0)
        s_out_of_memory (strlen (format));
    return text;
}
