// What the load generators share: options, clocks, latencies, the byte pattern, connections.
//
// A generator says "ready" when its connections stand, waits for a line on standard input, warms
// up, measures, and ends with one line of JSON. All counts and times are bounded.
#pragma once
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 20000, MOST_PORTS = 1024, MOST_SECONDS = 60 };
static const uint64_t NS = 1000000000, PATIENCE = 2000000000, WARM_UP = 150000000;

static struct {
    int port, connections, idle, window, ports, every_us;
    size_t size;
    double seconds;
    bool flood;
    const char *from;        // the address to send from
    const char *clocks[16];  // the files of the server's CPU time
    int clock_count;
} options = {.connections = 1, .window = 1, .ports = 1, .size = 64, .seconds = 1, .from = "127.0.0.1"};

__attribute__((noreturn, format(printf, 1, 2))) static inline void give_up(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static inline void read_options(int count, char **words)
{
    for (int letter; (letter = getopt(count, words, "a:c:e:fi:p:s:t:u:w:")) != -1;)
        switch (letter) {
        case 'a': options.from = optarg; break;
        case 'c': options.connections = atoi(optarg); break;
        case 'e': options.every_us = atoi(optarg); break;
        case 'f': options.flood = true; break;
        case 'i': options.idle = atoi(optarg); break;
        case 'p': options.ports = atoi(optarg); break;
        case 's': options.size = atol(optarg); break;
        case 't': options.seconds = atof(optarg); break;
        case 'u': options.clocks[options.clock_count++ % 16] = optarg; break;
        case 'w': options.window = atoi(optarg); break;
        default: exit(2);
        }
    if (optind + 1 != count || options.connections < 1 || options.idle < 0 ||
        options.connections + options.idle > MOST_CONNECTIONS || options.window < 1 ||
        options.every_us < 0 || options.every_us > 1000000 ||
        options.window > 16384 || options.ports < 1 || options.ports > MOST_PORTS ||
        options.size < 1 || options.size > 1 << 20 || options.seconds <= 0 ||
        options.seconds > MOST_SECONDS)
        give_up("usage: %s [-c CONNECTIONS] [-e US] [-i IDLE] [-w WINDOW] [-p PORTS] "
                "[-s BYTES] [-a FROM] [-f] [-t SECONDS] [-u CPU_CLOCK]... PORT", words[0]);
    options.port = atoi(words[optind]);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    alarm(2 * MOST_SECONDS); // whatever happens
}

// ---- clocks -------------------------------------------------------------------------------------

static inline uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * NS + t.tv_nsec;
}

static inline uint64_t own_cpu_us(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000ull + u.ru_utime.tv_usec +
           u.ru_stime.tv_usec;
}

// What a clock says: cpu.stat of a cgroup begins with "usage_usec N"; in /proc/PID/stat it is the
// 14th to 17th word (user, system, and those of children), in ticks.
static inline uint64_t clock_us(const char *path)
{
    char text[1024], *at;
    unsigned long us = 0, t[4];
    FILE *file = fopen(path, "r");
    if (!file) // that process has ended
        return 0;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    if (sscanf(text, "usage_usec %lu", &us) != 1 && (at = strrchr(text, ')')) &&
        sscanf(at + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %lu %lu", &t[0], &t[1],
               &t[2], &t[3]) == 4)
        us = (t[0] + t[1] + t[2] + t[3]) * (1000000 / sysconf(_SC_CLK_TCK));
    return us;
}

static inline uint64_t server_cpu_us(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < options.clock_count && i < 16; i++)
        sum += clock_us(options.clocks[i]);
    return sum;
}

// ---- the timed part -----------------------------------------------------------------------------

// It reads the clocks at both ends itself: a driver that is told by a pipe would read them as late
// as the scheduler lets it.
static struct {
    uint64_t begin, end, server_us, load_us, messages, total; // total: also those not timed
    enum { WARMING, COUNTING, OVER } phase;
} timed;

static inline void wait_for_start(void)
{
    puts("ready");
    fflush(stdout);
    if (getchar() == EOF)
        exit(1);
    timed.begin = now() + WARM_UP;
    timed.end = timed.begin + options.seconds * NS;
}

// Takes note of the time; called in each turn of a generator's loop. True once it is over.
static inline bool is_over(uint64_t t)
{
    if (timed.phase == WARMING && t >= timed.begin) {
        timed.server_us = server_cpu_us(), timed.load_us = own_cpu_us();
        timed.begin = now(), timed.phase = COUNTING;
    } else if (timed.phase == COUNTING && t >= timed.end) {
        timed.server_us = server_cpu_us() - timed.server_us;
        timed.load_us = own_cpu_us() - timed.load_us;
        timed.end = t, timed.phase = OVER;
    }
    return timed.phase == OVER;
}

