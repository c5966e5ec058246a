/*  board: a run as its parts tell it: what each client has done so far, for the screen while it goes on and as a
    table and JSON at the end. Fed with events; reads no sockets.                                    */

#ifndef TL_BOARD_H
#define TL_BOARD_H

#include "topology/topology.h"
#include "ui/format.h"

#include <jansson.h>
#include <stdbool.h>

typedef struct tl_board tl_board_t;

//  format says what goes to stdout: a table at the end, one JSON document at the end, or every event as it comes. The
//  topology must outlive it.
tl_board_t *tl_board_new (const tl_topology_t *topology, tl_format_t format);
void tl_board_destroy (tl_board_t **self_p);
//  part is "broker", "worker/NAME" or "client/NAME".
void tl_board_event (tl_board_t *self, const char *part, const json_t *event);
//  A line for a person, without disturbing the progress.
void tl_board_line (tl_board_t *self, const char *line);
//  The run as JSON; steps are all that the run has, what else is counted begins where this process resumed it
//  (resumed_step, resumed_round): {name, mode, seconds, steps, labels, nll, perplexity, bytes, first_step_s, trained_s (until the first and the
//  last finished step), clients: [...], memory: {...}}.
//  The caller decrefs.
json_t *tl_board_summary (const tl_board_t *self);
//  Something came of it here: a step that the run has, or a score of its text.
bool tl_board_made (const tl_board_t *self);
//  Ends the progress and prints the result, if something was made.
void tl_board_end (tl_board_t *self);

#endif
