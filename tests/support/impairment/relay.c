// A relay between two Ethernet interfaces that impairs IP packets as a plan says, and records what
// it did with each of them: `relay PLAN LOG NEAR FAR [spin]`.
//
// It says "ready" on standard output, relays until SIGTERM, and then writes LOG, one line of JSON a
// packet. Packets are those of UDP, TCP, ICMP and, of ICMPv6, echo; all else passes at once. "there" is from NEAR to FAR,
// "back" from FAR to NEAR. A line of PLAN is a direction and one of
//
//   paths N                N paths of equal cost; the port of NEAR's host chooses (path_of below)
//   plan PATH ENTRY...     what happens to the packets of a path, in order and then from the
//                          beginning: `-` loses the packet; nanoseconds delay it; several, with
//                          commas between them, make a copy each
//   mtu BYTES              an IP packet longer than this is lost
//   hops N                 is taken off the TTL or hop limit; a packet without any left is lost
//   tos N                  is written over the octet with DSCP and ECN
//   cut BYTES              a UDP packet that carries more than this is shortened to it
//
// Arrivals and departures are the kernel's own stamps (CLOCK_REALTIME), taken when the frame leaves
// the peer's queue and when it is given to the interface. With `spin` the relay never sleeps.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

enum {
    MOST_PATHS = 64,
    MOST_COPIES = 8,
    MOST_QUEUED = 1 << 16,
    MOST_RECORDS = 1 << 20,
    MOST_FRAME = 16384,
    SHOWN = 64,  // bytes of a payload that the log shows
    BATCH = 32,  // frames of one interface before the other one has its turn
    LATE_NS = 100000,  // the kernel may wake a sleeper this late; the rest is spent spinning
    LOST = -1,
};
static const int64_t NS = 1000000000;

struct entry {
    int count;  // copies, or LOST
    int64_t delay_ns[MOST_COPIES];
};

struct plan {
    struct entry *entries;
    size_t count, next;
};

struct way {
    const char *name;
    int in, out;  // packet sockets
    uint32_t out_id;  // of the last departure (SOF_TIMESTAMPING_OPT_ID)
    int mtu, hops, tos, cut;
    unsigned paths;
    struct plan plans[MOST_PATHS];
};

struct record {
    struct way *way;
    const char *fate;  // why it was lost, or "sent"
    int64_t arrived_ns;
    struct entry copies;
    int64_t sent_ns[MOST_COPIES];  // 0: still queued at the end
    int path, family, protocol, length, ttl, tos, shown;
    uint16_t source, destination;
    uint8_t addresses[2][16], payload[SHOWN];
};

struct queued {
    int64_t due_ns;
    uint64_t order;
    struct record *record;  // NULL: not IP
    int copy;
    struct way *way;
    size_t length;
    uint8_t *frame;
};

struct packet {  // where the parts of an IP packet are
    uint8_t *ip, *transport;
    int family, header, length, protocol;
};

static struct way there = {.name = "there", .tos = -1, .paths = 1};
static struct way back = {.name = "back", .tos = -1, .paths = 1};
static struct record *records;
static size_t record_count;
static struct queued heap[MOST_QUEUED];
static size_t heap_count;
static uint64_t order;
static volatile sig_atomic_t over;

__attribute__((noreturn, format(printf, 1, 2))) static void give_up(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, ": %s\n", strerror(errno));
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * NS + now.tv_nsec;
}

// --- the plan -----------------------------------------------------------------------------------

static void read_entries(struct plan *plan, char *rest)
{
    for (char *word; (word = strtok_r(NULL, " \n", &rest));) {
        plan->entries = realloc(plan->entries, (plan->count + 1) * sizeof *plan->entries);
        struct entry *entry = &plan->entries[plan->count++];
        *entry = (struct entry){.count = LOST};
        if (!strcmp(word, "-"))
            continue;
        entry->count = 0;
        for (char *each, *kept; entry->count < MOST_COPIES; word = NULL) {
            if (!(each = strtok_r(word, ",", &kept)))
                break;
            entry->delay_ns[entry->count++] = strtoll(each, NULL, 10);
        }
    }
}

