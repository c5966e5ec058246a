//  memory: allocation that never returns NULL (running out is fatal, with a sentence) and is 64-byte
//  aligned for tensors. Sizes that come from input are checked before they come here.

#ifndef TL_MEMORY_H
#define TL_MEMORY_H

#include <stddef.h>

void *tl_alloc (size_t size);         //  zeroed; free () releases
void *tl_alloc_aligned (size_t size); //  64-byte aligned, not zeroed; free () releases
char *tl_strdup (const char *text);   //  free () releases
char *tl_format (const char *format, ...) __attribute__ ((format (printf, 1, 2))); //  free ()

//  From here on what is freed stays with the process, but for blocks above a few MB: for programs that free and need
//  again what a step's tensors take. Untouched, glibc gives it back and the kernel has to clear every page anew.
void tl_memory_keep (void);

#endif
