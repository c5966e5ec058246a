//  tiny_tokenizer: see tiny_tokenizer.h. A ModelProto is a protobuf message: pieces (field 1), trainer_spec
//  (2), normalizer_spec (3); wire format is tag, length, bytes.

#include "tiny_tokenizer.h"

#include "assert.h"
#include "file.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER = 4, BYTE = 6 };
enum { ROOM = 1 << 16 };

typedef struct {
    unsigned char *data;
    size_t size;
    size_t pieces;
} proto_t;

static void
s_varint (proto_t *self, uint64_t value)
{
    for (; value >= 128; value >>= 7)
        self->data[self->size++] = (unsigned char)(value | 128);
    self->data[self->size++] = (unsigned char)value;
}

static void
s_bytes (proto_t *self, int field, const void *data, size_t size)
{
    s_varint (self, (uint64_t)field << 3 | 2);
    s_varint (self, size);
    memcpy (self->data + self->size, data, size);
    self->size += size;
}

static void
s_piece (proto_t *self, const char *text, float score, int type)
{
    unsigned char inside[128];
    proto_t piece = {inside, 0, 0};
    s_bytes (&piece, 1, text, strlen (text));
    inside[piece.size++] = 2 << 3 | 5; //  score: 32 bits, little endian
    memcpy (inside + piece.size, &score, sizeof score);
    piece.size += sizeof score;
    s_varint (&piece, 3 << 3);
    s_varint (&piece, (uint64_t)type);
    s_bytes (self, 1, inside, piece.size);
    self->pieces++;
}

static void
s_pieces (proto_t *self, tl_family_t family)
{
    char text[32];
    s_piece (self, "<unk>", 0, UNKNOWN);
    s_piece (self, "<s>", 0, CONTROL);
    s_piece (self, "</s>", 0, CONTROL);
    if (family == TL_FAMILY_CHATGLM) {
        s_piece (self, "<pad>", 0, CONTROL);
        s_piece (self, "<n>", 0, USER);
        s_piece (self, "<|tab|>", 0, USER);
        for (int i = 2; i <= 80; i++) {
            snprintf (text, sizeof text, "<|blank_%d|>", i);
            s_piece (self, text, 0, USER);
        }
    }
    for (int i = 0; i < 256; i++) {
        snprintf (text, sizeof text, "<0x%02X>", i);
        s_piece (self, text, 0, BYTE);
    }
    s_piece (self, "\xe2\x96\x81", -1, NORMAL); //  U+2581 stands for a space
    for (char letter = '!'; letter <= '~'; letter++) {
        text[0] = letter;
        text[1] = 0;
        s_piece (self, text, -2, NORMAL);
    }
    static const char *const last[] = {"[MASK]", "[gMASK]", "<sop>", "<eop>"};
    for (int i = 0; family == TL_FAMILY_CHATGLM && i < 4; i++)
        s_piece (self, last[i], 0, CONTROL);
}

//  Unigram for ChatGLM-6B, as the original; BPE for Llama. Both with byte fallback; identity normaliser.
static proto_t
s_model (tl_family_t family)
{
    unsigned char inside[128];
    proto_t self = {tl_alloc (ROOM), 0, 0}, trainer = {inside, 0, 0};
    s_pieces (&self, family);
    s_varint (&trainer, 3 << 3); //  model_type
    s_varint (&trainer, family == TL_FAMILY_CHATGLM ? 1 : 2);
    s_varint (&trainer, 35 << 3); //  byte_fallback
    s_varint (&trainer, 1);
    s_bytes (&self, 2, inside, trainer.size);
    proto_t normalizer = {inside, 0, 0};
    s_bytes (&normalizer, 1, "identity", 8);
    s_varint (&normalizer, 3 << 3); //  add_dummy_prefix
    s_varint (&normalizer, 1);
    s_varint (&normalizer, 4 << 3); //  remove_extra_whitespaces
    s_varint (&normalizer, 0);
    s_bytes (&self, 3, inside, normalizer.size);
    tl_assert (self.size < ROOM);
    return self;
}

size_t
tiny_tokenizer_vocab (tl_family_t family)
{
    proto_t model = s_model (family);
    free (model.data);
    //  ChatGLM2's tokenizer puts up to nine more behind the model's pieces: [gMASK], sop, <|user|> ...
    return model.pieces + (family == TL_FAMILY_GLM ? 9 : 0);
}

tl_config_t
tiny_tokenizer_config (tl_family_t family)
{
    const bool glm = family == TL_FAMILY_CHATGLM;
    const int32_t vocab = (int32_t)tiny_tokenizer_vocab (family);
    return (tl_config_t){.family = family,
                         .vocab = (size_t)vocab,
                         .max_positions = 4096,
                         .bos = glm ? vocab - 2 : 1,
                         .eos = glm ? vocab - 1 : 2,
                         .pad = glm ? 3 : -1,
                         .gmask = glm ? vocab - 3 : -1,
                         .mask = glm ? vocab - 4 : -1,
                         .sop = glm ? vocab - 2 : -1};
}

int
tiny_tokenizer_write (tl_family_t family, const char *directory, tl_error_t *err)
{
    proto_t model = s_model (family);
    char *path = tl_format ("%s/tokenizer.model", directory);
    int rc = tl_file_write (path, model.data, model.size, 0644, err);
    free (path);
    free (model.data);
    return rc;
}
