/*  trunk: for tests, a run of real clients and a real broker whose worker is a peer: what it says, right or wrong, is the
    test's. Steps have one micro.                                                                     */

#ifndef TRUNK_H
#define TRUNK_H

#include "chaos/peer.h"

enum { TRUNK_HIDDEN = 32, TRUNK_LONG = 1000000 };
#define TRUNK_TUNE "tune: {rank: 4, dropout: 0}\n"

typedef struct {
    stage_t *stage;
    part_t *broker, *site; //  the first client
    peer_t *worker;        //  "trunk"
} trunk_run_t;

//  Its files; more are lines of YAML, and tune is one. With mode: fanout there is a second worker.
trunk_run_t trunk_begin (size_t sites, uint64_t steps, const char *more);
//  Keys, broker, first client and the worker. set: an override for broker and client, or NULL.
void trunk_start (trunk_run_t *self, const char *set);
//  Told to stop, the broker lets the open step commit and has it saved; all end well.
void trunk_end (trunk_run_t *self);

//  A message to a member by name, or to the broker.
void trunk_to (tl_message_t *message, tl_type_t type, uint64_t step, const char *to);
void trunk_send_rows (peer_t *worker, tl_type_t type, uint64_t step, uint64_t micro,
                      const peer_piece_t *piece, const char *to);
//  Rows that nothing is wrong with, where so many are due.
void trunk_send_good (peer_t *worker, tl_type_t type, uint64_t step, uint64_t rows, const char *to);
void trunk_send_committed (peer_t *worker, uint64_t step, uint64_t labels, const char *to);
//  SAVED or RESTORED.
void trunk_send_answer (peer_t *worker, tl_type_t type, uint64_t step, bool good);
void trunk_send_state (peer_t *worker, uint64_t step, uint64_t size, uint64_t offset, bool damaged);

//  Waits for rows of that type; how many.
uint64_t trunk_wait_rows (peer_t *worker, tl_type_t type);
//  What is left of a step of one client whose ACTIVATION came, as it should be; and a whole step.
void trunk_go_on (peer_t *worker, uint64_t step, uint64_t rows, const char *name);
void trunk_whole_step (peer_t *worker, const char *name);
//  The first client's next step is that one.
void trunk_expect_step (trunk_run_t *self, uint64_t step);

#endif
