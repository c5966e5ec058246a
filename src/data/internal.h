/*  internal: what the files of src/data share.

    A line of JSONL becomes an example_t (examples.c: who said what), that becomes ids in the family's layout
    (layout.c), those go into the dataset's pool (dataset.c), and micros are cut from it (micro.c).    */

#ifndef TL_DATA_INTERNAL_H
#define TL_DATA_INTERNAL_H

#include "data.h"

const tl_config_t *tl_tokenizer_config (const tl_tokenizer_t *self);

//  ---------------------------------------------------------------------------------------------
//  examples.c

//  One example. The last thing said is by the assistant and is what is learnt.
typedef struct {
    tl_said_t *said; //  [count]
    size_t count;
    bool chat;  //  a conversation: laid out in turns; else a prompt and its answer
    bool whole; //  plain text: nothing is given, all of it is learnt
} tl_example_t;

//  Called for each example in the file's order; a failure ends the reading.
typedef int tl_example_fn (void *arg, const tl_example_t *example, tl_error_t *err);

//  Reads size bytes of JSONL; name is for messages, which begin with "name:line: ". limit 0 is no limit. -1 when
//  a line is broken or take fails.
int tl_examples_read (const char *name, const char *data, size_t size, const tl_columns_t *columns,
                      size_t limit, tl_example_fn *take, void *arg, tl_error_t *err);

//  ---------------------------------------------------------------------------------------------
//  layout.c

//  An example as ids. Rows are ids without the last one; rows from first on have a label.
typedef struct {
    int32_t *ids;   //  [count], the caller frees
    size_t count;   //  at most max_length
    size_t context; //  chatglm: index of sop; else 0
    size_t mask;    //  chatglm: index of gMASK or of a cloze's blank; else 0
    size_t first;   //  first row that has a label
    bool shortened; //  something had to go
} tl_sequence_t;

//  cloze as in tl_data_options_t. -1 when the model has no layout for such an example; self has nothing to free then.
int tl_layout_example (tl_sequence_t *self, const tl_tokenizer_t *tokenizer,
                       const tl_example_t *example, size_t max_length, bool cloze, tl_error_t *err);

//  ---------------------------------------------------------------------------------------------
//  dataset.c holds it, micro.c reads it

typedef struct {
    size_t offset;           //  of its ids in the pool
    uint32_t count;          //  ids
    uint32_t context, first; //  as in tl_sequence_t
    uint32_t mask;           //  as in tl_batch_t
} tl_place_t;

struct tl_dataset {
    char *path;
    const tl_tokenizer_t *tokenizer; //  not owned
    size_t max_length;
    bool cloze;    //  as in tl_data_options_t
    int32_t *pool; //  [pool_used] ids of all examples
    size_t pool_used, pool_size;
    tl_place_t *places; //  [count]
    size_t count, places_size;
    size_t shortened;
    uint64_t labels;
    //  The order of one pass, kept because the next step mostly wants the same one.
    uint32_t *order; //  [count], NULL until asked for
    uint64_t order_seed, order_site, order_pass;
};

#endif
