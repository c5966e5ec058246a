//  clock: monotonic time and this process's own resources.

#ifndef TL_CLOCK_H
#define TL_CLOCK_H

#include <stddef.h>
#include <stdint.h>

int64_t tl_clock_us (void);      //  monotonic microseconds
int64_t tl_clock_ms (void);      //  monotonic milliseconds
int64_t tl_clock_wall_ms (void); //  milliseconds since 1970
size_t tl_memory_peak (void);    //  VmHWM in bytes, 0 if unknown
size_t tl_memory_now (void);     //  VmRSS in bytes, 0 if unknown

#endif
