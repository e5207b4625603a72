// Steady TCP load: CONNECTIONS with one message of BYTES on the way each, beside IDLE silent ones.
//
// With -e there is no more than one message in that time on each connection, so that most of the
// messages are not those of moments in which the server is idle. Such a load has a real-time priority,
// as it is the server's delay that is measured and not that of other loads.
#include "load.h"
#include <sched.h>

typedef struct {
    int fd;
    bool writing, dead;
    uint64_t base, sent, got, goal; // positions in its stream; base: its own part of the pattern
    uint64_t since;                 // when the message on the way was begun
} connection;

static connection connections[MOST_CONNECTIONS];
static int idle[MOST_CONNECTIONS];
static int poller;

static void watch(connection *c, int operation)
{
    struct epoll_event e = {.events = EPOLLIN | (c->writing ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, operation, c->fd, &e);
}

static void end(connection *c, const char *why)
{
    fault(why);
    c->dead = true;
    close(c->fd);
}

static void write_on(connection *c)
{
    uint64_t left = c->goal - c->sent;
    ssize_t n = send(c->fd, pattern_at(c->base + c->sent), left, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN)
        return end(c, "connection lost");
    c->sent += n > 0 ? n : 0;
    bool writing = c->sent < c->goal;
    if (writing != c->writing) {
        c->writing = writing;
        watch(c, EPOLL_CTL_MOD);
    }
}

static void begin_message(connection *c)
{
    c->goal += options.size;
    c->since = now();
    write_on(c);
}

static bool is_due(const connection *c, uint64_t t)
{
    return !c->dead && c->got == c->goal && c->since + options.every_us * 1000ull <= t;
}

static void read_on(connection *c)
{
    static unsigned char buffer[SPAN];
    ssize_t n = recv(c->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        return end(c, "connection lost");
    if (c->got + n > c->sent || memcmp(buffer, pattern_at(c->base + c->got), n))
        return end(c, "wrong bytes");
    c->got += n;
    if (c->got < c->goal)
        return;
    message_took(now() - c->since);
    if (timed.phase != OVER && (!options.every_us || is_due(c, now())))
        begin_message(c);
}

// Waits for events; with -e for no longer than until the next message is due.
static int wait_events(struct epoll_event *events, int most)
{
    if (!options.every_us)
        return epoll_wait(poller, events, most, 20);
    uint64_t t = now(), wait = 20000000;
    for (int i = 0; i < options.connections; i++) {
        connection *c = &connections[i];
        if (timed.phase != OVER && is_due(c, t))
            begin_message(c);
        uint64_t due = c->since + options.every_us * 1000ull;
        if (!c->dead && c->got == c->goal && due - t < wait)
            wait = due > t ? due - t : 0;
    }
    struct timespec limit = {.tv_nsec = wait};
    return epoll_pwait2(poller, events, most, &limit, NULL);
}

static void open_all(void)
{
    for (int i = 0; i < options.idle; i++)
        idle[i] = confirmed_connection(i);
    for (int i = 0; i < options.connections; i++) {
        connection *c = &connections[i];
        *c = (connection){.base = i * 7919ull};
        c->fd = confirmed_connection(c->base++);
        watch(c, EPOLL_CTL_ADD);
    }
}

static bool all_home(void)
{
    for (int i = 0; i < options.connections; i++)
        if (!connections[i].dead && connections[i].got < connections[i].goal)
            return false;
    return true;
}

static void ask_idle(void)
{
    struct timeval limit = {.tv_usec = 200000};
    unsigned char c;
    for (int i = 0; i < options.idle; i++) {
        setsockopt(idle[i], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        if (send(idle[i], pattern_at(i + 1), 1, MSG_NOSIGNAL) != 1 || recv(idle[i], &c, 1, 0) != 1 ||
            c != *pattern_at(i + 1))
            fault("an idle connection is dead");
        if (faults.count > 20) // each may take its whole time
            return;
    }
}

int main(int count, char **words)
{
    read_options(count, words);
    make_pattern();
    poller = epoll_create1(0);
    open_all();
    if (options.every_us) // without root it goes on as it is
        sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1});
    wait_for_start();
    for (int i = 0; i < options.connections; i++)
        begin_message(&connections[i]);
    for (;;) {
        struct epoll_event events[512];
        int n = wait_events(events, 512);
        uint64_t t = now();
        if (is_over(t) && (all_home() || t > timed.end + PATIENCE))
            break;
        for (int i = 0; i < n; i++) {
            connection *c = events[i].data.ptr;
            if (!c->dead && events[i].events & EPOLLOUT)
                write_on(c);
            if (!c->dead && events[i].events & ~EPOLLOUT)
                read_on(c);
        }
    }
    if (!all_home())
        fault("a message did not come back");
    ask_idle();
    return print_result(0);
}
