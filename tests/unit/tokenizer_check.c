/*  tokenizer_check EXPECTED.json TOKENIZER: holds a tokenizer (a directory or a file: .model, tokenizer.json, vocab.json,
    .gguf) against what its official implementation gave (shared golden files): ids and decoded text of every case, at
    once and streamed, broken UTF-8, ids cut inside a character, special names as text and parsed, prompts, pairs with their
    positions, and chats. Prints the first differences of each kind, one count a kind, and a verdict. Exit code 0 when
    everything agrees, 1 otherwise, 77 when a file is absent.                                       */

#include "data/internal.h"

#include "file.h"
#include "memory.h"

#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN = 4 }; //  differences of a kind

typedef struct {
    const tl_tokenizer_t *tokenizer;
    tl_family_t family;
    const char *kind;    //  of case being compared
    size_t cases, wrong; //  of this kind
    size_t all_cases, all_wrong;
} check_t;

typedef int32_t *encode_fn (const tl_tokenizer_t *, const char *, size_t, size_t *);

//  Counts one comparison; true when its difference is to be shown.
static bool
s_report (check_t *self, size_t index, bool right)
{
    self->cases++;
    self->all_cases++;
    if (right)
        return false;
    self->all_wrong++;
    if (self->wrong++ >= SHOWN)
        return false;
    printf ("  %s %zu differs\n", self->kind, index);
    return true;
}

static void
s_end (check_t *self)
{
    if (self->cases)
        printf ("%-18s %4zu cases, %zu differ\n", self->kind, self->cases, self->wrong);
    self->cases = self->wrong = 0;
}

static void
s_print_ids (const char *what, const int32_t *ids, size_t count)
{
    printf ("    %s", what);
    for (size_t i = 0; i < count && i < 40; i++)
        printf (" %d", ids[i]);
    printf ("%s\n", count > 40 ? " ..." : "");
}

//  A list of numbers; the caller frees.
static int32_t *
s_list (const json_t *numbers, size_t *count)
{
    *count = json_array_size (numbers);
    int32_t *list = tl_alloc ((*count + 1) * sizeof *list);
    for (size_t i = 0; i < *count; i++)
        list[i] = (int32_t)json_integer_value (json_array_get (numbers, i));
    return list;
}

static void
s_compare_ids (check_t *self, size_t index, const json_t *expected, const int32_t *ids,
               size_t count)
{
    size_t wanted;
    int32_t *other = s_list (expected, &wanted);
    bool right = json_is_array (expected) && wanted == count &&
                 (count == 0 || memcmp (other, ids, count * sizeof *ids) == 0);
    if (s_report (self, index, right)) {
        s_print_ids ("expected", other, wanted);
        s_print_ids ("got     ", ids, count);
    }
    free (other);
}

static void
s_compare_text (check_t *self, size_t index, const json_t *expected, const char *text, size_t size)
{
    const char *wanted = json_string_value (expected);
    bool right =
        wanted && size == json_string_length (expected) && memcmp (text, wanted, size) == 0;
    if (s_report (self, index, right))
        printf ("    expected '%s'\n    got      '%.*s'\n", wanted ? wanted : "(nothing)",
                (int)size, text);
}

//  ---------------------------------------------------------------------------------------------
//  Texts and ids

//  Every case that has both keys.
static void
s_check_texts (check_t *self, const json_t *cases, const char *kind, const char *text_key,
               const char *ids_key, encode_fn *encode)
{
    size_t i;
    const json_t *one;
    self->kind = kind;
    json_array_foreach (cases, i, one)
    {
        const json_t *text = json_object_get (one, text_key);
        size_t count = 0;
        if (!text || !json_object_get (one, ids_key))
            continue;
        int32_t *ids =
            encode (self->tokenizer, json_string_value (text), json_string_length (text), &count);
        s_compare_ids (self, i, json_object_get (one, ids_key), ids, count);
        free (ids);
    }
    s_end (self);
}

