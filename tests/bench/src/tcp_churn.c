// Short TCP connections: connect, send BYTES, get them back, close; CONNECTIONS at a time.
#include "load.h"

enum { MOST_AT_ONCE = 1024 };
static const uint64_t LONGEST = 5000000000; // ns that one connection may take

typedef struct {
    int fd;
    size_t got;
    uint64_t base, since;
} connection;

static connection connections[MOST_AT_ONCE];
static int poller, live;

static void end(connection *c, const char *why)
{
    if (why)
        fault(why);
    close(c->fd);
    c->fd = 0;
    live--;
}

static void watch(connection *c, int operation, unsigned events)
{
    struct epoll_event e = {.events = events, .data.ptr = c};
    epoll_ctl(poller, operation, c->fd, &e);
}

static void write_on(connection *c, int operation)
{
    ssize_t n = send(c->fd, pattern_at(c->base), options.size, MSG_NOSIGNAL);
    if (n == (ssize_t)options.size)
        watch(c, operation, EPOLLIN);
    else if (n < 0 && errno == EAGAIN)
        watch(c, operation, EPOLLOUT);
    else
        end(c, "connect refused");
}

static bool begin(connection *c)
{
    static uint64_t serial;
    struct sockaddr_in server = address("127.0.0.1", options.port);
    *c = (connection){.fd = bound_socket(SOCK_NONBLOCK), .base = serial++ * 7919, .since = now()};
    live++;
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS) {
        // A port in TIME_WAIT for less than a second is no fault.
        end(c, errno == EADDRNOTAVAIL ? NULL : "connect refused");
        return false;
    }
    // On the loopback the connection stands by now, but for a server whose queue is full.
    write_on(c, EPOLL_CTL_ADD);
    return true;
}

static void read_on(connection *c)
{
    static unsigned char buffer[65536];
    ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
    if (n <= 0)
        return end(c, "connection lost");
    if (c->got + n > options.size || memcmp(buffer, pattern_at(c->base + c->got), n))
        return end(c, "wrong bytes");
    if ((c->got += n) == options.size) {
        end(c, NULL);
        message_took(now() - c->since);
    }
}

static void begin_all(void)
{
    for (int i = 0; i < options.connections; i++)
        if (!connections[i].fd && !begin(&connections[i]))
            break;
}

static void end_late(uint64_t t)
{
    for (int i = 0; i < options.connections; i++)
        if (connections[i].fd && t > connections[i].since + LONGEST)
            end(&connections[i], "no answer within 5 s");
}

int main(int count, char **words)
{
    read_options(count, words);
    if (options.connections > MOST_AT_ONCE || options.size > 16384)
        give_up("at most %d connections at a time and 16384 bytes", MOST_AT_ONCE);
    make_pattern();
    poller = epoll_create1(0);
    wait_for_start();
    for (;;) {
        struct epoll_event events[256];
        uint64_t t = now();
        if (!is_over(t))
            begin_all();
        else if (!live || t > timed.end + PATIENCE)
            break;
        int n = epoll_wait(poller, events, 256, live ? 20 : 1);
        for (int i = 0; i < n; i++)
            if (events[i].events & EPOLLOUT)
                write_on(events[i].data.ptr, EPOLL_CTL_MOD);
            else
                read_on(events[i].data.ptr);
        if (!n)
            end_late(t);
    }
    for (; live; live--)
        fault("no answer in the end");
    return print_result(0);
}