static void read_plan(const char *name)
{
    FILE *file = fopen(name, "r");
    if (!file)
        give_up("%s", name);
    char *line = NULL, *rest;
    for (size_t size = 0; getline(&line, &size, file) > 0;) {
        struct way *way = strcmp(strtok_r(line, " \n", &rest), "back") ? &there : &back;
        const char *key = strtok_r(NULL, " \n", &rest);
        long value = strtol(strtok_r(NULL, " \n", &rest), NULL, 10);
        if (!strcmp(key, "paths") && value > 0 && value <= MOST_PATHS)
            way->paths = value;
        else if (!strcmp(key, "plan") && value >= 0 && value < MOST_PATHS)
            read_entries(&way->plans[value], rest);
        else if (!strcmp(key, "mtu"))
            way->mtu = value;
        else if (!strcmp(key, "hops"))
            way->hops = value;
        else if (!strcmp(key, "tos"))
            way->tos = value;
        else if (!strcmp(key, "cut"))
            way->cut = value;
        else
            errno = EINVAL, give_up("%s: %s %s %ld", name, way->name, key, value);
    }
    free(line);
    fclose(file);
}

// The same as Way.path_of in path.py.
static unsigned path_of(const struct way *way, uint16_t port)
{
    return ((uint32_t)(port * 2654435761u) >> 16) % way->paths;
}

// --- packets ------------------------------------------------------------------------------------

static uint16_t get16(const uint8_t *at) { return at[0] << 8 | at[1]; }
static void put16(uint8_t *at, uint16_t value) { at[0] = value >> 8, at[1] = value & 0xff; }

// Of ICMP echo, the identifier and the sequence number take the place of ports in the log.
static bool is_echo(const struct packet *packet)
{
    int kind = packet->transport[0];
    return packet->family == 4 ? packet->protocol == IPPROTO_ICMP && (kind == 8 || kind == 0)
                               : packet->protocol == IPPROTO_ICMPV6 && kind / 2 == 64;
}

// Return false if this is no IP packet that is to be impaired.
static bool parse(uint8_t *frame, size_t size, struct packet *packet)
{
    if (size < 14 + 20)
        return false;
    uint8_t *ip = packet->ip = frame + 14;
    uint16_t kind = get16(frame + 12);
    if (kind == ETH_P_IP) {
        packet->family = 4, packet->header = (ip[0] & 15) * 4;
        packet->length = get16(ip + 2), packet->protocol = ip[9];
    } else if (kind == ETH_P_IPV6 && size >= 14 + 48) {
        packet->family = 6, packet->header = 40;
        packet->length = 40 + get16(ip + 4), packet->protocol = ip[6];
    } else {
        return false;
    }
    packet->transport = ip + packet->header;
    bool has_fate = packet->protocol == IPPROTO_UDP || packet->protocol == IPPROTO_TCP ||
                    packet->protocol == IPPROTO_ICMP || is_echo(packet);
    return has_fate && packet->length <= (int)size - 14;
}

static bool has_ports(const struct packet *packet)
{
    bool is_later_fragment = packet->family == 4 && get16(packet->ip + 6) & 0x1fff;
    return !is_later_fragment &&
           (packet->protocol == IPPROTO_UDP || packet->protocol == IPPROTO_TCP);
}

static uint16_t folded(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
}

static uint32_t summed(const uint8_t *at, int count, uint32_t sum)
{
    for (int i = 0; i < count; i++)
        sum += i & 1 ? at[i] : at[i] << 8;
    return sum;
}

