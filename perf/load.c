/* load: the load generator of perf/, in C so that it is never what is measured. perf/generator.py compiles it (gcc -O2 -pthread),
 * starts it inside pods and reads its one line of JSON. All times it reports are microseconds.
 *
 *   load serve    PORT PORTS                     echo server on PORT .. PORT+PORTS-1, until it is ended
 *   load pingpong HOST PORT CONNS BYTES SECONDS  each connection sends BYTES and waits for them, again and again
 *   load crr      HOST PORT PORTS THREADS SECONDS  each thread: connect, one byte each way, close, again and again
 *   load idle     HOST PORT PORTS COUNT          opens COUNT connections; each line of standard input tries all, its end closes
 *   load scrape   HOST PORT PATH SECONDS PAUSE   HTTP GET in a loop, a connection each, PAUSE ms between
 *
 * One blocking thread for each connection: that is what an application does, and what published figures of proxies used.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MAX_THREADS = 1024, MAX_BYTES = 1 << 20, WARM_UP = 100, TIMEOUT_SECONDS = 5 };

static struct sockaddr_in target;
static int ports = 1, message = 1;
static const char *path = "/";
static useconds_t pause_us;
static volatile int stop;
static pthread_barrier_t ready, go;

/* One thread's tally. Latencies are nanoseconds, up to 4.2 s. */
struct worker {
    pthread_t thread;
    unsigned number;
    uint32_t *latency;
    size_t count, room;
    unsigned long ok, failed, warm;
    unsigned long long bytes;
};

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void record(struct worker *w, uint64_t ns) {
    if (w->count == w->room) {
        w->room = w->room ? w->room * 2 : 65536;
        w->latency = realloc(w->latency, w->room * sizeof *w->latency);
        if (!w->latency) die("realloc");
    }
    w->latency[w->count++] = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
}

/* A connected socket, or -1. Every wait on it is bounded, so that a proxy that hangs ends as a failure. */
static int dial(int port_offset) {
    struct sockaddr_in to = target;
    struct timeval limit = {TIMEOUT_SECONDS, 0};
    int on = 1, s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0) return -1;
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    to.sin_port = htons((uint16_t)(ntohs(target.sin_port) + port_offset % ports));
    if (connect(s, (struct sockaddr *)&to, sizeof to) == 0) return s;
    close(s);
    return -1;
}

static int send_all(int s, const char *data, int size) {
    for (int done = 0; done < size;) {
        ssize_t n = send(s, data + done, (size_t)(size - done), MSG_NOSIGNAL);
        if (n <= 0) return 0;
        done += (int)n;
    }
    return 1;
}

static int echo(int s, char *data, int size) {
    if (!send_all(s, data, size)) return 0;
    for (int got = 0; got < size;) {
        ssize_t n = recv(s, data + got, (size_t)(size - got), 0);
        if (n <= 0) return 0;
        got += (int)n;
    }
    return 1;
}

static void *pingpong(void *argument) {
    struct worker *w = argument;
    char *data = malloc((size_t)message);
    int s = dial(0), alive = s >= 0 && data != NULL;
    if (data) memset(data, 'x', (size_t)message);
    for (int i = 0; alive && i < WARM_UP; i++, w->warm++) alive = echo(s, data, message);
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&go);
    while (alive && !stop) {
        uint64_t start = now_ns();
        if (!(alive = echo(s, data, message))) break;
        record(w, now_ns() - start);
        w->ok++;
    }
    w->failed += !alive;
    if (s >= 0) close(s);
    free(data);
    return NULL;
}

static void *crr(void *argument) {
    struct worker *w = argument;
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&go);
    /* The ports are taken in turn: one 4-tuple is not used again while it is in TIME_WAIT. */
    for (int turn = (int)w->number; !stop; turn = (turn + 1) % ports) {
        char byte = 'x';
        uint64_t start = now_ns();
        int s = dial(turn), good = s >= 0 && echo(s, &byte, 1);
        if (good) record(w, now_ns() - start);
        w->ok += (unsigned long)good;
        w->failed += (unsigned long)!good;
        if (s >= 0) close(s);
        if (!good) usleep(1000); /* no storm on what refuses */
    }
    return NULL;
}

static void *scrape(void *argument) {
    struct worker *w = argument;
    char request[512], answer[65536];
    int size = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: perf\r\nConnection: close\r\n\r\n", path);
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&go);
    while (!stop) {
        uint64_t start = now_ns();
        ssize_t n = 0, got = 0;
        int s = dial(0), good = s >= 0 && send_all(s, request, size);
        while (good && (n = recv(s, answer, sizeof answer, 0)) > 0) got += n;
        good = good && n == 0 && got > 0;
        if (good) record(w, now_ns() - start);
        usleep(good ? pause_us : 10000);
        w->bytes += (unsigned long long)got;
        w->ok += (unsigned long)good;
        w->failed += (unsigned long)!good;
        if (s >= 0) close(s);
    }
    return NULL;
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile(const uint32_t *sorted, size_t count, double share) {
    return count ? sorted[(size_t)((double)(count - 1) * share)] / 1e3 : 0;
}

