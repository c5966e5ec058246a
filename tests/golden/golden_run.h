/*  golden_run: a case that is being computed, shared by golden_run.c (forward and backward) and
    golden_train.c (what training makes of it).                                                     */

#ifndef GOLDEN_RUN_H
#define GOLDEN_RUN_H

#include "golden_case.h"

typedef struct {
    tl_batch_t batch;
    size_t *offset;  //  [sequences + 1] first row of each
    uint64_t labels; //  label tokens in all
} golden_input_t;

typedef struct {
    golden_case_t *owner;
    tl_model_t *model;
    const tl_config_t *config;
    golden_file_t forward;
    golden_input_t input;
} golden_run_t;

//  A part of that range; NULL with a failure noted.
tl_part_t *golden_part (golden_run_t *self, tl_range_t range, const tl_tune_t *tune);
tl_range_t golden_whole (const tl_config_t *config);
uint32_t *golden_all_rows (size_t count); //  0, 1 .. count - 1; the caller frees

//  Compares full.safetensors, lora.safetensors with lora/, and ptuning.safetensors (if the case has it).
void golden_check_full (golden_run_t *self);
void golden_check_lora (golden_run_t *self);
void golden_check_prefix (golden_run_t *self);

#endif
