#include "assert.h"

#include <execinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void
tl_assert_failed (const char *expression, const char *file, int line, const char *function)
{
    fprintf (stderr, "trunkline: bug: %s is false at %s:%d in %s\n", expression, file, line,
             function);
    void *frames[64];
    backtrace_symbols_fd (frames, backtrace (frames, 64), STDERR_FILENO);
    abort ();
}