// ---- latencies, in buckets that are 1.6 % wide ----------------------------------------------------

static uint64_t buckets[4096];

static inline void message_took(uint64_t ns)
{
    timed.total++;
    if (timed.phase != COUNTING)
        return;
    unsigned shift = ns < 128 ? 0 : 57 - __builtin_clzll(ns);
    buckets[64 * shift + (ns >> shift)]++;
    timed.messages++;
}

static inline double quantile_us(double q)
{
    uint64_t seen = 0;
    for (unsigned i = 0; i < 4096; i++)
        if (buckets[i] && (seen += buckets[i]) >= timed.messages * q) {
            unsigned shift = i < 128 ? 0 : i / 64 - 1;
            return (((uint64_t)(i - 64 * shift) << shift) + (1ull << shift) / 2) / 1e3;
        }
    return 0;
}

// ---- faults -------------------------------------------------------------------------------------

static struct {
    uint64_t count;
    const char *first;
} faults;

static inline void fault(const char *what)
{
    if (!faults.count++)
        faults.first = what;
}

static inline int print_result(uint64_t lost)
{
    printf("{\"messages\": %lu, \"seconds\": %.6f, \"p50_us\": %.3f, \"p99_us\": %.3f, "
           "\"server_us\": %lu, \"load_us\": %lu, \"lost\": %lu, \"total\": %lu, "
           "\"errors\": %lu, \"trouble\": \"%s\"}\n",
           timed.messages, (timed.end - timed.begin) / 1e9, quantile_us(.5), quantile_us(.99),
           timed.server_us, timed.load_us, lost, timed.total, faults.count, faults.first ? faults.first : "");
    return 0;
}

// ---- the pattern: byte p of a stream is pattern byte p mod PERIOD --------------------------------

// PERIOD is prime, so bytes that are lost, doubled or moved by any usual size are seen at once.
enum { PERIOD = 65521, SPAN = 1 << 20 };
static unsigned char pattern[PERIOD + SPAN];

static inline void make_pattern(void)
{
    uint32_t x = 2463534242u;
    for (int i = 0; i < PERIOD + SPAN; i++) {
        x ^= x << 13, x ^= x >> 17, x ^= x << 5;
        pattern[i] = i < PERIOD ? x >> 24 : pattern[i - PERIOD];
    }
}

static inline const unsigned char *pattern_at(uint64_t position)
{
    return pattern + position % PERIOD;
}

// ---- connections --------------------------------------------------------------------------------

static inline struct sockaddr_in address(const char *host, int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (!inet_aton(host, &a.sin_addr))
        give_up("%s is not an IPv4 address", host);
    return a;
}

// A TCP socket on the next local port of a wide range. A port in TIME_WAIT can be had again
// after a second on the loopback (tcp_tw_reuse); the kernel's own search among so many would cost
// more than the connection.
static inline int bound_socket(int flags)
{
    static unsigned turn;
    const int one = 1;
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (fd < 0)
        give_up("socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    turn = turn ? turn : time(NULL) * 104729u;
    for (int tries = 0; tries < 1000; tries++) {
        local.sin_port = htons(10240 + turn++ % 55000);
        if (!bind(fd, (struct sockaddr *)&local, sizeof local))
            return fd;
    }
    give_up("no free local port");
}

// A connection over which the byte at `position` has gone and come back, so that the server has
// surely accepted it.
static inline int confirmed_connection(uint64_t position)
{
    struct sockaddr_in server = address("127.0.0.1", options.port);
    const struct timeval limit = {.tv_sec = 5};
    const int one = 1;
    unsigned char c = 0;
    for (int tries = 0;; tries++) {
        int fd = bound_socket(0);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (!connect(fd, (struct sockaddr *)&server, sizeof server)) {
            if (send(fd, pattern_at(position), 1, MSG_NOSIGNAL) == 1 && recv(fd, &c, 1, 0) == 1 &&
                c == *pattern_at(position))
                return fd;
            give_up("no echo on a new connection: %s", strerror(errno));
        }
        if (errno != EADDRNOTAVAIL || tries == 5000) // that port is in TIME_WAIT for less than 1 s
            give_up("connect: %s", strerror(errno));
        close(fd);
    }
}
