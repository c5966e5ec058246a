/*  assert: a check of our own logic that NDEBUG can't remove. Prints the expression, the place and a
    backtrace, then aborts. Never for input, files or peers: those get a tl_error_t.               */

//  This folder is on the include path, so libraries that ask for <assert.h> get this file: hand them the real one.
#ifdef __clang__
#pragma clang diagnostic ignored "-Winclude-next-absolute-path"
#endif
#include_next <assert.h>

#ifndef TL_ASSERT_H
#define TL_ASSERT_H

#define tl_assert(expression)                                                                      \
    ((expression) ? (void)0 : tl_assert_failed (#expression, __FILE__, __LINE__, __func__))

_Noreturn void tl_assert_failed (const char *expression, const char *file, int line,
                                 const char *function);

#endif