//  ChatGLM-6B's encode without the space that it puts before texts: a line end is put there, and its two ids go.
static void
s_check_no_prefix (check_t *self, const json_t *cases)
{
    size_t i;
    const json_t *one;
    self->kind = "no dummy prefix";
    json_array_foreach (cases, i, one)
    {
        const json_t *text = json_object_get (one, "text"),
                     *expected = json_object_get (one, "no_dummy_prefix");
        size_t size = json_string_length (text), count = 0;
        if (!expected)
            continue;
        char *lined = tl_alloc (size + 2);
        lined[0] = '\n';
        memcpy (lined + 1, json_string_value (text), size);
        int32_t *ids = tl_tokenizer_encode (self->tokenizer, lined, size + 1, &count);
        s_compare_ids (self, i, expected, ids + 2, count < 2 ? 0 : count - 2);
        free (ids);
        free (lined);
    }
    s_end (self);
}

//  Id by id; what comes out each time must be whole characters.
static char *
s_stream (const tl_tokenizer_t *tokenizer, const int32_t *ids, size_t count, size_t *size)
{
    tl_decoder_t *decoder = tl_decoder_new (tokenizer);
    char *text = tl_alloc (1);
    *size = 0;
    for (size_t i = 0; i <= count; i++) {
        size_t more_size;
        const char *more = i < count ? tl_decoder_put (decoder, ids[i], &more_size)
                                     : tl_decoder_finish (decoder, &more_size);
        json_t *whole = json_stringn (more, more_size);
        text = realloc (text, *size + more_size + 1);
        if (!text || !whole)
            abort (); //  not UTF-8
        memcpy (text + *size, more, more_size);
        *size += more_size;
        json_decref (whole);
    }
    tl_decoder_destroy (&decoder);
    return text;
}

static void
s_check_decoding (check_t *self, const json_t *cases, const char *kind)
{
    size_t i;
    const json_t *one;
    self->kind = kind;
    json_array_foreach (cases, i, one)
    {
        const json_t *expected = json_object_get (one, "decoded");
        size_t count, size;
        int32_t *ids = s_list (json_object_get (one, "ids"), &count);
        char *text = tl_tokenizer_decode (self->tokenizer, ids, count, &size);
        s_compare_text (self, i, expected, text, size);
        free (text);
        text = s_stream (self->tokenizer, ids, count, &size);
        s_compare_text (self, i, expected, text, size);
        free (text);
        free (ids);
    }
    s_end (self);
}

//  Bytes in hex. SentencePiece takes them as they are, byte-level tokenizers see U+FFFD for broken parts.
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
        size_t size = 0, count = 0;
        sodium_hex2bin ((unsigned char *)bytes, sizeof bytes, hex, strlen (hex), NULL, &size, NULL);
        int32_t *ids = tl_tokenizer_encode (self->tokenizer, bytes, size, &count);
        s_compare_ids (self, i, json_object_get (one, "ids"), ids, count);
        free (ids);
    }
    s_end (self);
}

//  ---------------------------------------------------------------------------------------------
//  Special ids, missing bytes

//  Names of byte pieces aren't special; their ids decode to that byte, or U+FFFD.
static int32_t
s_named (const check_t *self, const char *name, int32_t expected)
{
    unsigned byte;
    if (sscanf (name, "<0x%2X>", &byte) != 1)
        return tl_tokenizer_special (self->tokenizer, name);
    size_t size;
    char *text = tl_tokenizer_decode (self->tokenizer, &expected, 1, &size);
    bool right = byte < 0x80 ? size == 1 && (unsigned char)*text == byte
                             : size == 3 && memcmp (text, "\xef\xbf\xbd", 3) == 0;
    free (text);
    return right ? expected : -1;
}

static void
s_check_special (check_t *self, json_t *special)
{
    const char *name;
    json_t *id;
    size_t i = 0;
    self->kind = "special ids";
    json_object_foreach (special, name, id)
    {
        int32_t expected = (int32_t)json_integer_value (id), got = s_named (self, name, expected);
        if (s_report (self, i++, got == expected))
            printf ("    %s: expected %d, got %d\n", name, expected, got);
    }
    s_end (self);
}

