/*  topology: one YAML file that says what the model is, who takes part and how they train; for one
    machine and for many.

    Reading checks everything that can be checked without opening other files: unknown keys (the nearest
    known one is named), types, ranges, addresses, contradictions; every complaint carries
    file:line:column. --set a.b=c is applied before the check and complains as "--set a.b".
    Relative paths in the file are relative to the directory the program was started in.            */

#ifndef TL_TOPOLOGY_H
#define TL_TOPOLOGY_H

#include "error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { TL_MODE_SERIAL, TL_MODE_BATCH, TL_MODE_FANOUT, TL_MODE_AUTO } tl_mode_t;
typedef enum { TL_WIRE_F32, TL_WIRE_BF16, TL_WIRE_F16 } tl_wire_dtype_t;
typedef enum { TL_MODEL_STORED, TL_MODEL_F32, TL_MODEL_BF16 } tl_model_dtype_t;
typedef enum { TL_METHOD_LORA, TL_METHOD_FULL, TL_METHOD_PTUNING } tl_tune_method_t;
typedef enum { TL_RATE_LINEAR, TL_RATE_CONSTANT, TL_RATE_COSINE } tl_rate_t;
typedef enum { TL_CLIENTS_PERSONAL, TL_CLIENTS_AVERAGE, TL_CLIENTS_SYNC } tl_federation_t;
typedef enum { TL_SERVER_NONE, TL_SERVER_AVGM, TL_SERVER_ADAM } tl_server_optimizer_t;
enum { TL_PART_FRONT = 1, TL_PART_TRUNK = 2, TL_PART_TAIL = 4, TL_PART_ALL = 7 };
enum { TL_TOPOLOGY_TARGETS = 8, TL_TOPOLOGY_FREEZE = 16 };

//  A part that computes nothing: its answers have the right shape and come after a time.
typedef struct {
    bool is;             //  else the part computes
    double base_ms;      //  of every forward, backward, front, tail or back
    double us_per_row;   //  added for each of its rows
    size_t rows;         //  a client's: of each of its micros
    uint64_t changes_at; //  round from which on everything takes changes_by times as long; 0: none
    double changes_by;
} tl_synthetic_t;

typedef struct {
    char *name;  //  unique among all peers; letters, digits, - and _
    char *host;  //  "localhost" is started by up; others are only expected
    int threads; //  threads
    tl_synthetic_t synthetic;
    size_t count; //  how many the file's entry stands for
    size_t entry; //  which of the file's list it is
} tl_worker_spec_t;

typedef struct {
    char *name, *host;
    int threads;
    char *data;     //  training JSONL; NULL when it is synthetic
    char *eval;     //  held-out JSONL or NULL
    uint64_t steps; //  rounds that it takes part in; 0: all of train.steps
    tl_synthetic_t synthetic;
    size_t count, entry; //  as a worker's
} tl_client_spec_t;

//  What the aggregator makes of the change since the last aggregation (FedAvgM, FedAdam).
typedef struct {
    tl_server_optimizer_t optimizer; //  none: the mean is the result
    double lr;                       //  0 in the file: 1 with avgm, 0.01 with adam
    double momentum, beta2, eps;     //  of the change, of its square (adam), against division by 0
} tl_server_spec_t;

typedef struct {
    char *source; //  the file's path, for messages
    char *name;   //  of the run; runs are saved under checkpoint.dir/name
    struct {
        char *path;             //  model.path; NULL when it is synthetic
        tl_model_dtype_t dtype; //  of frozen weights in memory
        bool synthetic;         //  there is no model, and all parts are synthetic
        size_t hidden;          //  of a synthetic one: columns of its rows
    } model;
    struct {
        bool none;          //  the client keeps all of it; front and tail mean nothing then
        size_t front, tail; //  split.front, split.tail: blocks kept by the client
    } split;
    struct {
        tl_tune_method_t method;
        size_t rank;
        size_t prefix; //  P-tuning: rows
        double alpha, dropout;
        bool rslora; //  scaling alpha / sqrt (rank)
        char *targets[TL_TOPOLOGY_TARGETS];
        size_t target_count; //  0: the family's default
        char *freeze[TL_TOPOLOGY_FREEZE];
        size_t freeze_count; //  patterns of what stays frozen
        unsigned parts;      //  which parts train: TL_PART_FRONT | ...
    } tune;
    struct {
        uint64_t steps;
        size_t batch_size, micros, max_length;
        double lr, lr_min, clip, weight_decay, beta1, beta2, eps;
        uint64_t warmup;
        tl_rate_t schedule; //  of the learning rate after the warm-up
        uint64_t seed;
        size_t memory; //  bytes that one process may plan; 0: as it comes
    } train;
    struct {
        tl_mode_t mode;
        size_t start;      //  clients that the first step waits for; 0: all
        bool window;       //  join: window: a step begins with who is ready; else it holds all
        int64_t window_ms; //  and waits for others no longer than that
        double hysteresis; //  auto: a change must promise that much more, 0.03 = 3 %
    } schedule;
    struct {
        tl_federation_t clients; //  front and tail: each its own, one mean, or one gradient
        uint64_t every;          //  rounds of a period, which ends with aggregation
        size_t quorum;           //  parts that an aggregation needs at least
        double deadline;         //  seconds after which it goes on without the others; 0: none
        double proximal;         //  FedProx's mu; 0: none
        tl_server_spec_t server;
    } federate;
    struct {
        bool allow_unsafe_split; //  split.front or split.tail may be 0
    } privacy;
    struct {
        tl_wire_dtype_t dtype;
        size_t max_message; //  bytes: upper bound of one tensor
        size_t credit;      //  bytes a receiver grants each peer; 0: computed from the plan
    } wire;
    struct {
        char *dir;
        uint64_t every;
        size_t keep;
    } checkpoint;
    struct {
        int64_t ping_ms;   //  quiet for so long: PING
        int64_t expire_ms; //  silent for so long: expired
    } liveness;
    char *keys; //  directory of key files
    struct {
        char *host, *control, *clients, *workers; //  tcp://ADDRESS:PORT
        int threads;                              //  ZeroMQ I/O threads
    } broker;
    struct {
        char *host;
    } aggregator;
    tl_worker_spec_t *workers;
    size_t worker_count;
    tl_client_spec_t *clients;
    size_t client_count;
    struct tl_topology_names *names; //  where each peer's name is found
} tl_topology_t;

//  Reads and checks path with count overrides "a.b=c" ("clients.0.data=x" reaches into lists). NULL on
//  failure; err then has code TL_BAD_INPUT.
tl_topology_t *tl_topology_read (const char *path, const char *const *overrides, size_t count,
                                 tl_error_t *err);
void tl_topology_destroy (tl_topology_t **self_p);

//  True if the settings can need an aggregator: `up` starts one, and a broker waits for it.
bool tl_topology_aggregates (const tl_topology_t *self);
bool tl_topology_fans_out (const tl_topology_t *self); //  workers can hold replicas of one trunk
//  After so many the run is over: train.steps, or fewer where clients[].steps leaves nobody for the rest.
uint64_t tl_topology_rounds (const tl_topology_t *self);
const char *tl_mode_name (tl_mode_t mode); //  as in the file

//  Index by name, or -1.
int tl_topology_client (const tl_topology_t *self, const char *name);
int tl_topology_worker (const tl_topology_t *self, const char *name);

#endif