static void rewrite(const struct way *way, struct packet *packet)
{
    uint8_t *ip = packet->ip, *udp = packet->transport;
    bool is_v4 = packet->family == 4;
    if (way->hops)
        ip[is_v4 ? 8 : 7] -= way->hops;
    if (way->tos >= 0 && is_v4)
        ip[1] = way->tos;
    else if (way->tos >= 0)
        ip[0] = 0x60 | way->tos >> 4, ip[1] = (way->tos & 15) << 4 | (ip[1] & 15);
    if (way->cut && packet->protocol == IPPROTO_UDP && get16(udp + 4) > 8 + way->cut) {
        int length = 8 + way->cut;
        packet->length = packet->header + length;
        put16(ip + (is_v4 ? 2 : 4), is_v4 ? packet->length : length);
        put16(udp + 4, length);
        put16(udp + 6, 0);
        uint32_t sum = summed(ip + (is_v4 ? 12 : 8), is_v4 ? 8 : 32, IPPROTO_UDP + length);
        put16(udp + 6, folded(summed(udp, length, sum)));
    }
    if (is_v4) {
        put16(ip + 10, 0);
        put16(ip + 10, folded(summed(ip, packet->header, 0)));
    }
}

static struct record *recorded(struct way *way, const struct packet *packet, int64_t arrived_ns)
{
    if (record_count == MOST_RECORDS)
        errno = EOVERFLOW, give_up("more than %d packets", MOST_RECORDS);
    struct record *record = &records[record_count++];
    const uint8_t *ip = packet->ip, *data = packet->transport;
    bool is_v4 = packet->family == 4;
    record->way = way, record->arrived_ns = arrived_ns, record->family = packet->family;
    record->protocol = packet->protocol, record->length = packet->length;
    record->ttl = ip[is_v4 ? 8 : 7];
    record->tos = is_v4 ? ip[1] : (ip[0] & 15) << 4 | ip[1] >> 4;
    for (int i = 0, size = is_v4 ? 4 : 16; i < 2; i++)
        memcpy(record->addresses[i], ip + (is_v4 ? 12 : 8) + i * size, size);
    if (has_ports(packet))
        record->source = get16(data), record->destination = get16(data + 2);
    else if (is_echo(packet))
        record->source = get16(data + 4), record->destination = get16(data + 6);
    record->path = path_of(way, way == &there ? record->source : record->destination);
    int skipped = packet->protocol == IPPROTO_TCP ? (data[12] >> 4) * 4 : 8;
    int left = packet->length - packet->header - skipped;
    record->shown = left < 0 ? 0 : left < SHOWN ? left : SHOWN;
    memcpy(record->payload, data + skipped, record->shown);
    return record;
}

// --- the queue: a binary heap, by time and then in order ----------------------------------------

static bool is_before(const struct queued *one, const struct queued *other)
{
    if (one->due_ns != other->due_ns)
        return one->due_ns < other->due_ns;
    return one->order < other->order;
}

static void swap(size_t one, size_t other)
{
    struct queued kept = heap[one];
    heap[one] = heap[other];
    heap[other] = kept;
}

static void push(struct queued item)
{
    if (heap_count == MOST_QUEUED)
        errno = ENOBUFS, give_up("more than %d packets at once", MOST_QUEUED);
    size_t at = heap_count++;
    item.order = order++;
    heap[at] = item;
    for (; at && is_before(&heap[at], &heap[(at - 1) / 2]); at = (at - 1) / 2)
        swap(at, (at - 1) / 2);
}

static struct queued pop(void)
{
    struct queued first = heap[0];
    heap[0] = heap[--heap_count];
    for (size_t at = 0, least = 0;; at = least) {
        for (size_t child = 2 * at + 1; child <= 2 * at + 2; child++)
            if (child < heap_count && is_before(&heap[child], &heap[least]))
                least = child;
        if (least == at)
            return first;
        swap(at, least);
    }
}

// --- sockets ------------------------------------------------------------------------------------

static int opened(const char *interface)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        give_up("a packet socket");
    int stamps = SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_RX_SOFTWARE |
                 SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_OPT_ID |
                 SOF_TIMESTAMPING_OPT_TSONLY;
    int yes = 1, bytes = 16 << 20;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
    if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &stamps, sizeof stamps))
        give_up("SO_TIMESTAMPING");
    if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof yes))
        give_up("PACKET_IGNORE_OUTGOING");
    struct packet_mreq all = {.mr_ifindex = if_nametoindex(interface),
                              .mr_type = PACKET_MR_PROMISC};
    if (setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all))
        give_up("%s", interface);
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL),
                                  .sll_ifindex = all.mr_ifindex};
    if (bind(fd, (struct sockaddr *)&address, sizeof address))
        give_up("bind %s", interface);
    return fd;
}

