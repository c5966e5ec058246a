/*  spm: the little of SentencePiece that the tokenizer needs, behind C functions; libsentencepiece has no C
    API of its own. No exception crosses it. Private to src/data.                                   */

#ifndef TL_DATA_SPM_H
#define TL_DATA_SPM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tl_spm tl_spm_t;

//  A serialised model in memory, copied. It must have been checked (spm_file.h). NULL and the library's words in reason
//  [reason_size] on failure.
tl_spm_t *tl_spm_open (const void *data, size_t size, char *reason, size_t reason_size);
void tl_spm_destroy (tl_spm_t **self_p);

//  Fresh results from malloc; NULL only when the library refuses.
int32_t *tl_spm_encode (const tl_spm_t *self, const char *text, size_t size, size_t *count);
//  For tests: what the library makes of ids, whose rules decoder.c has as well.
char *tl_spm_decode (const tl_spm_t *self, const int32_t *ids, size_t count, size_t *size);

#ifdef __cplusplus
}
#endif

#endif