/* Runs the threads for some seconds and prints what they counted; connections are open and warm before the clock starts. */
static int measure(void *(*work)(void *), int threads, double seconds) {
    static struct worker workers[MAX_THREADS];
    if (threads < 1 || threads > MAX_THREADS || seconds <= 0 || message < 1 || message > MAX_BYTES) return 2;
    pthread_barrier_init(&ready, NULL, (unsigned)threads + 1);
    pthread_barrier_init(&go, NULL, (unsigned)threads + 1);
    for (int i = 0; i < threads; i++) {
        workers[i].number = (unsigned)i;
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i])) die("pthread_create");
    }
    pthread_barrier_wait(&ready);
    uint64_t start = now_ns();
    pthread_barrier_wait(&go);
    usleep((useconds_t)(seconds * 1e6));
    stop = 1;
    double spent = (double)(now_ns() - start) / 1e9;
    struct worker all = {0};
    for (int i = 0; i < threads; i++) {
        struct worker *w = &workers[i];
        pthread_join(w->thread, NULL);
        for (size_t k = 0; k < w->count; k++) record(&all, w->latency[k]);
        all.ok += w->ok, all.failed += w->failed, all.warm += w->warm, all.bytes += w->bytes;
    }
    if (all.count) qsort(all.latency, all.count, sizeof *all.latency, ascending);
    printf("{\"ok\": %lu, \"failed\": %lu, \"warm_up\": %lu, \"seconds\": %.6f, \"bytes\": %llu, "
           "\"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"p999\": %.1f}\n",
           all.ok, all.failed, all.warm, spent, all.bytes, percentile(all.latency, all.count, .5),
           percentile(all.latency, all.count, .9), percentile(all.latency, all.count, .99), percentile(all.latency, all.count, .999));
    return 0;
}

static int idle(int count) {
    char byte = 'x', line[64];
    int open = 0, *sockets = malloc(sizeof *sockets * (size_t)(count > 0 ? count : 1));
    if (count < 1 || !sockets) return 2;
    for (int i = 0; i < count; i++) {
        sockets[i] = dial(i);
        open += sockets[i] >= 0 && echo(sockets[i], &byte, 1);
    }
    printf("{\"open\": %d}\n", open);
    while (fgets(line, sizeof line, stdin)) {
        int alive = 0;
        for (int i = 0; i < count; i++) alive += sockets[i] >= 0 && echo(sockets[i], &byte, 1);
        printf("{\"alive\": %d}\n", alive);
    }
    return 0;
}

static _Noreturn void serve(int first, int count) {
    static char data[MAX_BYTES];
    struct epoll_event event = {.events = EPOLLIN}, events[256];
    int on = 1, poll = epoll_create1(0), lowest = -1, highest = -1;
    if (poll < 0) die("epoll_create1");
    for (int i = 0; i < count; i++) {
        struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(first + i))};
        int s = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (s < 0 || bind(s, (struct sockaddr *)&here, sizeof here) || listen(s, 4096)) die("serve");
        lowest = i ? lowest : s, highest = s; /* nothing else is opened meanwhile: the listeners are one range of descriptors */
        event.data.fd = s;
        epoll_ctl(poll, EPOLL_CTL_ADD, s, &event);
    }
    printf("{\"serving\": %d}\n", count);
    for (;;) {
        int n = epoll_wait(poll, events, 256, -1);
        for (int i = 0; i < n; i++) {
            int s = events[i].data.fd;
            if (s >= lowest && s <= highest) {
                struct timeval limit = {TIMEOUT_SECONDS, 0};
                int c = accept4(s, NULL, NULL, SOCK_CLOEXEC);
                if (c < 0) continue;
                setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                setsockopt(c, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
                event.data.fd = c;
                epoll_ctl(poll, EPOLL_CTL_ADD, c, &event);
            } else {
                ssize_t got = recv(s, data, sizeof data, 0);
                if (got <= 0 || !send_all(s, data, (int)got)) close(s);
            }
        }
    }
}

static void aim(char **word) {
    target.sin_family = AF_INET;
    target.sin_port = htons((uint16_t)atoi(word[3]));
    if (inet_pton(AF_INET, word[2], &target.sin_addr) != 1) die("address");
}

int main(int count, char **word) {
    const char *mode = count > 1 ? word[1] : "";
    struct rlimit files;
    setvbuf(stdout, NULL, _IOLBF, 0);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (!strcmp(mode, "serve") && count == 4) serve(atoi(word[2]), atoi(word[3]));
    if (count > 4) aim(word);
    if (!strcmp(mode, "pingpong") && count == 7) {
        message = atoi(word[5]);
        return measure(pingpong, atoi(word[4]), atof(word[6]));
    }
    if (!strcmp(mode, "crr") && count == 7) {
        ports = atoi(word[4]) > 0 ? atoi(word[4]) : 1;
        return measure(crr, atoi(word[5]), atof(word[6]));
    }
    if (!strcmp(mode, "scrape") && count == 7) {
        path = word[4];
        pause_us = (useconds_t)(atof(word[6]) * 1000);
        return measure(scrape, 1, atof(word[5]));
    }
    if (!strcmp(mode, "idle") && count == 6) {
        ports = atoi(word[4]) > 0 ? atoi(word[4]) : 1;
        return idle(atoi(word[5]));
    }
    fputs("load: see the head of load.c\n", stderr);
    return 2;
}