static int64_t stamp_of(struct msghdr *message)
{
    for (struct cmsghdr *each = CMSG_FIRSTHDR(message); each; each = CMSG_NXTHDR(message, each))
        if (each->cmsg_level == SOL_SOCKET && each->cmsg_type == SCM_TIMESTAMPING) {
            struct timespec stamp;
            memcpy(&stamp, CMSG_DATA(each), sizeof stamp);
            return stamp.tv_sec * NS + stamp.tv_nsec;
        }
    return 0;
}

// Return when the frame that was sent last went to its interface. A pair of veth interfaces without
// a queue has stamped it before send() returns.
static int64_t departure(struct way *way)
{
    char room[512];
    uint32_t id = way->out_id++;
    for (int tries = 0; tries < 1000; tries++) {
        struct msghdr message = {.msg_control = room, .msg_controllen = sizeof room};
        if (recvmsg(way->out, &message, MSG_ERRQUEUE) < 0)
            continue;
        for (struct cmsghdr *each = CMSG_FIRSTHDR(&message); each;
             each = CMSG_NXTHDR(&message, each))
            if (each->cmsg_level == SOL_PACKET && each->cmsg_type == PACKET_TX_TIMESTAMP) {
                struct sock_extended_err told;
                memcpy(&told, CMSG_DATA(each), sizeof told);
                if (told.ee_data == id)
                    return stamp_of(&message);
            }
    }
    errno = ETIME;
    give_up("no stamp of a departure");
}

static void depart(struct queued *item)
{
    if (send(item->way->out, item->frame, item->length, 0) < 0)
        give_up("send");
    int64_t sent_ns = departure(item->way);
    if (item->record)
        item->record->sent_ns[item->copy] = sent_ns;
    free(item->frame);
}

static void queue(struct way *way, struct record *record, int copy, int64_t due_ns,
                  const uint8_t *frame, size_t length)
{
    struct queued item = {.due_ns = due_ns, .record = record, .copy = copy, .way = way,
                          .length = length, .frame = malloc(length)};
    memcpy(item.frame, frame, length);
    push(item);
}

static void judge(struct way *way, uint8_t *frame, size_t size, int64_t arrived_ns)
{
    struct packet packet;
    if (!parse(frame, size, &packet)) {
        queue(way, NULL, 0, 0, frame, size);
        return;
    }
    struct record *record = recorded(way, &packet, arrived_ns);
    struct plan *plan = &way->plans[record->path];
    record->copies = plan->count ? plan->entries[plan->next++ % plan->count]
                                 : (struct entry){.count = 1};
    record->fate = record->copies.count == LOST              ? "lost"
                   : way->mtu && packet.length > way->mtu    ? "mtu"
                   : way->hops && record->ttl <= way->hops   ? "ttl"
                                                             : "sent";
    if (strcmp(record->fate, "sent")) {
        record->copies.count = 0;
        return;
    }
    rewrite(way, &packet);
    for (int copy = 0; copy < record->copies.count; copy++)
        queue(way, record, copy, arrived_ns + record->copies.delay_ns[copy], frame,
              14 + packet.length);
}

static bool take(struct way *way)
{
    static uint8_t frame[MOST_FRAME];
    char room[256];
    int count = 0;
    for (; count < BATCH; count++) {
        struct iovec part = {frame, sizeof frame};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room,
                                 .msg_controllen = sizeof room};
        ssize_t size = recvmsg(way->in, &message, MSG_DONTWAIT);
        if (size < 0 && errno == EAGAIN)
            break;
        if (size < 0)
            give_up("receive");
        if (message.msg_flags & MSG_TRUNC)
            errno = EMSGSIZE, give_up("a frame of more than %d bytes", MOST_FRAME);
        int64_t arrived_ns = stamp_of(&message);
        judge(way, frame, size, arrived_ns ? arrived_ns : now_ns());
        if (heap_count && heap[0].due_ns <= now_ns())
            return true;
    }
    return count > 0;
}

