//  What cmocka's own header needs before it.
#ifndef TL_TESTS_CMOCKA_ALL_H
#define TL_TESTS_CMOCKA_ALL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#endif
