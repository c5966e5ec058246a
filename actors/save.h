/*  save: where a part's states lie on its own disk: checkpoint.dir/RUN/PART/save-STEP.state, written whole
    or not at all. The content is the caller's.                                                     */

#ifndef TL_SAVE_H
#define TL_SAVE_H

#include "actors/peer.h"
#include "error.h"
#include "model/model.h"
#include "topology/topology.h"

#define TL_SAVE_WEIGHTS "weights.hash" //  what a part notes there of its weights' contents

//  checkpoint.dir/name/part; the caller frees.
char *tl_save_directory (const tl_topology_t *topology, const char *part);
//  Nobody else may write there until tl_dir_unlock: part "" is the run's own directory. See tl_dir_lock.
int tl_save_lock (const tl_topology_t *topology, const char *part, int *lock, tl_error_t *err);
char *
tl_save_run_db (const tl_topology_t *topology); //  checkpoint.dir/name/run.db; the caller frees
//  Makes the directory, shows that it can be written to, and removes states of an earlier run; the log says which.
int tl_save_open (const char *directory, tl_error_t *err);
//  The end of a part that was never let in: it leaves no directory that holds nothing, or no more than its note of weights.
void tl_save_unmake (const char *directory);
//  Shows that it can be written to. Removes nothing.
int tl_save_writable (const char *directory, tl_error_t *err);
//  True if the directory is that run's. Changes nothing.
bool tl_save_is_of (const char *directory, uint64_t run);
//  The directory is that run's from now on: states of another one are removed. Called when the run begins, not before: until
//  then the one before it can be gone on with.
int tl_save_settle (const char *directory, uint64_t run, tl_error_t *err);
//  The same, once, at the first message by which the run begins or goes on: what is asked of the trunk by forwarding doesn't
//  begin it, nor does going back to nothing. settled: whether it has been done.
int tl_save_settle_at (const char *directory, uint64_t run, const tl_message_t *message,
                       bool *settled, tl_error_t *err);
//  True if that run has saved something there. Changes nothing.
bool tl_save_has (const char *directory, uint64_t run);
int tl_save_write (const char *directory, uint64_t step, const void *state, size_t size,
                   tl_error_t *err);
//  The caller frees. NULL and a sentence if it isn't there, or is damaged.
void *tl_save_read (const char *directory, uint64_t step, size_t *size, tl_error_t *err);
//  The newest up to *step that is whole; *step becomes its step. The log names those that are not. NULL and *step 0: there is
//  none, and err has a code if that is because what is there is damaged.
void *tl_save_read_newest (const char *directory, uint64_t *step, size_t *size, tl_error_t *err);
//  Newest saved step <= limit, or -1.
int64_t tl_save_newest (const char *directory, uint64_t limit);
//  The part's adapter as directory/adapter, with its step noted beside it. A part that trains nothing saves none.
int tl_save_adapter (const tl_part_t *part, const char *directory, uint64_t step, tl_error_t *err);
//  True if an adapter of some part of the run lies on this machine.
bool tl_save_has_adapter (const tl_topology_t *topology);
//  False if that adapter and other's are known to be of different steps or runs; steps [2] are then those steps.
bool tl_save_agree (const char *directory, const char *other, int64_t *steps);
//  Removes states of later steps: the run went back to step, and makes them anew.
void tl_save_forget_after (const char *directory, uint64_t step);
//  Keeps the newest keep states up to step (at least that of step itself) and anything newer.
void tl_save_prune (const char *directory, uint64_t step, size_t keep);
//  Tells the broker what became of its SAVE (type TL_SAVED) or RESTORE (TL_RESTORED): good, unless err has a code.
void tl_save_answer (tl_peer_t *peer, tl_type_t type, uint64_t step, uint64_t round,
                     const tl_error_t *err, const char *text);

#endif
