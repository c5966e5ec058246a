/*  footprint: memory planned before the first step, and what it came to: the peak less what the process
    had before the model opened.                                                                    */

#ifndef TL_FOOTPRINT_H
#define TL_FOOTPRINT_H

#include "model/model.h"

typedef struct {
    size_t before;  //  bytes resident when it began
    size_t planned; //  bytes
} tl_footprint_t;

void tl_footprint_begin (tl_footprint_t *self);
//  Logs the plan with messages, bytes in buffers of messages, and tells it as event "plan".
void tl_footprint_plan (tl_footprint_t *self, const tl_plan_t *plan, size_t messages);
//  Logs and tells (event "memory") what it came to.
void tl_footprint_end (const tl_footprint_t *self);

#endif
