/*  tokenizer_check EXPECTED.json TOKENIZER: holds a tokenizer against what its official implementation gave
    (shared golden files): ids and decoded text of every case, broken UTF-8, ids cut inside a character,
    prompts, pairs and chats. Prints the first differences, one count a kind, and a verdict. Exit code 0
    when everything that this version covers agrees, 1 otherwise, 77 when a file is absent.         */

#include "data/internal.h"

#include "file.h"
#include "memory.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const tl_tokenizer_t *tokenizer;
    const char *kind;    //  of case being compared
    size_t cases, wrong; //  of this kind
    size_t all_wrong;
} check_t;

static void
s_print_ids (const char *what, const int32_t *ids, size_t count)
{
    printf ("    %s", what);
    for (size_t i = 0; i < count && i < 40; i++)
        printf (" %d", ids[i]);
    printf ("%s\n", count > 40 ? " ..." : "");
}

static void
s_report (check_t *self, size_t index, bool right)
{
    self->cases++;
    if (right)
        return;
    self->wrong++;
    self->all_wrong++;
    printf ("  %s %zu differs\n", self->kind, index);
}

static void
s_compare_ids (check_t *self, size_t index, const json_t *expected, const int32_t *ids,
               size_t count)
{
    size_t wanted = json_array_size (expected);
    int32_t *other = tl_alloc ((wanted + 1) * sizeof *other);
    for (size_t i = 0; i < wanted; i++)
        other[i] = (int32_t)json_integer_value (json_array_get (expected, i));
    bool right = wanted == count && (count == 0 || memcmp (other, ids, count * sizeof *ids) == 0);
    s_report (self, index, right);
    if (!right) {
        s_print_ids ("expected", other, wanted);
        s_print_ids ("got     ", ids, count);
    }
    free (other);
}

static void
s_compare_encoding (check_t *self, size_t index, const json_t *expected, const char *text,
                    size_t size)
{
    size_t count = 0;
    int32_t *ids = tl_tokenizer_encode (self->tokenizer, text, size, &count);
    s_compare_ids (self, index, expected, ids, count);
    free (ids);
}

static void
s_compare_decoding (check_t *self, size_t index, const json_t *ids, const json_t *expected)
{
    size_t count = json_array_size (ids), size = 0;
    int32_t *list = tl_alloc ((count + 1) * sizeof *list);
    for (size_t i = 0; i < count; i++)
        list[i] = (int32_t)json_integer_value (json_array_get (ids, i));
    char *text = tl_tokenizer_decode (self->tokenizer, list, count, &size);
    bool right = size == json_string_length (expected) &&
                 memcmp (text, json_string_value (expected), size) == 0;
    s_report (self, index, right);
    if (!right)
        printf ("    expected '%s'\n    got      '%s'\n", json_string_value (expected), text);
    free (text);
    free (list);
}

static void
s_end (check_t *self)
{
    printf ("%-18s %4zu cases, %zu differ\n", self->kind, self->cases, self->wrong);
    self->cases = self->wrong = 0;
}

static void
s_check_texts (check_t *self, const json_t *cases, const char *kind, const char *text_key,
               const char *ids_key)
{
    size_t i;
    const json_t *one;
    self->kind = kind;
    json_array_foreach (cases, i, one)
    {
        const json_t *text = json_object_get (one, text_key);
        s_compare_encoding (self, i, json_object_get (one, ids_key), json_string_value (text),
                            json_string_length (text));
    }
    s_end (self);
}

static void
s_check_decoding (check_t *self, const json_t *cases, const char *kind)
{
    size_t i;
    const json_t *one;
    self->kind = kind;
    json_array_foreach (cases, i, one) s_compare_decoding (self, i, json_object_get (one, "ids"),
                                                           json_object_get (one, "decoded"));
    s_end (self);
}

static void
s_check_raw (check_t *self, const json_t *cases)
{
    size_t i;
    const json_t *one;
    self->kind = "raw bytes";
    json_array_foreach (cases, i, one)
    {
        const char *hex = json_string_value (json_object_get (one, "hex"));
        char bytes[256];
        size_t size = strlen (hex) / 2;
        for (size_t k = 0; k < size && k < sizeof bytes; k++) {
            unsigned value = 0;
            sscanf (hex + 2 * k, "%2x", &value);
            bytes[k] = (char)value;
        }
        s_compare_encoding (self, i, json_object_get (one, "ids"), bytes, size);
    }
    s_end (self);
}

static tl_said_t
s_said (tl_speaker_t speaker, const json_t *text)
{
    return (tl_said_t){speaker, (char *)json_string_value (text), json_string_length (text)};
}

