// The reference for UDP: one thread, 64 datagrams a call, no limits, no accounting, no log.
#define _GNU_SOURCE
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { BATCH = 64, SIZE = 65536 };

int main(int count, char **words)
{
    static struct mmsghdr messages[BATCH];
    static struct iovec at[BATCH];
    static struct sockaddr_in peers[BATCH];
    static char buffers[BATCH][SIZE];
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                            .sin_port = htons(count > 1 ? atoi(words[1]) : 7)};
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    if (bind(s, (struct sockaddr *)&a, sizeof a))
        return perror("mmsg_echo"), 1;
    for (int i = 0; i < BATCH; i++)
        messages[i].msg_hdr = (struct msghdr){.msg_name = &peers[i], .msg_iov = &at[i], .msg_iovlen = 1};
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            at[i] = (struct iovec){buffers[i], SIZE};
            messages[i].msg_hdr.msg_namelen = sizeof peers[i];
        }
        int n = recvmmsg(s, messages, BATCH, MSG_WAITFORONE, NULL);
        for (int i = 0; i < n; i++)
            at[i].iov_len = messages[i].msg_len;
        for (int i = 0, sent; i < n; i += sent)
            if ((sent = sendmmsg(s, messages + i, n - i, 0)) < 1)
                sent = 1; // the first of them cannot be sent
    }
}
