/*  spm: C functions over libsentencepiece's C++ class. Takes bytes, gives malloc'd arrays; turns every
    exception into a failure value. Knows nothing of families or special tokens.                    */

#include "spm.h"

#include <sentencepiece_processor.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

struct tl_spm {
    sentencepiece::SentencePieceProcessor processor;
};

tl_spm_t *
tl_spm_open (const void *data, size_t size, char *reason, size_t reason_size)
{
    try {
        auto *self = new tl_spm;
        auto status = self->processor.LoadFromSerializedProto (
            std::string_view (static_cast<const char *> (data), size));
        if (status.ok ())
            return self;
        std::snprintf (reason, reason_size, "%s", status.ToString ().c_str ());
        delete self;
    } catch (const std::exception &problem) {
        std::snprintf (reason, reason_size, "%s", problem.what ());
    }
    return nullptr;
}

void
tl_spm_destroy (tl_spm_t **self_p)
{
    delete *self_p;
    *self_p = nullptr;
}

int32_t *
tl_spm_encode (const tl_spm_t *self, const char *text, size_t size, size_t *count)
{
    try {
        std::vector<int> ids;
        if (!self->processor.Encode (std::string_view (text, size), &ids).ok ())
            return nullptr;
        auto *out = static_cast<int32_t *> (std::malloc ((ids.size () + 1) * sizeof (int32_t)));
        for (size_t i = 0; out && i < ids.size (); i++)
            out[i] = ids[i];
        *count = ids.size ();
        return out;
    } catch (const std::exception &) {
        return nullptr;
    }
}

char *
tl_spm_decode (const tl_spm_t *self, const int32_t *ids, size_t count, size_t *size)
{
    try {
        std::string text;
        if (!self->processor.Decode (std::vector<int> (ids, ids + count), &text).ok ())
            return nullptr;
        auto *out = static_cast<char *> (std::malloc (text.size () + 1));
        if (out) {
            std::memcpy (out, text.data (), text.size ());
            out[text.size ()] = 0;
            *size = text.size ();
        }
        return out;
    } catch (const std::exception &) {
        return nullptr;
    }
}