//  ASCII bytes give no id exactly when they are listed.
static void
s_check_missing (check_t *self, const json_t *missing)
{
    self->kind = "missing bytes";
    for (int byte = 0; missing && byte < 128; byte++) {
        bool listed = false;
        for (size_t i = 0; i < json_array_size (missing); i++)
            listed |= json_integer_value (json_array_get (missing, i)) == byte;
        char letter = (char)byte;
        size_t count;
        free (tl_tokenizer_encode (self->tokenizer, &letter, 1, &count));
        if (s_report (self, (size_t)byte, (count == 0) == listed))
            printf ("    expected %s, got %zu\n", listed ? "no ids" : "an id", count);
    }
    s_end (self);
}

//  ---------------------------------------------------------------------------------------------
//  Prompts

static tl_said_t
s_said (tl_speaker_t speaker, const json_t *text)
{
    return (tl_said_t){speaker, (char *)json_string_value (text), json_string_length (text)};
}

//  ChatGLM-6B's two rows: places, which stop at the blank, and places behind sop.
static void
s_check_positions (check_t *self, size_t index, const json_t *rows, const tl_sequence_t *sequence)
{
    int32_t *row = tl_alloc (sequence->count * sizeof *row);
    for (size_t which = 0; which < 2; which++) {
        for (size_t i = 0; i < sequence->count; i++) {
            size_t behind = i < sequence->context ? 0 : i - sequence->context + 1;
            row[i] = (int32_t)(which ? behind : behind ? sequence->mask : i);
        }
        s_compare_ids (self, index, json_array_get (rows, which), row, sequence->count);
    }
    free (row);
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
        tl_layout_example (&sequence, self->tokenizer, &example, 1 << 20, false, NULL);
        s_compare_ids (self, i, json_object_get (one, "pair_ids"), sequence.ids, sequence.count);
        const json_t *context = json_object_get (one, "context_length"),
                     *positions = json_object_get (one, "position_ids");
        if (context && s_report (self, i, sequence.context == (size_t)json_integer_value (context)))
            printf ("    context: expected %d, got %zu\n", (int)json_integer_value (context),
                    sequence.context);
        if (positions)
            s_check_positions (self, i, positions, &sequence);
        free (sequence.ids);
    }
    s_end (self);
}

static void
s_check_chats (check_t *self, const json_t *chats)
{
    size_t i, k;
    const json_t *one, *message;
    self->kind = "chats";
    json_array_foreach (chats, i, one)
    {
        const json_t *messages = json_object_get (one, "messages");
        tl_said_t *said = tl_alloc ((json_array_size (messages) + 1) * sizeof *said);
        size_t count = 0;
        json_array_foreach (messages, k, message)
        {
            const char *role = json_string_value (json_object_get (message, "role"));
            tl_speaker_t speaker = strcmp (role, "user") == 0     ? TL_SAID_USER
                                   : strcmp (role, "system") == 0 ? TL_SAID_SYSTEM
                                                                  : TL_SAID_ASSISTANT;
            said[count++] = s_said (speaker, json_object_get (message, "content"));
        }
        tl_error_t err = {.text = ""};
        tl_prompt_t prompt;
        if (tl_prompt_chat (&prompt, self->tokenizer, said, count, &err) != 0)
            printf ("    %s\n", err.text);
        s_compare_ids (self, i, json_object_get (one, "ids"), prompt.ids, prompt.count);
        tl_prompt_clear (&prompt);
        free (said);
    }
    s_end (self);
}

//  ---------------------------------------------------------------------------------------------

