//  An adapter that we save is one that peft loads: the same logits from transformers and peft, which are asked
//  through tests/golden/peft_logits.py. Skipped where Python has no peft; $TL_PYTHON names another Python.

#include "rig.h"
#include "tiny_model.h"

#include "file.h"
#include "kernels/kernels.h"
#include "memory.h"
#include "model/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const tl_tune_t s_tune = {.method = TL_TUNE_LORA,
                                 .rank = 4,
                                 .alpha = 8,
                                 .seed = 5,
                                 .targets = {"q_proj", "v_proj", "o_proj", "down_proj"},
                                 .target_count = 4,
                                 .beta1 = 0.9,
                                 .beta2 = 0.999,
                                 .eps = 1e-8};

static int
s_fail (const tl_error_t *err)
{
    fprintf (stderr, "%s\n", err->text);
    return 1;
}

//  A few large steps, so that the adapter changes what the model says.
static int
s_write (const char *model_path, const char *adapter, const char *logits_path, tl_error_t *err)
{
    tl_model_t *model = tl_model_open (model_path, err);
    if (!model)
        return -1;
    rig_t *rig = rig_new (model, 0, 0, &s_tune);
    for (uint64_t step = 0; step < 4; step++) {
        tl_batch_t *batch = tiny_batch (rig->config, step, 2, 6, 12, 2 * step);
        rig_step (rig, &batch, 1, step, 5e-2, 0, false);
        tiny_batch_destroy (&batch);
    }
    int rc = tl_part_save_adapter (rig->parts[0], adapter, err);

    tl_batch_t *batch = tiny_batch (rig->config, 77, 1, 16, 16, 0);
    const size_t rows = batch->rows, vocab = rig->config->vocab;
    float *logits = tl_alloc (rows * vocab * sizeof *logits);
    uint32_t *which = tl_alloc (rows * sizeof *which);
    for (size_t i = 0; i < rows; i++)
        which[i] = (uint32_t)i;
    tl_tape_t *tape = tl_segment_forward (rig->chain[0], batch, 0, NULL, false);
    tl_segment_logits (rig->chain[0], tape, which, rows, logits);
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
    if (rc == 0)
        rc = tl_safetensors_write (logits_path, 0644, tensors, 2, NULL, err);
    tl_tape_destroy (&tape);
    tiny_batch_destroy (&batch);
    free (which);
    free (logits);
    rig_destroy (&rig);
    tl_model_destroy (&model);
    return rc;
}

static int
s_ask_python (const char *model, const char *adapter, const char *logits)
{
    const char *python = getenv ("TL_PYTHON");
    python = python && *python ? python : "python3";
    fflush (stdout);
    pid_t child = fork ();
    if (child == 0) {
        //  Sanitizers of this program are none of Python's business.
        unsetenv ("LD_PRELOAD");
        execlp (python, python, "tests/golden/peft_logits.py", model, adapter, logits,
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
    if (tl_blas_open (1, &err) != 0)
        return s_fail (&err);
    int rc = 0;
    for (int tied = 0; tied < 2 && rc == 0; tied++) {
        tiny_model_t spec = tiny_llama (tied);
        char *root = tiny_directory (), *adapter = tl_format ("%s/adapter", root),
             *logits = tl_format ("%s/logits.safetensors", root);
        if (tiny_model_write (&spec, root, &err) != 0 || s_write (root, adapter, logits, &err) != 0)
            rc = s_fail (&err);
        else
            rc = s_ask_python (root, adapter, logits);
        tl_remove_tree (root);
        free (logits);
        free (adapter);
        free (root);
    }
    return rc;
}
