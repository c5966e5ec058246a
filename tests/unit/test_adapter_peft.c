//  What is exported is what peft and transformers load: the parts of a run joined into one adapter, and merged into the
//  model, give the same logits there, asked through tests/golden/peft_logits.py. Skipped where Python has no peft;
//  $TL_PYTHON names another Python.

#include "rig.h"
#include "tiny_model.h"

#include "file.h"
#include "kernels/kernels.h"
#include "memory.h"
#include "model/export.h"
#include "model/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

//  A model, what is tuned of it and how.
typedef struct {
    const char *name;
    tiny_model_t model;
    const char *targets[3];
    bool rslora;
    const char *freeze; //  or NULL
} s_case_t;

static tl_tune_t
s_tune (const s_case_t *one)
{
    tl_tune_t tune = {.method = TL_TUNE_LORA,
                      .rank = 4,
                      .alpha = 8,
                      .rslora = one->rslora,
                      .seed = 5,
                      .target_count = 3,
                      .beta1 = 0.9,
                      .beta2 = 0.999,
                      .eps = 1e-8};
    memcpy (tune.targets, one->targets, sizeof one->targets);
    if (one->freeze)
        tune.freeze[tune.freeze_count++] = one->freeze;
    return tune;
}

static int
s_fail (const tl_error_t *err)
{
    fprintf (stderr, "%s\n", err->text);
    return 1;
}

//  Logits of some rows, and their ids, for Python to compare.
static int
s_write_logits (rig_t *rig, const char *path, tl_error_t *err)
{
    tl_batch_t *batch = tiny_batch (rig->config, 77, 1, 16, 16, 0);
    const size_t rows = batch->rows, vocab = rig->config->vocab, last = rig->chain_length - 1;
    float *logits = tl_alloc (rows * vocab * sizeof *logits);
    uint32_t *which = tl_alloc (rows * sizeof *which);
    for (size_t i = 0; i < rows; i++)
        which[i] = (uint32_t)i;
    tl_tape_t *tapes[3];
    rig_forward (rig, batch, 0, false, tapes);
    tl_segment_logits (rig->chain[last], tapes[last], which, rows, logits);
    const tl_st_tensor_t tensors[] = {{.name = "ids",
                                       .dtype = TL_ST_I32,
                                       .dimensions = 1,
                                       .shape = {rows},
                                       .bytes = rows * 4,
                                       .data = batch->ids},
                                      {.name = "logits",
                                       .dtype = TL_ST_F32,
                                       .dimensions = 2,
                                       .shape = {rows, vocab},
                                       .bytes = rows * vocab * 4,
                                       .data = logits}};
    int rc = tl_safetensors_write (path, 0644, tensors, 2, NULL, err);
    for (size_t i = 0; i <= last; i++)
        tl_tape_destroy (&tapes[i]);
    tiny_batch_destroy (&batch);
    free (which);
    free (logits);
    return rc;
}

//  What a run of two parts saved, joined: as an adapter, and merged into the model.
static int
s_export (tl_model_t *model, rig_t *rig, const char *root, const char *adapter, const char *merged,
          tl_error_t *err)
{
    char *parts[2] = {tl_format ("%s/client", root), tl_format ("%s/worker", root)};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < 2; i++)
        rc = tl_part_save_adapter (rig->parts[i], parts[i], err);
    tl_export_t *export =
        rc == 0 ? tl_export_new (model, (const char *const *)parts, 2, err) : NULL;
    rc = export && tl_export_peft (export, adapter, err) == 0 &&
                 tl_export_hf (export, merged, false, TL_F32, 100000, err) == 0
             ? 0
             : -1;
    tl_export_destroy (&export);
    free (parts[1]);
    free (parts[0]);
    return rc;
}

//  A few large steps, so that the adapter changes what the model says.
static int
s_write (const s_case_t *one, const char *root, const char *adapter, const char *merged,
         const char *logits, tl_error_t *err)
{
    tl_model_t *model = tl_model_open (root, err);
    if (!model)
        return -1;
    const tl_tune_t tune = s_tune (one);
    rig_t *rig = rig_new (model, 1, 1, &tune);
    for (uint64_t step = 0; step < 4; step++) {
        tl_batch_t *batch = tiny_batch (rig->config, step, 2, 6, 12, 2 * step);
        rig_step (rig, &batch, 1, step, 5e-2, 0, false);
        tiny_batch_destroy (&batch);
    }
    int rc = s_write_logits (rig, logits, err);
    if (rc == 0)
        rc = s_export (model, rig, root, adapter, merged, err);
    rig_destroy (&rig);
    tl_model_destroy (&model);
    return rc;
}

static int
s_ask_python (const char *model, const char *adapter, const char *merged, const char *logits)
{
    const char *python = getenv ("TL_PYTHON");
    python = python && *python ? python : "python3";
    fflush (stdout);
    pid_t child = fork ();
    if (child == 0) {
        //  Sanitizers of this program are none of Python's business.
        unsetenv ("LD_PRELOAD");
        execlp (python, python, "tests/golden/peft_logits.py", model, adapter, merged, logits,
                (char *)NULL);
        printf ("skipped: there is no %s\n", python);
        fflush (stdout);
        _exit (77);
    }
    int status = 0;
    if (child < 0 || waitpid (child, &status, 0) != child || !WIFEXITED (status))
        return 1;
    return WEXITSTATUS (status);
}

int
main (void)
{
    tl_error_t err = {.text = ""};
    tl_kernels_use (1);
    const s_case_t cases[] = {
        {"llama", tiny_llama (false), {"q_proj", "o_proj", "down_proj"}, false, NULL},
        {"llama tied, rsLoRA, two blocks left out",
         tiny_llama (true),
         {"q_proj", "v_proj", "gate_proj"},
         true,
         "blocks.2-3"},
        {"qwen2", tiny_qwen2 (true), {"k_proj", "v_proj", "up_proj"}, false, NULL},
        {"glm, rsLoRA", tiny_glm (true), {"q_proj", "gate_up_proj", "down_proj"}, true, NULL},
    };
    int rc = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases && rc == 0; i++) {
        char *root = tiny_directory (), *adapter = tl_format ("%s/adapter", root),
             *merged = tl_format ("%s/merged", root),
             *logits = tl_format ("%s/logits.safetensors", root);
        printf ("%s\n", cases[i].name);
        if (tiny_model_write (&cases[i].model, root, &err) != 0 ||
            s_write (&cases[i], root, adapter, merged, logits, &err) != 0)
            rc = s_fail (&err);
        else
            rc = s_ask_python (root, adapter, merged, logits);
        tl_remove_tree (root);
        free (logits);
        free (merged);
        free (adapter);
        free (root);
    }
    return rc;
}
