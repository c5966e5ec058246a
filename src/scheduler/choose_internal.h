//  choose_internal: the chooser's fields, for choose.c (decides) and choose_state.c (to text and back).

#ifndef TL_CHOOSE_INTERNAL_H
#define TL_CHOOSE_INTERNAL_H

#include "choose.h"

enum { RUNNING = 2 }; //  decisions in a row at which a change must pay

//  What is still to be learnt before a choice means something.
typedef enum {
    STAGE_NEW,    //  nothing
    STAGE_WIDE,   //  the period with as many groups as possible is under way
    STAGE_SINGLE, //  the one with a single group is
    STAGE_CHOSEN
} tl_stage_t;

struct tl_choose {
    tl_choose_config_t config;
    tl_costs_t *costs;
    tl_stage_t stage;
    int wins;           //  decisions in a row at which another arrangement was better by the margin
    size_t groups;      //  of the period under way; 0: none yet
    tl_inside_t inside; //
    size_t *worker;     //  [most_groups] index of each group's worker
    size_t *group;      //  [config.clients]
    bool *used;         //  [config.workers] serves a group
    //  Who was here at the last decision.
    size_t *clients, *workers; //  [config.clients], [config.workers]
    size_t client_count, worker_count;
    size_t holder;
    uint64_t rounds;
    double begun_us; //  a round of the period under way, as predicted when it began; 0: unknown
    //  Measured over predicted speed of each number of groups, one by one and batched; 0: never measured.
    double *corrections[2]; //  [most_groups + 1]
    size_t most_groups;
    tl_decision_t decision;
};

#endif
