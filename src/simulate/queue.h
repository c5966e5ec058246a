//  queue: what is to happen, in order of time; at the same time, in the order it was put in.

#ifndef TL_SIM_QUEUE_H
#define TL_SIM_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int64_t at;     //  ns
    uint64_t order; //  set by the queue
    uint32_t who;   //  index of a worker or client
    uint32_t micro; //  or another small number
    uint32_t epoch; //  of whoever it is about: an event of a former life is dropped
    uint8_t kind;   //  the simulation's
    uint8_t stage;  //  the simulation's
} tl_sim_event_t;

typedef struct {
    tl_sim_event_t *heap; //  [room]
    size_t count, room;
    uint64_t order;
} tl_sim_queue_t;

void tl_sim_queue_put (tl_sim_queue_t *self, tl_sim_event_t event);
bool tl_sim_queue_take (tl_sim_queue_t *self, tl_sim_event_t *event); //  false: empty
void tl_sim_queue_release (tl_sim_queue_t *self);

#endif
