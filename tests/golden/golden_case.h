/*  golden_case: a case directory being compared: its files with a mark on every tensor that was looked
    at, its limits, and the largest difference per kind of tensor. What to run is in golden_run.c.    */

#ifndef GOLDEN_CASE_H
#define GOLDEN_CASE_H

#include "model/model.h"
#include "model/safetensors.h"

#include <jansson.h>

typedef enum {
    KIND_HIDDEN,
    KIND_LOGITS,
    KIND_LOSS,
    KIND_NLL,
    KIND_EXACT,
    KIND_CHAIN,
    KIND_GRAD_HIDDEN,
    KIND_FULL_GRAD,
    KIND_FULL_LOSS,
    KIND_FULL_NORM,
    KIND_FULL_LR,
    KIND_LORA_GRAD,
    KIND_LORA_LOGITS,
    KIND_LORA_LOSS,
    KIND_LORA_NORM,
    KIND_LORA_LR,
    KIND_LORA_FINAL,
    KIND_PREFIX_GRAD,
    KIND_PREFIX_LOGITS,
    KIND_PREFIX_LOSS,
    KIND_PREFIX_NORM,
    KIND_PREFIX_LR,
    KIND_PREFIX_FINAL,
    KIND_DEQUANT,
    KINDS
} kind_t;

//  A safetensors file of the case, every tensor of which must be compared.
typedef struct {
    tl_safetensors_t *file;
    char name[64]; //  as in messages
    bool *seen;    //  [tl_safetensors_count]
} golden_file_t;

//  The worst of a kind so far.
typedef struct {
    size_t compared;          //  tensors
    double difference, limit; //  of the worst tensor, by difference / limit
    double ratio;
    char tensor[128];
} worst_t;

typedef struct {
    const char *path; //  the case directory
    json_t *json;     //  case.json
    bool gguf;        //  GGUF files and their forward passes; else a model and everything
    bool prefix;      //  there is a ptuning.safetensors
    worst_t worst[KINDS];
    size_t failures; //  sentences printed
} golden_case_t;

void case_fail (golden_case_t *self, const char *format, ...)
    __attribute__ ((format (printf, 2, 3)));

//  case.json's number at a path of keys ("full", "lr"), or a default.
double case_number (const golden_case_t *self, const char *group, const char *key,
                    double otherwise);

//  Opens path/name; -1 with a failure noted.
int file_open (golden_file_t *self, golden_case_t *owner, const char *name);
//  Notes a failure for every tensor nobody looked at, and closes.
void file_close (golden_file_t *self, golden_case_t *owner);
//  A tensor's values widened to double (caller frees) and their number; marks it as seen. NULL with a
//  failure noted when it is absent; want 0 takes any number.
double *file_values (golden_file_t *self, golden_case_t *owner, const char *name, size_t want,
                     size_t *count);
bool file_has (const golden_file_t *self, const char *name);

//  Compares count values with a tensor of the file by the limits of the kind.
void case_compare (golden_case_t *self, golden_file_t *file, const char *name, kind_t kind,
                   const float *values, size_t count);
void case_compare_doubles (golden_case_t *self, golden_file_t *file, const char *name, kind_t kind,
                           const double *values, size_t count);
//  The same bits as the tensor's, for a kind without tolerance.
void case_compare_exact (golden_case_t *self, golden_file_t *file, const char *name, kind_t kind,
                         const float *values, size_t count);
//  The same bits, else a difference of KIND_CHAIN.
void case_compare_bits (golden_case_t *self, const char *name, const float *left,
                        const float *right, size_t count);

//  Prints the table and the verdict; true when all is within its limits and nothing was missing.
bool case_report (const golden_case_t *self);

//  golden_run.c: all comparisons of one case.
void case_run (golden_case_t *self);
//  golden_gguf.c: all of a case of GGUF files; golden_run.c: one of them, gguf/file.
void case_run_ggufs (golden_case_t *self);
void case_run_gguf (golden_case_t *self, const char *file, const char *type);
//  golden_gguf.c: the model's weights against dequant-TYPE.safetensors.
void case_compare_weights (golden_case_t *self, tl_model_t *model, const char *type);

#endif
