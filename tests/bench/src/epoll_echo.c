// The reference for TCP: one thread, one epoll, no limits, no accounting, no log.
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct {
    int fd;
    char *pending; // what the peer has not taken yet; while there is any, nothing is read
    size_t at, length;
} connection;

static int poller;

static void watch(connection *c, int operation, unsigned events)
{
    struct epoll_event e = {.events = events, .data.ptr = c};
    epoll_ctl(poller, operation, c->fd, &e);
}

static void end(connection *c)
{
    close(c->fd);
    free(c->pending);
    free(c);
}

static void accept_all(int listener)
{
    const int one = 1;
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        watch(c, EPOLL_CTL_ADD, EPOLLIN);
    }
}

static void write_on(connection *c)
{
    ssize_t n = send(c->fd, c->pending + c->at, c->length - c->at, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN)
        return end(c);
    c->at += n > 0 ? n : 0;
    if (c->at == c->length) {
        free(c->pending);
        c->pending = NULL;
        watch(c, EPOLL_CTL_MOD, EPOLLIN);
    }
}

static void echo(connection *c)
{
    static char buffer[65536];
    ssize_t got = recv(c->fd, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0)
        return end(c);
    ssize_t sent = send(c->fd, buffer, got, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        return end(c);
    if (sent < got) {
        c->at = 0, c->length = got - (sent > 0 ? sent : 0);
        c->pending = memcpy(malloc(c->length), buffer + got - c->length, c->length);
        watch(c, EPOLL_CTL_MOD, EPOLLOUT);
    }
}

int main(int count, char **words)
{
    const int one = 1;
    struct rlimit limit;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                            .sin_port = htons(count > 1 ? atoi(words[1]) : 7)};
    connection listener = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    setsockopt(listener.fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener.fd, (struct sockaddr *)&a, sizeof a) || listen(listener.fd, 4096))
        return perror("epoll_echo"), 1;
    poller = epoll_create1(0);
    watch(&listener, EPOLL_CTL_ADD, EPOLLIN);
    for (;;) {
        struct epoll_event events[512];
        int n = epoll_wait(poller, events, 512, -1);
        for (int i = 0; i < n; i++) {
            connection *c = events[i].data.ptr;
            if (c == &listener)
                accept_all(c->fd);
            else
                (c->pending ? write_on : echo)(c);
        }
    }
}
