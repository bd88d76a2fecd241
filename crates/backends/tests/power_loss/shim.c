/* This file is Copyright its original authors, visible in version control history.
 *
 * This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
 * http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
 * http://opensource.org/licenses/MIT>, at your option.
 *
 * A disk that loses its power. Preloaded into a process, it remembers every change to a file below
 * LEYDEN_SHIM_DIR that no flush has covered yet. At change or flush number LEYDEN_SHIM_AT it takes all
 * of them back, does some of them again, and ends the process:
 *
 *   LEYDEN_SHIM_MODE 0  none of them
 *                    1  some, in any combination
 *                    2  some, and of each only some sectors
 *                    3  flush number LEYDEN_SHIM_AT fails once with EIO and forgets; nothing ends
 *                    4  from there on every change fails with ENOSPC, until LEYDEN_SHIM_UNTIL
 *
 * For tests. Not modelled: changes of directories, and files that are mapped into memory. The one
 * such file there is, SQLite's index of its log (-shm), is left alone here, since to truncate it would
 * kill the threads that use it; the test fills it with noise after a death. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SECTOR 512
#define CRASHED 77

struct change {
	struct change *next; /* older */
	dev_t dev;
	ino_t ino;
	char path[PATH_MAX];
	int resizes;
	off_t new_length; /* if it resizes */
	off_t offset;
	size_t length;
	unsigned char *written; /* what was written */
	unsigned char *before;  /* what was there, as far as there was anything */
	size_t before_length;
	off_t file_length; /* before */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct change *newest;
static long calls, at = -1, until = -1;
static int mode;
static uint64_t state = 1;
static const char *dir;
static int ready;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_fallocate)(int, int, off_t, off_t);

static long number(const char *name, long otherwise) {
	const char *text = getenv(name);
	return text ? atol(text) : otherwise;
}

static void set_up(void) {
	if (ready) return;
	ready = 1;
	real_write = dlsym(RTLD_NEXT, "write");
	real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
	real_writev = dlsym(RTLD_NEXT, "writev");
	real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
	real_fsync = dlsym(RTLD_NEXT, "fsync");
	real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
	real_fallocate = dlsym(RTLD_NEXT, "fallocate64");
	dir = getenv("LEYDEN_SHIM_DIR");
	at = number("LEYDEN_SHIM_AT", -1);
	until = number("LEYDEN_SHIM_UNTIL", -1);
	mode = (int)number("LEYDEN_SHIM_MODE", 0);
	state = (uint64_t)number("LEYDEN_SHIM_SEED", 1) * 2654435761u + 1;
}

static uint32_t any(void) {
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(state >> 33);
}

/* Whether it is a file below the directory; its path, then. */
static int is_ours(int fd, char *path) {
	char link[64];
	struct stat st;
	if (!dir || fstat(fd, &st) || !S_ISREG(st.st_mode)) return 0;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, PATH_MAX - 1);
	if (n <= 0) return 0;
	path[n] = 0;
	if (n > 4 && !strcmp(path + n - 4, "-shm")) return 0;
	return !strncmp(path, dir, strlen(dir));
}

static void power_loss(void) {
	/* Back, the newest first. */
	struct change *oldest = NULL;
	for (struct change *c = newest, *next; c; c = next) {
		next = c->next;
		int fd = open(c->path, O_RDWR | O_CLOEXEC);
		if (fd >= 0) {
			if (c->before_length) real_pwrite(fd, c->before, c->before_length, c->offset);
			real_ftruncate(fd, c->file_length);
			close(fd);
		}
		c->next = oldest;
		oldest = c;
	}
	/* And some again, the oldest first. */
	for (struct change *c = mode ? oldest : NULL; c; c = c->next) {
		if (any() % 2) continue;
		int fd = open(c->path, O_RDWR | O_CLOEXEC);
		if (fd < 0) continue;
		if (c->resizes) {
			real_ftruncate(fd, c->new_length);
		} else if (mode == 1) {
			real_pwrite(fd, c->written, c->length, c->offset);
		} else {
			for (size_t done = 0; done < c->length;) {
				size_t end = SECTOR - (size_t)((c->offset + (off_t)done) % SECTOR);
				size_t part = c->length - done < end ? c->length - done : end;
				if (any() % 2) real_pwrite(fd, c->written + done, part, c->offset + (off_t)done);
				done += part;
			}
		}
		close(fd);
	}
	_exit(CRASHED);
}

/* Counts; answers an error that is to be returned, or 0. */
static int count(int flushes) {
	long n = calls++;
	if (at < 0) return 0;
	if (mode <= 2 && n == at) power_loss();
	if (mode == 3 && flushes && n >= at) {
		at = -1;
		return EIO;
	}
	if (mode == 4 && !flushes && n >= at && (until < 0 || n < until)) return ENOSPC;
	return 0;
}

static struct change *remember(int fd, const char *path, off_t offset, size_t length) {
	struct stat st;
	fstat(fd, &st);
	struct change *c = calloc(1, sizeof *c);
	c->dev = st.st_dev;
	c->ino = st.st_ino;
	strcpy(c->path, path);
	c->offset = offset;
	c->length = length;
	c->file_length = st.st_size;
	off_t from = offset, to = offset + (off_t)length;
	if (to > st.st_size) to = st.st_size;
	if (to > from) {
		int reader = open(path, O_RDONLY | O_CLOEXEC);
		c->before = malloc((size_t)(to - from));
		ssize_t n = pread(reader, c->before, (size_t)(to - from), from);
		c->before_length = n > 0 ? (size_t)n : 0;
		close(reader);
	}
	c->next = newest;
	newest = c;
	return c;
}

