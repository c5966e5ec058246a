/*  bench_run: a program of ours run as a child, each line of its output with the time it came, and what
    others took of the machine meanwhile.                                                           */

#ifndef BENCH_RUN_H
#define BENCH_RUN_H

#include <stddef.h>

typedef void bench_line_fn (void *arg, const char *line, double at);

typedef struct {
    double wall;    //  seconds from start to end
    double foreign; //  cores that neither the child nor anything it started used, nor were idle
} bench_usage_t;

//  Runs argv (NULL-terminated, argv [0] a path), its stderr appended to the file log. on_line gets every
//  line of stdout and the seconds since the start. Returns its exit code, or -1 with a sentence on
//  stderr when it can't be started or says nothing for five minutes.
int bench_run (const char *const *argv, const char *log, bench_line_fn *on_line, void *arg,
               bench_usage_t *usage);

//  Stays on the first so many processors this process may use. Returns how many there are.
int bench_pin (int threads);

//  A sorts values; the value below which that share of them lies, between neighbours if need be.
double bench_quantile (double *values, size_t count, double share);

//  Three tcp ports nobody listens on.
void bench_ports (int ports[3]);

#endif
