/*  export_gguf: LoRA as llama.cpp reads it: a GGUF file of type adapter with lora_a and lora_b beside the names of a
    model's tensors. llama.cpp scales by adapter.lora.alpha / rank: rsLoRA goes into alpha. Rows of q and
    k of a llama lie as in its GGUF files.                                                          */

#include "export_internal.h"

#include "gguf_config.h"
#include "gguf_write.h"

#include "file.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
s_put_settings (const tl_export_t *self, const char *architecture, tl_gguf_writer_t *writer)
{
    const tl_adapter_info_t *info = &self->info;
    const tl_tune_t tune = {.rank = info->rank, .alpha = info->alpha, .rslora = info->rslora};
    tl_gguf_put_text (writer, "general.architecture", architecture);
    tl_gguf_put_text (writer, "general.type", "adapter");
    tl_gguf_put_text (writer, "adapter.type", "lora");
    tl_gguf_put_number (writer, "adapter.lora.alpha", TL_GGUF_F32,
                        tl_tune_scaling (&tune) * (double)info->rank);
}

static int
s_announce (const tl_export_t *self, const tl_slot_t *slot, tl_gguf_writer_t *writer,
            tl_error_t *err)
{
    char name[128], factor[140];
    if (!tl_gguf_name (slot->name, name, sizeof name))
        return tl_fail (err, TL_BAD_INPUT,
                        "GGUF has no name for %s; train other tune.targets, or export as hf",
                        slot->name);
    const size_t a[] = {self->info.rank, slot->columns}, b[] = {slot->rows, self->info.rank};
    snprintf (factor, sizeof factor, "%s.lora_a", name);
    tl_gguf_announce (writer, factor, TL_F32, a, 2);
    snprintf (factor, sizeof factor, "%s.lora_b", name);
    tl_gguf_announce (writer, factor, TL_F32, b, 2);
    return 0;
}

static int
s_add (const tl_export_t *self, const tl_slot_t *slot, const tl_export_slot_t *taken,
       tl_gguf_writer_t *writer, tl_error_t *err)
{
    const tl_config_t *config = tl_model_config (self->model);
    size_t rank = self->info.rank, a_size = rank * slot->columns, b_size = slot->rows * rank;
    float *a = tl_alloc_aligned (a_size * sizeof *a), *b = tl_alloc_aligned (b_size * sizeof *b);
    float *ordered = tl_alloc_aligned (b_size * sizeof *ordered);
    tl_adapter_copy (a, taken->a);
    tl_adapter_copy (b, taken->b);
    bool turned = slot->role == TL_SLOT_Q || slot->role == TL_SLOT_K;
    if (turned && config->family == TL_FAMILY_LLAMA)
        tl_reorder_heads (config->head_dim, TL_ORDER_TO_FILE, ordered, b, slot->rows,
                          rank * sizeof *b);
    else
        memcpy (ordered, b, b_size * sizeof *b);
    int rc = tl_gguf_writer_add (writer, a, a_size * sizeof *a, err);
    if (rc == 0)
        rc = tl_gguf_writer_add (writer, ordered, b_size * sizeof *ordered, err);
    free (ordered);
    free (b);
    free (a);
    return rc;
}

static int
s_write (const tl_export_t *self, const char *path, tl_gguf_writer_t *writer, tl_error_t *err)
{
    const tl_config_t *config = tl_model_config (self->model);
    size_t count = tl_layout_count (config);
    int rc = 0;
    tl_slot_t slot;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        tl_layout_at (config, i, &slot);
        if (self->slots[i].a)
            rc = s_announce (self, &slot, writer, err);
    }
    if (rc == 0)
        rc = tl_gguf_writer_begin (writer, path, 0600, err);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        tl_layout_at (config, i, &slot);
        if (self->slots[i].a)
            rc = s_add (self, &slot, &self->slots[i], writer, err);
    }
    return rc == 0 ? tl_gguf_writer_finish (writer, err) : rc;
}

int
tl_export_gguf (const tl_export_t *self, const char *path, tl_error_t *err)
{
    const tl_config_t *config = tl_model_config (self->model);
    const char *architecture = tl_gguf_architecture (config);
    if (self->count == 0 || self->info.method != TL_TUNE_LORA)
        return tl_fail (err, TL_BAD_INPUT, "%s; llama.cpp's adapters hold LoRA: %s",
                        self->count == 0 ? "no adapter is named"
                        : self->prefix   ? "this is a prefix"
                                         : "these are full weights",
                        self->prefix ? "export it as peft" : "export it as hf");
    if (!architecture)
        return tl_fail (err, TL_BAD_INPUT,
                        "llama.cpp knows no %s models like %.300s; export it as peft or hf",
                        tl_family_name (config->family), tl_model_path (self->model));
    tl_gguf_writer_t *writer = tl_gguf_writer_new ();
    s_put_settings (self, architecture, writer);
    int rc = s_write (self, path, writer, err);
    tl_gguf_writer_destroy (&writer);
    return rc;
}
