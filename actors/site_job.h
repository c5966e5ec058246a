/*  site_job: one piece of work for a client's compute thread, and what comes of it. The loop thread makes
    it and acts on its result; only the compute thread touches the site in between.                 */

#ifndef TL_SITE_JOB_H
#define TL_SITE_JOB_H

#include "actors/compute.h"
#include "fed/site.h"
#include "messages/tensor_wire.h"

typedef struct tl_site_job tl_site_job_t;
typedef void (tl_site_job_fn) (tl_site_job_t *job);

struct tl_site_job {
    tl_site_t *site;                     //  for the compute thread only
    struct tl_synthetic_part *synthetic; //  in its place, or NULL
    tl_w_dtype_t dtype;                  //  of rows that go out
    uint64_t epoch; //  of the client when it was made; an old one's result is void
    uint64_t step, round, micro, micros;
    uint64_t asked; //  restore: the step that was to be gone back to; job's step is what it came to
    tl_assembly_t *in;        //  rows that came in, or NULL; owned
    tl_packed_t *out;         //  rows to send, or NULL; owned
    tl_sequence_t *sequences; //  of out, for ACTIVATION and FORWARD; owned
    size_t sequence_count;
    tl_norm_term_t *terms; //  of commit; owned
    size_t term_count;
    uint64_t labels;
    double nll, norm, rate;
    uint64_t own_labels; //  update: label tokens of this client
    uint64_t own_steps;  //  update: that it has made in the run with this one; 0: not known
    int64_t began;       //  update: when its step began, monotonic us
    uint64_t bytes;      //  update: on the wire for its step
    size_t *first;       //  slice: the example where it begins, moved on
    bool rewind;         //  slice: it is the text's first
    int32_t *ids;        //  prompt: owned
    size_t id_count;
    uint32_t context, mask; //  prompt: as in tl_batch_t
    float *logits;          //  next: owned
    double *losses;         //  score: [example_count] of the examples from example on; owned
    size_t example, example_count;
    tl_slice_t *slice;    //  slice, prompt, score, next: owned
    char *directory;      //  saves: of this part; owned
    char text[1024];      //  what to tell the broker about it
    tl_error_t err;       //  code TL_OK: it worked
    tl_site_job_fn *done; //  on the loop thread
    bool lasting;         //  done is called even when the epoch is over: what it did stands
    void *owner;          //  of done
};

//  Work functions of a step and of saves, for the compute thread: a site's, or those of what stands for one
//  (synthetic.h).
typedef struct {
    tl_job_fn *begin, *front, *tail, *back, *commit, *update, *drop, *save, *restore;
} tl_site_work_t;

extern const tl_site_work_t tl_site_work;

//  Work functions of a site that has the whole model (split: none).
void tl_site_job_learn (void *job);
void tl_site_job_evaluate (void *job); //  nll and labels of the held-out text
//  Work functions of asking, for a site only.
void tl_site_job_slice (void *job);
void tl_site_job_score (void *job);
void tl_site_job_prompt (void *job);
void tl_site_job_next (void *job);
void tl_site_job_load (void *job); //  the adapter in directory; NULL: the untrained one
void tl_site_job_free (void *job); //  any thread

#endif
