//  bench_material: models and texts that benchmarks train on, the same every time, made in a directory of the bench.

#ifndef BENCH_MATERIAL_H
#define BENCH_MATERIAL_H

#include <stddef.h>
#include <stdio.h>
#include <stdint.h>

//  llama of hidden 576 x 30 blocks, vocabulary 49152 tied, random weights. Directory of it; the caller frees. Ends the
//  program with a sentence on failure.
char *bench_large (const char *trunkline, const char *dir, const char *log);
//  models/tiny-glm, or random weights of its config while it has none.
char *bench_tiny (const char *trunkline, const char *dir, const char *log);
//  256 examples longer than rows rows, which are cut to it. Path; the caller frees.
char *bench_rows (const char *dir, size_t rows);
//  As many words of a small vocabulary.
void bench_say (FILE *file, uint32_t *state, size_t words);

#endif
