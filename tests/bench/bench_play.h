/*  bench_play: one run of a topology made for it, over real processes and sockets: broker, workers, aggregator, clients,
    and links of a delay and a rate where they are wanted. Gives back when which step was closed.    */

#ifndef BENCH_PLAY_H
#define BENCH_PLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

//  Where runs happen.
typedef struct {
    const char *trunkline, *ping; //  programs
    const char *dir;              //  of their files, made
    char *log;                    //  what they say on stderr
    double patience;              //  seconds without a word that are too many
} stage_dir_t;

//  What is played. Zero means the usual where that makes sense.
typedef struct {
    const char *name, *mode; //  letters and digits; schedule.mode
    size_t workers, clients;
    uint64_t rounds, every; //  train.steps; federate.every, 0: none
    size_t micros, rows;    //  of a step; of a micro
    //  Synthetic (model NULL):
    size_t hidden;
    double base_ms, us_per_row; //  a worker's
    double last_is;             //  the last worker takes so many times as long; 0: as the others
    uint64_t changes_at; //  round from which on the last worker takes changes_by times as long
    double changes_by;
    double think_ms; //  of a client, for each of its three parts of a micro
    size_t loads;    //  processes of clients
    //  Real:
    const char *model, *data; //  directory, text of every client
    size_t sequences;         //  of rows rows in all its micros
    const char *split;        //  "{front: 1, tail: 1}"
    int threads;              //  of each part, 0: 1
    //  Both:
    const char *settings;                           //  further lines of YAML
    const char *wire;                               //  dtype, NULL: bf16
    double rtt_ms, mbit_s;                          //  of each client's own link, 0: none
    bool ping;                                      //  ask the broker all the while how it is
    unsigned broker_cpus, worker_cpus, client_cpus; //  masks, 0: any
} play_t;

typedef struct {
    double at;       //  s
    uint64_t round;  //  it was of
    uint64_t labels; //  of its members
} closed_t;

typedef struct {
    bool good;        //  it ended well
    closed_t *closed; //  [count] in the order they came
    size_t count;
    uint64_t client_steps, least_steps, most_steps; //  by clients in loads
    double ping_p50_ms, ping_p99_ms;
    size_t pings;
    double broker_mb, broker_cpu_s; //  peak memory
    char *decisions;                //  what the broker said of them, a line each; may be ""
} played_t;

//  Its topology in a file; the caller frees the path.
char *play_topology (const stage_dir_t *stage, const play_t *spec, const int ports[3]);

void play (const stage_dir_t *stage, const play_t *spec, played_t *result);
void played_clear (played_t *result);

//  Label tokens a second of the steps of rounds from first on (counted from the last one before): 0 if there are too few.
double played_rate (const played_t *result, uint64_t first);
//  Seconds a round of the same.
double played_round (const played_t *result, uint64_t first);

#endif
