/*  checked: how the innermost loops are left out of a build with sanitizers, where a check at every load made a product
    fifty times slower than the rest of its test.

    A function that is TL_UNCHECKED carries no checks of its own; whoever calls it says with tl_check_span what it
    will touch. Under AddressSanitizer that is one look at the whole span, which must lie in one object; elsewhere
    it's nothing.                                                                                          */

#ifndef TL_KERNELS_CHECKED_H
#define TL_KERNELS_CHECKED_H

#include "assert.h"

#include <stddef.h>

#if defined __has_feature
#if __has_feature(address_sanitizer)
#define TL_WITH_ASAN
#endif
#elif defined __SANITIZE_ADDRESS__
#define TL_WITH_ASAN
#endif

#ifdef TL_WITH_ASAN

#include <sanitizer/asan_interface.h>

#define TL_UNCHECKED __attribute__ ((no_sanitize ("address", "undefined")))

static inline void
tl_check_span (const void *from, size_t bytes)
{
    tl_assert (!__asan_region_is_poisoned ((void *)from, bytes));
}

#else

#define TL_UNCHECKED

static inline void
tl_check_span (const void *from, size_t bytes)
{
}

#endif

#endif