static void relay(bool spins)
{
    sigset_t none;
    sigemptyset(&none);
    struct pollfd polled[] = {{there.in, POLLIN, 0}, {back.in, POLLIN, 0}};
    while (!over) {
        bool did = false;
        while (heap_count && heap[0].due_ns <= now_ns()) {
            struct queued item = pop();
            depart(&item);
            did = true;
        }
        did |= take(&there);
        did |= take(&back);
        int64_t wait_ns = heap_count ? heap[0].due_ns - now_ns() - LATE_NS : NS;
        if (did || wait_ns <= 0)
            continue;
        struct timespec wait = {wait_ns / NS, wait_ns % NS};
        if (spins)
            wait = (struct timespec){0, 0};
        static unsigned turns;
        if (!spins || ++turns % 64 == 0)  // where signals are taken
            ppoll(polled, 2, &wait, &none);
    }
    while (take(&there) | take(&back))  // what came before the signal is recorded, too
        ;
}

// --- the log ------------------------------------------------------------------------------------

static void write_log(const char *name)
{
    FILE *file = fopen(name, "w");
    if (!file)
        give_up("%s", name);
    for (const struct record *each = records; each < records + record_count; each++) {
        char source[INET6_ADDRSTRLEN], destination[INET6_ADDRSTRLEN];
        int family = each->family == 4 ? AF_INET : AF_INET6;
        inet_ntop(family, each->addresses[0], source, sizeof source);
        inet_ntop(family, each->addresses[1], destination, sizeof destination);
        fprintf(file,
                "{\"way\": \"%s\", \"fate\": \"%s\", \"path\": %d, \"source\": \"%s\", "
                "\"destination\": \"%s\", \"protocol\": %d, \"source_port\": %d, "
                "\"destination_port\": %d, \"length\": %d, \"ttl\": %d, \"tos\": %d, "
                "\"arrived_ns\": %lld, \"wanted_ns\": [",
                each->way->name, each->fate, each->path, source, destination, each->protocol,
                each->source, each->destination, each->length, each->ttl, each->tos,
                (long long)each->arrived_ns);
        for (int copy = 0; copy < each->copies.count; copy++)
            fprintf(file, "%s%lld", copy ? ", " : "", (long long)each->copies.delay_ns[copy]);
        fputs("], \"sent_ns\": [", file);
        for (int copy = 0; copy < each->copies.count; copy++)
            fprintf(file, "%s%lld", copy ? ", " : "", (long long)each->sent_ns[copy]);
        fputs("], \"payload\": \"", file);
        for (int i = 0; i < each->shown; i++)
            fprintf(file, "%02x", each->payload[i]);
        fputs("\"}\n", file);
    }
    if (fclose(file))
        give_up("%s", name);
}

static void stop(int number)
{
    (void)number;
    over = 1;
}

int main(int count, char **words)
{
    if (count < 5) {
        fprintf(stderr, "usage: relay PLAN LOG NEAR FAR [spin]\n");
        return 2;
    }
    bool spins = count > 5;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    prctl(PR_SET_TIMERSLACK, 1);
    signal(SIGTERM, stop);
    sigset_t term;  // taken in ppoll() alone
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    read_plan(words[1]);
    records = calloc(MOST_RECORDS, sizeof *records);
    there.in = back.out = opened(words[3]);
    there.out = back.in = opened(words[4]);
    if (!spins) {  // a relay that never sleeps must not take its CPU from all others
        struct sched_param first = {.sched_priority = 1};
        sched_setscheduler(0, SCHED_FIFO, &first);
    }
    puts("ready");
    fflush(stdout);
    relay(spins);
    write_log(words[2]);
    return 0;
}