static void
s_check_pairs (check_t *self, const json_t *pairs)
{
    size_t i;
    const json_t *one;
    self->kind = "pairs";
    json_array_foreach (pairs, i, one)
    {
        const json_t *a = json_object_get (one, "a"), *b = json_object_get (one, "b");
        tl_prompt_t prompt;
        tl_prompt_make (&prompt, self->tokenizer, json_string_value (a), json_string_length (a));
        s_compare_ids (self, i, json_object_get (one, "single_ids"), prompt.ids, prompt.count);
        tl_prompt_clear (&prompt);
        tl_said_t said[2] = {s_said (TL_SAID_USER, a), s_said (TL_SAID_ASSISTANT, b)};
        tl_example_t example = {.said = said, .count = 2};
        tl_sequence_t sequence;
        tl_layout_example (&sequence, self->tokenizer, &example, 1 << 20);
        s_compare_ids (self, i, json_object_get (one, "pair_ids"), sequence.ids, sequence.count);
        const json_t *context = json_object_get (one, "context_length");
        s_report (self, i, sequence.context == (size_t)json_integer_value (context));
        free (sequence.ids);
    }
    s_end (self);
}

//  A chat ready for generation is what stands before the answer: all rows up to the context.
static void
s_check_chats (check_t *self, const json_t *chats)
{
    size_t i, k;
    const json_t *one, *message;
    self->kind = "chats";
    json_array_foreach (chats, i, one)
    {
        tl_said_t said[32] = {0};
        tl_example_t example = {.said = said, .chat = true};
        json_array_foreach (json_object_get (one, "messages"), k, message)
        {
            const char *role = json_string_value (json_object_get (message, "role"));
            tl_speaker_t speaker = strcmp (role, "user") == 0     ? TL_SAID_USER
                                   : strcmp (role, "system") == 0 ? TL_SAID_SYSTEM
                                                                  : TL_SAID_ASSISTANT;
            said[example.count++] = s_said (speaker, json_object_get (message, "content"));
        }
        said[example.count++] = (tl_said_t){TL_SAID_ASSISTANT, "", 0};
        tl_sequence_t sequence;
        tl_layout_example (&sequence, self->tokenizer, &example, 1 << 20);
        s_compare_ids (self, i, json_object_get (one, "ids"), sequence.ids, sequence.context + 1);
        free (sequence.ids);
    }
    s_end (self);
}

static int
s_check (const json_t *golden, const char *file)
{
    const json_t *special = json_object_get (golden, "special_ids");
    bool glm = json_object_get (special, "[gMASK]") != NULL;
#define ID(name) (int32_t) json_integer_value (json_object_get (special, name))
    tl_config_t config = {.family = glm ? TL_FAMILY_CHATGLM : TL_FAMILY_LLAMA,
                          .vocab = 1 << 18,
                          .bos = glm ? ID ("<sop>") : ID ("<s>"),
                          .eos = glm ? ID ("<eop>") : ID ("</s>"),
                          .pad = -1,
                          .gmask = glm ? ID ("[gMASK]") : -1,
                          .mask = glm ? ID ("[MASK]") : -1,
                          .sop = glm ? ID ("<sop>") : -1};
#undef ID
    tl_error_t err = {0};
    tl_tokenizer_t *tokenizer = tl_tokenizer_open (file, &config, &err);
    if (!tokenizer) {
        fprintf (stderr, "%s\n", err.text);
        return 1;
    }
    check_t check = {.tokenizer = tokenizer};
    const json_t *cases = json_object_get (golden, "cases");
    s_check_texts (&check, cases, "texts", "text", "ids");
    s_check_decoding (&check, cases, "decoded");
    s_check_decoding (&check, json_object_get (golden, "partial_decodes"), "partial decodes");
    s_check_texts (&check, json_object_get (golden, "invalid_utf8"), "replaced bytes", "replaced",
                   "ids");
    s_check_raw (&check, json_object_get (golden, "invalid_utf8_raw"));
    s_check_texts (&check, json_object_get (golden, "special_texts"), "special texts", "text",
                   "plain_ids");
    if (glm) {
        s_check_pairs (&check, json_object_get (golden, "pairs"));
        s_check_chats (&check, json_object_get (golden, "chats"));
    }
    tl_tokenizer_destroy (&tokenizer);
    printf ("%s: %s\n", file, check.all_wrong ? "DIFFERS" : "agrees");
    return check.all_wrong ? 1 : 0;
}

int
main (int argc, char **argv)
{
    if (argc != 3) {
        fprintf (stderr, "usage: %s EXPECTED.json TOKENIZER\n", argv[0]);
        return 4;
    }
    if (!tl_exists (argv[1]) || !tl_exists (argv[2])) {
        printf ("skipped: %s or %s is not there\n", argv[1], argv[2]);
        return 77;
    }
    json_error_t reason;
    json_t *golden = json_load_file (argv[1], JSON_ALLOW_NUL, &reason);
    if (!golden) {
        fprintf (stderr, "%s:%d: %s\n", argv[1], reason.line, reason.text);
        return 1;
    }
    int rc = s_check (golden, argv[2]);
    json_decref (golden);
    return rc;
}
