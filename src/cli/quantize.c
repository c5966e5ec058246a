//  quantize: a model as a GGUF file of another precision.

#include "cli/verbs.h"

#include "data/write_gguf.h"
#include "file.h"
#include "log.h"
#include "model/quantise.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *type;
} s_options_t;

static const struct {
    const char *name;
    tl_dtype_t type;
} s_types[] = {{"q8_0", TL_Q8_0}, {"int8", TL_Q8_0}, {"q4_0", TL_Q4_0}, {"int4", TL_Q4_0},
               {"q4_1", TL_Q4_1}, {"f16", TL_F16},   {"bf16", TL_BF16}, {"f32", TL_F32}};
enum { TYPES = sizeof s_types / sizeof *s_types };

//  Writing into the source would destroy what is being read.
static int
s_check_out (const char *model, const char *out, tl_error_t *err)
{
    char *one = realpath (model, NULL), *two = realpath (out, NULL);
    int rc = 0;
    if (one && two && strcmp (one, two) == 0)
        rc = tl_fail (err, TL_BAD_INPUT,
                      "quantize: OUT.gguf is the model itself (%s); choose another name", out);
    free (one);
    free (two);
    return rc;
}

//  "out.gguf: 11 tensors, 4 in q4_0, 2 in q8_0 and 5 in fp32, 1.2 MB": the type asked for comes first.
static void
s_print_text (const char *out, tl_dtype_t type, bool tokenizer, const tl_quantise_report_t *report)
{
    size_t kinds = 0, said = 0;
    for (size_t i = 0; i < TL_DTYPES; i++)
        kinds += report->of[i] > 0;
    printf ("%s: %zu tensors", out, report->tensors);
    for (size_t i = 0; i <= TL_DTYPES; i++) {
        size_t at = i == 0 ? type : i - 1;
        if (report->of[at] == 0 || (i > 0 && at == type))
            continue;
        printf ("%s%zu in %s",
                said == 0           ? ", "
                : said + 1 == kinds ? " and "
                                    : ", ",
                report->of[at], tl_dtype_name ((tl_dtype_t)at));
        said++;
    }
    printf (", %.1f MB%s\n", (double)report->bytes / 1e6, tokenizer ? "" : ", without a tokenizer");
}

static void
s_print (const tl_arguments_t *arguments, tl_dtype_t type, bool tokenizer,
         const tl_quantise_report_t *report)
{
    const char *out = arguments->words[1];
    if (arguments->format == TL_FORMAT_TEXT) {
        s_print_text (out, type, tokenizer, report);
        return;
    }
    json_t *types = json_object ();
    for (size_t i = 0; i < TL_DTYPES; i++)
        if (report->of[i])
            json_object_set_new (types, tl_dtype_name ((tl_dtype_t)i),
                                 json_integer ((json_int_t)report->of[i]));
    json_t *object = json_pack (
        "{s:s, s:s, s:I, s:o, s:I, s:I, s:I, s:I, s:b}", "file", out, "type", tl_dtype_name (type),
        "tensors", (json_int_t)report->tensors, "types", types, "copied",
        (json_int_t)report->copied, "requantised", (json_int_t)report->requantised, "short_rows",
        (json_int_t)report->short_rows, "bytes", (json_int_t)report->bytes, "tokenizer", tokenizer);
    json_dumpf (object, stdout, JSON_COMPACT);
    printf ("\n");
    json_decref (object);
}

static int
s_run (const tl_arguments_t *arguments, tl_error_t *err)
{
    const s_options_t *options = arguments->options;
    const char *path = arguments->words[0], *out = arguments->words[1];
    size_t at = 0;
    while (at < TYPES && strcmp (s_types[at].name, options->type) != 0)
        at++;
    if (at == TYPES)
        return tl_fail (err, TL_BAD_INPUT,
                        "quantize: --type: expected q8_0 (int8), q4_0 (int4), q4_1, f16, bf16 or "
                        "f32, found '%s'; use one of these",
                        options->type);
    if (s_check_out (path, out, err) != 0)
        return -1;
    tl_model_t *model = tl_model_open (path, err);
    if (!model)
        return -1;
    tl_gguf_writer_t *writer = tl_gguf_writer_new ();
    tl_quantise_report_t report;
    tl_error_t reason;
    bool tokenizer = tl_model_gguf (model) ||
                     tl_tokenizer_write_gguf (path, tl_model_config (model), writer, &reason) == 0;
    int rc = tl_model_quantise (model, writer, out, s_types[at].type, &report, err);
    if (rc == 0 && !tokenizer)
        tl_warn ("%s has no tokenizer: %s", out, reason.text);
    if (rc == 0 && report.requantised)
        tl_warn ("%zu tensors were quantised before and are now rounded twice; quantize from the "
                 "original for the best file",
                 report.requantised);
    if (rc == 0 && report.short_rows)
        tl_warn ("%zu matrices are in fp16: blocks of %s don't fill their rows", report.short_rows,
                 tl_dtype_name (s_types[at].type));
    if (rc == 0)
        s_print (arguments, s_types[at].type, tokenizer, &report);
    tl_gguf_writer_destroy (&writer);
    tl_model_destroy (&model);
    return rc;
}

static const s_options_t s_defaults = {"q8_0"};

static const tl_option_t s_table[] = {{"type", TL_OPTION_TEXT, offsetof (s_options_t, type),
                                       "q8_0|q4_0|q4_1|f16|bf16|f32", 0, 0,
                                       "of the matrices; int8 is q8_0, int4 is q4_0 (q8_0)"},
                                      {NULL, 0, 0, NULL, 0, 0, NULL}};

const tl_verb_t tl_verb_quantize = {
    .name = "quantize",
    .words = "MODEL OUT.gguf",
    .min_words = 2,
    .max_words = 2,
    .help = "write a model as a GGUF file, quantised or not",
    .more = "MODEL is a model directory or a GGUF file. Norms and biases stay in fp32; embedding "
            "and head are q8_0\n"
            "where the matrices have 4 bits. llama.cpp's programs read the file, too. A file that "
            "is there is replaced.",
    .options = s_table,
    .defaults = &s_defaults,
    .options_size = sizeof (s_options_t),
    .run = s_run,
};
