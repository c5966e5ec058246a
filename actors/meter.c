#include "meter.h"

#include "memory.h"

#include <stdlib.h>
#include <string.h>

//  A micro of a worker's open step.
typedef struct {
    uint64_t rows;          //  of its members so far
    int64_t arrived;        //  last byte of the rows of the member that came last
    bool forward, backward; //  their time is noted
} tl_portion_t;

typedef struct {
    tl_portion_t *portions; //  [micros]
    uint64_t rows;          //  of the open step, all micros
    size_t members;         //  of it
    size_t group;           //  it is of
    int64_t planned;        //  when it began
    uint64_t computed;      //  us, of all steps
    tl_waited_t waited;     //  as it said last
} tl_lane_t;

//  A client in its open step.
typedef struct {
    int64_t planned; //  PLAN went out; 0: noted
    int64_t handed;  //  HIDDEN of the last micro was handed on
    int64_t first;   //  its first GRADIENT was complete
    int64_t ended;   //  GRAD_IN of the last micro was handed on
    uint64_t rows;   //  of its last micro
} tl_pace_t;

struct tl_meter {
    tl_choose_t *choose;
    tl_costs_t *costs;
    size_t micros;
    tl_lane_t *lanes; //  [workers]
    size_t lane_count;
    tl_pace_t *paces; //  [clients]
    uint64_t rows;    //  committed in this period
    int64_t began;    //  its first PLAN; 0: none yet
    int64_t line;     //  when the last line was reached; 0: what came of it is noted
    size_t parts;     //  merged there
};

tl_meter_t *
tl_meter_new (tl_choose_t *choose, size_t workers, size_t clients, size_t micros)
{
    tl_meter_t *self = tl_alloc (sizeof *self);
    self->choose = choose;
    self->costs = tl_choose_costs (choose);
    self->micros = micros;
    self->lanes = tl_alloc (workers * sizeof *self->lanes);
    self->lane_count = workers;
    self->paces = tl_alloc (clients * sizeof *self->paces);
    for (size_t i = 0; i < workers; i++)
        self->lanes[i].portions = tl_alloc (micros * sizeof *self->lanes[i].portions);
    return self;
}

void
tl_meter_destroy (tl_meter_t **self_p)
{
    tl_meter_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->lane_count; i++)
        free (self->lanes[i].portions);
    free (self->lanes);
    free (self->paces);
    free (self);
    *self_p = NULL;
}

void
tl_meter_plan (tl_meter_t *self, const tl_step_t *step, size_t members, int64_t now)
{
    tl_lane_t *lane = &self->lanes[step->worker];
    memset (lane->portions, 0, self->micros * sizeof *lane->portions);
    lane->rows = 0;
    lane->members = members;
    lane->group = step->group;
    lane->planned = now;
    if (!self->began)
        self->began = now;
    if (self->line && self->parts)
        tl_costs_note (self->costs, TL_COST_MERGE, self->parts, 0, now - self->line);
    self->line = 0;
    self->parts = 0;
}

static bool
s_whole (const tl_tensor_wire_t *tensor)
{
    return tensor->offset + tensor->size == tensor->bytes;
}

void
tl_meter_called (tl_meter_t *self, size_t client, int64_t now)
{
    self->paces[client] = (tl_pace_t){.planned = now};
}

void
tl_meter_kept (tl_meter_t *self, size_t client, const tl_message_t *message, int64_t now)
{
    tl_pace_t *pace = &self->paces[client];
    const tl_tensor_wire_t *tensor = tl_message_tensor (message);
    if (!s_whole (tensor))
        return;
    if (message->micro == 0 && pace->planned)
        tl_costs_note (self->costs, TL_COST_FRONT, client, tensor->rows, now - pace->planned);
    pace->planned = 0;
}

