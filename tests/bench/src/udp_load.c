// UDP load: at most WINDOW datagrams of BYTES on the way, from PORTS local ports in turn.
//
// A datagram that is not back within 250 ms is lost, and another one takes its place. With -f
// (flood) no answer is waited for: what the server took is what this network namespace received,
// so no other program may use it.
#include "load.h"

enum { BATCH = 64, RING = 1 << 16 };
static const uint64_t LOST_AFTER = 250000000; // ns

static unsigned char out[BATCH][65536], in[BATCH][65536];
static struct mmsghdr to_send[BATCH], received[BATCH];
static uint64_t sent_at[RING]; // by sequence number; 0: not on the way
static uint64_t next, oldest, flying, lost;
static int sockets[MOST_PORTS], poller;

static void open_all(void)
{
    struct sockaddr_in server = address("127.0.0.1", options.port);
    struct sockaddr_in local = address(options.from, 0);
    const int bytes = 4 << 20;
    for (int i = 0; i < options.ports; i++) {
        int fd = sockets[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
        if (bind(fd, (struct sockaddr *)&local, sizeof local) ||
            connect(fd, (struct sockaddr *)&server, sizeof server))
            give_up("a UDP socket from %s: %s", options.from, strerror(errno));
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
    }
}

static void make_batches(void)
{
    static struct iovec out_at[BATCH], in_at[BATCH];
    for (int i = 0; i < BATCH; i++) {
        out_at[i] = (struct iovec){out[i], options.size};
        in_at[i] = (struct iovec){in[i], sizeof in[i]};
        to_send[i].msg_hdr = (struct msghdr){.msg_iov = &out_at[i], .msg_iovlen = 1};
        received[i].msg_hdr = (struct msghdr){.msg_iov = &in_at[i], .msg_iovlen = 1};
    }
}

// Sends up to `n` datagrams from the next port: a sequence number, then the pattern.
static int send_some(int n)
{
    static unsigned turn;
    for (int i = 0; i < n; i++) {
        uint64_t number = next + i;
        memcpy(out[i], &number, sizeof number);
        memcpy(out[i] + 8, pattern_at(number * 31), options.size - 8);
    }
    uint64_t t = now();
    n = sendmmsg(sockets[turn++ % options.ports], to_send, n, MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN && errno != ENOBUFS && errno != ECONNREFUSED)
        fault(strerror(errno));
    for (int i = 0; i < n; i++)
        sent_at[(next + i) % RING] = t;
    next += n > 0 ? n : 0;
    return n;
}

static void fill_window(void)
{
    int each = options.window / options.ports;
    each = each < 1 ? 1 : each > BATCH ? BATCH : each;
    while (flying < (uint64_t)options.window && next - oldest < RING - BATCH) {
        int room = options.window - flying, want = room < each ? room : each;
        int sent = send_some(want);
        flying += sent > 0 ? sent : 0;
        if (sent < want)
            break;
    }
}

static void give_up_late(uint64_t t)
{
    for (; oldest < next; oldest++) {
        uint64_t *sent = &sent_at[oldest % RING];
        if (*sent && t < *sent + LOST_AFTER)
            break;
        if (*sent)
            *sent = 0, flying--, lost += timed.phase == COUNTING;
    }
}

static void receive_some(int fd)
{
    int n = recvmmsg(fd, received, BATCH, MSG_DONTWAIT, NULL);
    if (n < 0 && errno != EAGAIN)
        fault(strerror(errno));
    uint64_t t = now(), number;
    for (int i = 0; i < n; i++) {
        memcpy(&number, in[i], sizeof number);
        uint64_t *sent = &sent_at[number % RING];
        if (received[i].msg_len != options.size ||
            memcmp(in[i] + 8, pattern_at(number * 31), options.size - 8))
            fault("wrong bytes");
        else if (number >= next || number < oldest || !*sent)
            fault("an answer that comes twice, or later than 250 ms");
        else {
            message_took(t - *sent);
            *sent = 0, flying--;
        }
    }
}

static void exchange(void)
{
    for (;;) {
        struct epoll_event events[64];
        uint64_t t = now();
        give_up_late(t);
        if (!is_over(t))
            fill_window();
        else if (!flying)
            return;
        int n = epoll_wait(poller, events, 64, 20);
        for (int i = 0; i < n; i++)
            receive_some(events[i].data.fd);
    }
}

// InDatagrams of "Udp:" in /proc/net/snmp: what was received, that is, taken from a socket.
static uint64_t taken(void)
{
    unsigned long n = 0;
    char line[1024];
    FILE *file = fopen("/proc/net/snmp", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "Udp: %lu", &n) == 1)
            break;
    if (file)
        fclose(file);
    return n;
}

static void flood(void)
{
    uint64_t before = 0;
    while (!is_over(now())) {
        if (!before && timed.phase == COUNTING)
            before = taken();
        send_some(BATCH);
    }
    timed.messages = taken() - before;
    for (int i = 0; i < options.ports; i++)
        if (recv(sockets[i], in, sizeof in, MSG_DONTWAIT) >= 0)
            fault("an answer to what was to be refused");
}

int main(int count, char **words)
{
    read_options(count, words);
    if (options.size < 16 || options.size > 65507)
        give_up("a datagram has 16 to 65507 bytes");
    make_pattern();
    poller = epoll_create1(0);
    open_all();
    make_batches();
    wait_for_start();
    (options.flood ? flood : exchange)();
    return print_result(lost);
}
