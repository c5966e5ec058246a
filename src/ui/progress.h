/*  progress: one line on stderr that is rewritten in place on a terminal, and otherwise said now and
    then, so that a log file does not fill up with it.                                             */

#ifndef TL_PROGRESS_H
#define TL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    bool terminal;   //  stderr is one
    bool open;       //  a line without its newline stands on the terminal
    int64_t last_ms; //  when something was last written; 0: never
} tl_progress_t;

void tl_progress_init (tl_progress_t *self);
//  Writes the line; not more often than 10 times a second on a terminal, every 10 seconds elsewhere,
//  unless last says that no other line follows soon.
void tl_progress_line (tl_progress_t *self, bool last, const char *format, ...)
    __attribute__ ((format (printf, 3, 4)));
//  Ends a line that stands open, so that other text can follow.
void tl_progress_end (tl_progress_t *self);

//  "1h02m", "3m20s", "12s" into text [16].
void tl_duration (char text[16], double seconds);

#endif