//  What a model's config.json would say.
static tl_config_t
s_config (const json_t *golden)
{
    const json_t *special = json_object_get (golden, "special_ids");
    const char *name = json_string_value (json_object_get (golden, "tokenizer"));
    bool glm = json_object_get (special, "[gMASK]") != NULL;
    tl_family_t family = glm && json_object_get (special, "<n>") ? TL_FAMILY_CHATGLM
                         : glm                                   ? TL_FAMILY_GLM
                         : name && strstr (name, "qwen")         ? TL_FAMILY_QWEN2
                                                                 : TL_FAMILY_LLAMA;
    static const char *const sops[] = {"<sop>", "sop"},
                             *const boses[] = {"<s>", "<|begin_of_text|>"},
                             *const ends[] = {"<eop>", "<|im_end|>", "</s>", "<|endoftext|>"};
    tl_config_t config = {.family = family,
                          .vocab = 1 << 18,
                          .bos = -1,
                          .eos = -1,
                          .pad = -1,
                          .gmask = -1,
                          .mask = -1,
                          .sop = -1};
    const json_t *id;
#define TAKE(field, name)                                                                          \
    if (config.field < 0 && (id = json_object_get (special, name)))                                \
    config.field = (int32_t)json_integer_value (id)
    if (glm) {
        TAKE (gmask, "[gMASK]");
        TAKE (mask, "[MASK]");
        for (int i = 0; i < 2; i++)
            TAKE (sop, sops[i]);
    }
    for (int i = family == TL_FAMILY_GLM ? 1 : 0; i < 4; i++)
        TAKE (eos, ends[i]);
    for (int i = 0; i < 2 && !glm; i++)
        TAKE (bos, boses[i]);
    if (family == TL_FAMILY_CHATGLM)
        config.bos = config.sop;
#undef TAKE
    return config;
}

//  Whether it is the very file that the golden values come from; another one of the same content is as good.
static void
s_say_file (const json_t *golden, const char *path)
{
    const json_t *expected = json_object_get (golden, "sha256");
    const char *hex =
        json_string_value (json_is_array (expected) ? json_array_get (expected, 0) : expected);
    unsigned char hash[crypto_hash_sha256_BYTES];
    char got[2 * sizeof hash + 1] = "";
    tl_map_t map;
    if (hex && tl_map_open (&map, path, NULL) == 0) {
        crypto_hash_sha256 (hash, map.data, map.size);
        sodium_bin2hex (got, sizeof got, hash, sizeof hash);
        tl_map_close (&map);
        printf ("%s is %s\n", path,
                strcmp (got, hex) == 0 ? "the file that the values were made with"
                                       : "not the file that the values were made with");
    }
}

static int
s_check (const json_t *golden, const char *file)
{
    tl_config_t config = s_config (golden);
    tl_error_t err = {.text = ""};
    tl_tokenizer_t *tokenizer = tl_tokenizer_open (file, &config, &err);
    if (!tokenizer) {
        fprintf (stderr, "%s\n", err.text);
        return 1;
    }
#define GET(key) json_object_get (golden, key)
    check_t check = {.tokenizer = tokenizer, .family = config.family};
    s_say_file (golden, tl_tokenizer_path (tokenizer));
    s_check_special (&check, GET ("special_ids"));
    s_check_missing (&check, GET ("missing_bytes"));
    s_check_texts (&check, GET ("cases"), "texts", "text", "ids", tl_tokenizer_encode);
    s_check_no_prefix (&check, GET ("cases"));
    s_check_decoding (&check, GET ("cases"), "decoded");
    s_check_decoding (&check, GET ("partial_decodes"), "partial decodes");
    s_check_texts (&check, GET ("invalid_utf8"), "replaced bytes", "replaced", "ids",
                   tl_tokenizer_encode);
    s_check_raw (&check,
                 GET ("invalid_utf8_raw") ? GET ("invalid_utf8_raw") : GET ("invalid_utf8"));
    s_check_texts (&check, GET ("special_texts"), "special as text", "text", "plain_ids",
                   tl_tokenizer_encode);
    s_check_texts (&check, GET ("special_texts"), "special parsed", "text", "parsed_ids",
                   tl_tokenizer_encode_parsed);
    s_check_pairs (&check, GET ("pairs"));
    s_check_chats (&check, GET ("chats"));
    s_check_texts (&check, GET ("chats"), "chats rendered", "rendered", "ids",
                   tl_tokenizer_encode_parsed);
#undef GET
    tl_tokenizer_destroy (&tokenizer);
    printf ("%s: %s (%zu of %zu cases)\n", file, check.all_wrong ? "DIFFERS" : "agrees",
            check.all_cases - check.all_wrong, check.all_cases);
    return check.all_wrong || check.all_cases == 0 ? 1 : 0;
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
