/*  file: whole files in, whole files out. Nothing half-written ever has its final name.           */

#ifndef TL_FILE_H
#define TL_FILE_H

#include "error.h"

#include <stdbool.h>
#include <stddef.h>

//  A read-only mapping of a whole file. data is NULL when size is 0.
typedef struct {
    const unsigned char *data; //  first byte, page aligned
    size_t size;               //  bytes
} tl_map_t;

int tl_map_open (tl_map_t *self, const char *path, tl_error_t *err);
void tl_map_close (tl_map_t *self);
//  These bytes of a mapping won't be needed soon: their pages leave the process; reading brings them back.
void tl_map_forget (const void *data, size_t size);

//  Reads a file of at most limit bytes into a fresh buffer with a NUL after the last byte; size may be
//  NULL. The caller frees. NULL on failure.
char *tl_file_read (const char *path, size_t limit, size_t *size, tl_error_t *err);

//  Writes to path.tmp, fsyncs, renames to path, fsyncs the directory. mode like 0644 or 0600. Of a link the file that it
//  leads to is written; what is there and no file (a pipe, a terminal, a device) is written into as it is.
int tl_file_write (const char *path, const void *data, size_t size, int mode, tl_error_t *err);

//  The same with a checksum (XXH3) behind the last byte, for what must come back as it was: tl_sealed_read gives what was
//  written, or NULL and "PATH is damaged ...; use an earlier save" where any byte is another one.
int tl_sealed_write (const char *path, const void *data, size_t size, int mode, tl_error_t *err);
char *tl_sealed_read (const char *path, size_t limit, size_t *size, tl_error_t *err);

//  tl_file_write piece by piece. A failure of add or commit has dropped the file already; drop is safe then, and on a
//  zeroed struct with fd -1.
typedef struct {
    int fd;             //  -1: not open
    char *path, *where; //  final and present name; where NULL: what is written into as it is
} tl_writer_t;

int tl_writer_open (tl_writer_t *self, const char *path, int mode, tl_error_t *err);
int tl_writer_add (tl_writer_t *self, const void *data, size_t size, tl_error_t *err);
int tl_writer_commit (tl_writer_t *self, tl_error_t *err);
void tl_writer_drop (tl_writer_t *self);

//  A directory made under path.tmp and renamed to path as a whole when done; an older path is
//  replaced. tl_dir_begin writes path.tmp into where.
int tl_dir_begin (const char *path, char *where, size_t where_size, tl_error_t *err);
int tl_dir_commit (const char *path, tl_error_t *err);

int tl_mkdirs (const char *path, tl_error_t *err); //  like mkdir -p
//  0 if files can be made in the directory path, or if it isn't there, if it can be made. That is found out by making an
//  empty directory in the nearest that is there, and removing it: nothing stays.
int tl_dir_check (const char *path, tl_error_t *err);
int tl_remove_tree (const char *path); //  like rm -rf; 0 when nothing is left
//  Makes the directory and holds the file `lock` in it, with this process's id, until tl_dir_unlock or its end, however it
//  ends; a process that it starts has no part in it. The file stays. -1: another process holds it: "PATH is in use by
//  another process (pid N): advice". A file system without locks holds nobody up.
int tl_dir_lock (const char *path, const char *advice, int *lock, tl_error_t *err);
void tl_dir_unlock (int *lock); //  *lock is -1 then; nothing is done where it is -1 already
bool tl_exists (const char *path);

#endif
