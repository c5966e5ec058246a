/*  log: one line an event on stderr, "HH:MM:SS.mmm level who: text". The level comes from TL_LOG
    (error, warn, info, debug; default info) or tl_log_level. Secrets never go here, only
    fingerprints.                                                                                 */

#ifndef TL_LOG_H
#define TL_LOG_H

typedef enum { TL_LOG_ERROR, TL_LOG_WARN, TL_LOG_INFO, TL_LOG_DEBUG } tl_log_level_t;

//  Name that stands before every line of this process, e.g. "client/north". Copied, 63 bytes kept.
void tl_log_name (const char *name);
//  Of whom this thread's lines are from now on, where a process is several: stands behind its name. Lent; NULL: of itself.
void tl_log_of (const char *who);
const char *tl_log_who (void);
void tl_log_level (tl_log_level_t level);
//  Lines, without their newline, go to sink in place of stderr; NULL: to stderr again. For a process of one thread that
//  has a screen of its own there.
void tl_log_to (void (*sink) (void *arg, const char *line), void *arg);
void tl_log (tl_log_level_t level, const char *format, ...) __attribute__ ((format (printf, 2, 3)));

#define tl_error(...) tl_log (TL_LOG_ERROR, __VA_ARGS__)
#define tl_warn(...) tl_log (TL_LOG_WARN, __VA_ARGS__)
#define tl_info(...) tl_log (TL_LOG_INFO, __VA_ARGS__)
#define tl_debug(...) tl_log (TL_LOG_DEBUG, __VA_ARGS__)

#endif