/* What was remembered last did not happen. */
static void forget_last(void) {
	struct change *c = newest;
	newest = c->next;
	free(c->written);
	free(c->before);
	free(c);
}

static void flushed(int fd) {
	struct stat st;
	fstat(fd, &st);
	for (struct change **link = &newest; *link;) {
		struct change *c = *link;
		if (c->dev == st.st_dev && c->ino == st.st_ino) {
			*link = c->next;
			free(c->written);
			free(c->before);
			free(c);
		} else {
			link = &c->next;
		}
	}
}

/* After a failed flush the kernel calls the pages clean: what was not written is gone. */
static void drop_pages(int fd) {
	struct stat st;
	fstat(fd, &st);
	for (struct change *c = newest; c; c = c->next) {
		if (c->dev != st.st_dev || c->ino != st.st_ino) continue;
		int writer = open(c->path, O_RDWR | O_CLOEXEC);
		if (c->before_length) real_pwrite(writer, c->before, c->before_length, c->offset);
		real_ftruncate(writer, c->file_length);
		close(writer);
	}
	flushed(fd);
}

static ssize_t change(int fd, const void *bytes, size_t length, off_t offset, int moves) {
	char path[PATH_MAX];
	set_up();
	if (!is_ours(fd, path)) {
		return moves ? real_write(fd, bytes, length) : real_pwrite(fd, bytes, length, offset);
	}
	pthread_mutex_lock(&lock);
	int error = count(0);
	ssize_t n = -1;
	if (!error) {
		struct stat st;
		fstat(fd, &st);
		if (moves) offset = fcntl(fd, F_GETFL) & O_APPEND ? st.st_size : lseek(fd, 0, SEEK_CUR);
		struct change *c = remember(fd, path, offset, length);
		c->written = malloc(length ? length : 1);
		memcpy(c->written, bytes, length);
		n = moves ? real_write(fd, bytes, length) : real_pwrite(fd, bytes, length, offset);
		error = errno;
		if (n >= 0) c->length = (size_t)n;
		else forget_last();
	}
	pthread_mutex_unlock(&lock);
	if (n < 0) errno = error;
	return n;
}

ssize_t write(int fd, const void *bytes, size_t length) { return change(fd, bytes, length, 0, 1); }

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) {
	return change(fd, bytes, length, offset, 0);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
	return change(fd, bytes, length, offset, 0);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
	char path[PATH_MAX];
	set_up();
	if (!is_ours(fd, path)) return real_writev(fd, parts, count);
	/* One part is a short write, which is allowed. */
	return count > 0 ? change(fd, parts[0].iov_base, parts[0].iov_len, 0, 1) : 0;
}

static int resize(int fd, off_t length, int grows_only) {
	char path[PATH_MAX];
	struct stat st;
	set_up();
	if (!is_ours(fd, path)) return -2;
	pthread_mutex_lock(&lock);
	fstat(fd, &st);
	int error = count(0), done = -1;
	if (grows_only && length < st.st_size) length = st.st_size;
	if (!error) {
		off_t from = length < st.st_size ? length : st.st_size;
		struct change *c = remember(fd, path, from, (size_t)(st.st_size - from));
		c->resizes = 1;
		c->new_length = length;
		done = real_ftruncate(fd, length);
		error = errno;
		if (done) forget_last();
	}
	pthread_mutex_unlock(&lock);
	if (done) errno = error;
	return done;
}

int ftruncate64(int fd, off_t length) {
	int done = resize(fd, length, 0);
	return done == -2 ? real_ftruncate(fd, length) : done;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int fallocate64(int fd, int how, off_t offset, off_t length) {
	char path[PATH_MAX];
	set_up();
	if (how || !is_ours(fd, path)) return real_fallocate(fd, how, offset, length);
	return resize(fd, offset + length, 1);
}

int fallocate(int fd, int how, off_t offset, off_t length) {
	return fallocate64(fd, how, offset, length);
}

int posix_fallocate64(int fd, off_t offset, off_t length) {
	char path[PATH_MAX];
	set_up();
	if (!is_ours(fd, path)) return real_fallocate(fd, 0, offset, length) ? errno : 0;
	return resize(fd, offset + length, 1) ? errno : 0;
}

int posix_fallocate(int fd, off_t offset, off_t length) {
	return posix_fallocate64(fd, offset, length);
}

static int flush(int fd, int (*real)(int)) {
	char path[PATH_MAX];
	if (!is_ours(fd, path)) return real(fd);
	pthread_mutex_lock(&lock);
	int error = count(1);
	if (error) drop_pages(fd);
	else flushed(fd);
	pthread_mutex_unlock(&lock);
	/* What the disk has is what we say it has; a real flush would only cost time. */
	if (!error) return 0;
	errno = error;
	return -1;
}

int fsync(int fd) {
	set_up();
	return flush(fd, real_fsync);
}

int fdatasync(int fd) {
	set_up();
	return flush(fd, real_fdatasync);
}