void
tl_meter_from_client (tl_meter_t *self, size_t worker, size_t client, const tl_message_t *message,
                      int64_t now)
{
    tl_lane_t *lane = &self->lanes[worker];
    tl_pace_t *pace = &self->paces[client];
    bool last = message->micro == self->micros - 1;
    const tl_tensor_wire_t *tensor = tl_message_tensor (message);
    if (message->micro >= self->micros || (tensor && !s_whole (tensor)))
        return;
    if (message->type == TL_ACTIVATION) {
        lane->portions[message->micro].rows += tensor->rows;
        lane->portions[message->micro].arrived = now;
        lane->rows += tensor->rows;
        tl_meter_kept (self, client, message, now);
    } else if (message->type == TL_GRADIENT) {
        pace->rows = tensor->rows;
        if (last && pace->handed)
            tl_costs_note (self->costs, TL_COST_TAIL, client, tensor->rows, now - pace->handed);
        if (message->micro == 0)
            pace->first = now;
        else if (last && pace->first)
            tl_costs_note_pace (self->costs, client, tensor->rows,
                                (now - pace->first) / (int64_t)(self->micros - 1),
                                lane->members == 1);
    } else if (message->type == TL_COMMIT && pace->ended) {
        tl_costs_note (self->costs, TL_COST_END, client, pace->rows, now - pace->ended);
        pace->ended = 0;
    }
}

//  Said with each chunk to each member; it is one job's time.
static void
s_note_job (tl_meter_t *self, size_t worker, bool *noted, tl_cost_t what, uint64_t rows,
            uint64_t us)
{
    enum { A_DAY = 86400 };
    if (*noted || us > (uint64_t)A_DAY * 1000000)
        return;
    *noted = true;
    self->lanes[worker].computed += us;
    tl_costs_note (self->costs, what, worker, rows, (int64_t)us);
}

void
tl_meter_from_worker (tl_meter_t *self, size_t worker, size_t client, const tl_message_t *message,
                      int64_t now)
{
    if (message->micro >= self->micros)
        return;
    tl_portion_t *portion = &self->lanes[worker].portions[message->micro];
    tl_pace_t *pace = &self->paces[client];
    bool last = message->micro == self->micros - 1;
    if (message->type == TL_HIDDEN) {
        //  Before the first micro the worker had nothing to do.
        bool whole = s_whole (&message->body.hidden.tensor);
        uint64_t us = message->body.hidden.compute_us;
        if (message->micro == 0 && whole && !portion->forward)
            tl_costs_note (self->costs, TL_COST_TRIP, worker, portion->rows,
                           now - portion->arrived - (int64_t)us);
        if (whole)
            s_note_job (self, worker, &portion->forward, TL_COST_FORWARD, portion->rows, us);
        if (last && whole)
            pace->handed = now;
    } else if (message->type == TL_GRAD_IN && s_whole (&message->body.grad_in.tensor)) {
        s_note_job (self, worker, &portion->backward, TL_COST_BACKWARD, portion->rows,
                    message->body.grad_in.compute_us);
        if (last)
            pace->ended = now;
    }
}

tl_lap_t
tl_meter_closed (tl_meter_t *self, size_t worker, const struct tl_body_committed *committed,
                 int64_t now)
{
    tl_lane_t *lane = &self->lanes[worker];
    bool noted = !committed->labels;
    s_note_job (self, worker, &noted, TL_COST_UPDATE, lane->rows, committed->compute_us);
    self->rows += committed->labels ? lane->rows : 0;
    lane->waited = (tl_waited_t){committed->waited_input_us, committed->waited_commit_us,
                                 committed->waited_credit_us};
    return (tl_lap_t){.rows = lane->rows,
                      .members = lane->members,
                      .group = lane->group,
                      .us = now - lane->planned};
}

void
tl_meter_line (tl_meter_t *self, bool undisturbed, int64_t now)
{
    if (undisturbed && self->began && self->rows)
        tl_choose_measured (self->choose, self->rows, now - self->began);
    self->line = now;
    self->began = 0;
    self->rows = 0;
}

void
tl_meter_merge (tl_meter_t *self, size_t parts)
{
    if (parts > self->parts)
        self->parts = parts;
}

tl_waited_t
tl_meter_waited (const tl_meter_t *self, size_t worker)
{
    return self->lanes[worker].waited;
}

uint64_t
tl_meter_computed (const tl_meter_t *self, size_t worker)
{
    return self->lanes[worker].computed;
}
