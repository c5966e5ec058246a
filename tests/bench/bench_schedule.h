/*  bench_schedule: what the groups of `scripts/bench schedule` share. Each group measures one thing, puts its figures into
    result and what they are made of into detail.                                                   */

#ifndef BENCH_SCHEDULE_H
#define BENCH_SCHEDULE_H

#include "bench/bench_play.h"

#include <jansson.h>

typedef struct {
    stage_dir_t stage;
    const char *stages; //  the program bench_stages
    const char *peers;  //  the peers' folder, with build/zmq_curve and naive_split.py, or NULL
    bool quick;         //  shorter runs: for a look, not for figures
    size_t clients;     //  of the load; 0: 1000
    json_t *result, *detail, *skipped;
} bench_t;

void bench_put (bench_t *self, const char *key, double value);
void bench_skip (bench_t *self, const char *key, const char *why);
//  Plays it; label tokens a second from that round on (0 if the run failed), noted in detail under the mode's name.
double bench_rate (bench_t *self, const play_t *spec, uint64_t first, json_t *detail);
//  The path of a file of 256 texts of 64 words, to be freed.
char *bench_words (const bench_t *self);

//  Synthetic cost, 8 workers and 8 clients: serial, batch and fanout.
void bench_schedule_modes (bench_t *self);
//  auto against the best pinned mode, in many settings.
void bench_schedule_auto (bench_t *self);
//  The same with tiny-glm, 1 and 2 workers, 1 to 8 clients.
void bench_schedule_tiny (bench_t *self);
//  Many clients on one broker.
void bench_schedule_load (bench_t *self);
//  Each client behind a link of its own: tiny-glm, batch with overlap against serial and against the bound.
void bench_schedule_links (bench_t *self);
//  The real engine at equal threads, and on two machines of one thread.
void bench_schedule_engine (bench_t *self);
//  Four clients in batch against the peers' split over plain TCP.
void bench_schedule_naive (bench_t *self);
//  `trunkline simulate`: how long, and how far from what is measured.
void bench_schedule_simulate (bench_t *self);

#endif
